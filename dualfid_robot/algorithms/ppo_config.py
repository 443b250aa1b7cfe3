"""Settings of the dual PPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dualfid_robot.settings import require, require_integer, require_number


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the algorithm. Names as under ``train.params.config`` of IsaacGymEnvs / rl_games where they have one.

    Attributes:
        horizon_length: T, steps per iteration.
        minibatch_size: samples per gradient step, both fidelities together, of one process; divides N · T.
        mini_epochs: passes over an iteration's samples.
        gamma, tau: discount, and λ of GAE.
        learning_rate: of θ; the initial one with ``lr_schedule`` "adaptive".
        adapter_speed: φ's learning rate as a multiple of θ's. At 1 both move the adapted policy about equally, so that
            it moves twice.
        lr_schedule: "adaptive" (after every epoch /1.5 where KL > 2 kl_threshold, ·1.5 where KL < kl_threshold / 2, by
            the greater of both fidelities' KL), "annealed" (the same, but kl_threshold falls linearly to 0 over the
            run) or "constant".
        kl_threshold: see lr_schedule.
        e_clip: ε of the ratio, and of the value where ``clip_value``.
        critic_coef, entropy_coef, bounds_loss_coef: coefficients of the loss (``ppo_loss_gradient``).
        truncate_grads, grad_norm: clip the gradient's norm, θ and φ separately.
        normalize_advantage: per fidelity, over the iteration's samples.
        normalize_input, normalize_value: update the statistics of observations and returns (else mean 0, variance 1).
        value_bootstrap: bootstrap a truncated episode with the value of its final observation.
        reward_scale: factor on rewards (rl_games: reward_shaper.scale_value).
        mixed_precision: hidden layers' products in bfloat16: "auto" where the device multiplies it fast, True, False.
        loss_weighting: of θ's gradient: "sum" is L_low + L_high, each a mean (as published); "share" weighs each by its
            samples.
        base_learns_from: "low": θ gets no gradient of L_high; with ρ = 0 φ alone is tuned (``AdapterTuning``).
        control_variate: the low rows correct the high rows' policy gradient instead of having a loss of their own
            (``MFPG``).
        adapter_weight_decay: decoupled weight decay of φ, which pulls the policies together.
    """

    horizon_length: int = 16
    minibatch_size: int = 32768
    mini_epochs: int = 4
    gamma: float = 0.99
    tau: float = 0.95
    learning_rate: float = 3e-4
    adapter_speed: float = 0.1
    lr_schedule: Literal["adaptive", "annealed", "constant"] = "adaptive"
    kl_threshold: float = 0.008
    e_clip: float = 0.2
    critic_coef: float = 2.0
    clip_value: bool = True
    entropy_coef: float = 0.0
    bounds_loss_coef: float = 1e-4
    truncate_grads: bool = True
    grad_norm: float = 1.0
    normalize_advantage: bool = True
    normalize_input: bool = True
    normalize_value: bool = True
    value_bootstrap: bool = True
    reward_scale: float = 1.0
    mixed_precision: bool | Literal["auto"] = "auto"
    loss_weighting: Literal["sum", "share"] = "share"
    base_learns_from: Literal["both", "low"] = "both"
    control_variate: bool = False
    adapter_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("horizon_length", 1), ("minibatch_size", 1), ("mini_epochs", 1)):
            require_integer(name, getattr(self, name), low)
        for name in ("gamma", "tau"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("learning_rate", "adapter_speed", "kl_threshold", "e_clip", "grad_norm", "reward_scale"):
            require_number(name, getattr(self, name), 0.0, math.inf, open_low=True)
        for name in ("critic_coef", "entropy_coef", "bounds_loss_coef", "adapter_weight_decay"):
            require_number(name, getattr(self, name), 0.0, math.inf)
        if self.control_variate:
            require(self.base_learns_from == "both", "base_learns_from", "low", "both with control_variate=True")

    def num_minibatches(self, num_envs: int) -> int:
        """K = N · T / minibatch_size; ConfigError unless that is whole."""
        samples = num_envs * self.horizon_length
        require(
            samples % self.minibatch_size == 0,
            "train.params.config.minibatch_size",
            self.minibatch_size,
            f"a divisor of num_envs · horizon_length = {num_envs} · {self.horizon_length} = {samples}",
        )
        return samples // self.minibatch_size
