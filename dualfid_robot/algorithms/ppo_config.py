"""Settings of the dual PPO."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dualfid_robot.settings import require, require_integer, require_number

LARGEST = 1e30  # coefficient: products with it are still float32


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the algorithm. cfg/train/base.yaml holds their defaults and says what each is.

    Names are those under ``train.params.config`` of IsaacGymEnvs / rl_games where they have one.
    """

    horizon_length: int
    minibatch_size: int
    mini_epochs: int
    low_passes: float
    gamma: float
    tau: float
    learning_rate: float
    adapter_speed: float
    lr_schedule: Literal["adaptive", "annealed", "constant"]
    kl_threshold: float
    e_clip: float
    critic_coef: float
    clip_value: bool
    entropy_coef: float
    bounds_loss_coef: float
    truncate_grads: bool
    grad_norm: float
    normalize_advantage: bool
    normalize_input: bool
    normalize_value: bool
    value_bootstrap: bool
    reward_scale: float
    mixed_precision: bool | Literal["auto"]
    loss_weighting: Literal["sum", "share"]
    base_learns_from: Literal["both", "low"]
    control_variate: bool
    adapter_weight_decay: float

    def __post_init__(self) -> None:
        for name, low in (("horizon_length", 1), ("minibatch_size", 1), ("mini_epochs", 1)):
            require_integer(name, getattr(self, name), low)
        for name in ("gamma", "tau"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        require_number("low_passes", self.low_passes, 0.0, 1.0)
        for name in ("learning_rate", "adapter_speed", "kl_threshold", "e_clip", "grad_norm", "reward_scale"):
            require_number(name, getattr(self, name), 0.0, math.inf, open_low=True)
        for name in ("critic_coef", "entropy_coef", "bounds_loss_coef", "adapter_weight_decay"):
            require_number(name, getattr(self, name), 0.0, LARGEST)
        if self.control_variate:
            require(self.base_learns_from == "both", "base_learns_from", "low", "both with control_variate=True")

    def num_epochs(self, n_low: int, n_high: int) -> int:
        """Passes over an iteration's samples: the mean over the environments, rounded, and at least 1.

        A row of E_high asks for ``mini_epochs``, a row of E_low for ``low_passes`` times that.
        """
        low_share = n_low / (n_low + n_high)
        return max(round(self.mini_epochs * (1.0 - low_share * (1.0 - self.low_passes))), 1)

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
