"""Proximal policy optimisation of a base and an adapted policy from two fidelities' rollouts.

    θ ← θ − η_θ ∇_θ (L_low + L_high),    φ ← φ − η_φ ∇_φ L_high

L_low is the PPO loss of π_θ on the low rows, L_high that of π_{θ,φ} on the high rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch, ppo_loss_gradient
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.policies.normalizer import Gather
from dualfid_robot.settings import require, require_integer, require_number

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-6, 1e-2
MAX_CHUNK_ROWS = 8192
"""On a CPU a mini-batch runs in pieces of at most so many rows: larger activations (32 MiB and more) come fresh from
the operating system at every allocation, and their page faults cost more than the arithmetic."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the algorithm. Names as under ``train.params.config`` of IsaacGymEnvs / rl_games where they have one.

    Attributes:
        horizon_length: T, steps per iteration.
        minibatch_size: samples per gradient step, both fidelities together, of one process; divides N · T.
        mini_epochs: passes over an iteration's samples.
        gamma, tau: discount, and λ of GAE.
        learning_rate, adapter_learning_rate: of θ and of φ; the initial ones with ``lr_schedule`` "adaptive". A step of
            B moves W' = W + s B A by s·|A| < 1 of itself, so φ's is the larger.
        lr_schedule: "adaptive" (after every epoch /1.5 where KL > 2 kl_threshold, ·1.5 where KL < kl_threshold / 2; θ
            by the greater of both fidelities' KL, φ by the high one), "annealed" (the same, but kl_threshold falls
            linearly to 0 over the run) or "constant".
        kl_threshold: see lr_schedule.
        e_clip: ε of the ratio, and of the value where ``clip_value``.
        critic_coef, entropy_coef, bounds_loss_coef: coefficients of the loss (``ppo_loss_gradient``).
        truncate_grads, grad_norm: clip the gradient's norm, θ and φ separately.
        normalize_advantage: per fidelity, over the iteration's samples.
        normalize_input, normalize_value: update the statistics of observations and returns (else mean 0, variance 1).
        value_bootstrap: bootstrap a truncated episode with the value of its final observation.
        reward_scale: factor on rewards (rl_games: reward_shaper.scale_value).
        mixed_precision: hidden layers' products in bfloat16: "auto" where the device multiplies it fast, True, False.
        loss_weighting: "sum" is L_low + L_high, each a mean (as published); "share" weighs each by its samples.
        adapter_weight_decay: decoupled weight decay of φ, which pulls the policies together.
    """

    horizon_length: int = 16
    minibatch_size: int = 32768
    mini_epochs: int = 4
    gamma: float = 0.99
    tau: float = 0.95
    learning_rate: float = 3e-4
    adapter_learning_rate: float = 1e-3
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
    loss_weighting: Literal["sum", "share"] = "sum"
    adapter_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (("horizon_length", 1), ("minibatch_size", 1), ("mini_epochs", 1)):
            require_integer(name, getattr(self, name), low)
        for name in ("gamma", "tau"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("learning_rate", "adapter_learning_rate", "kl_threshold", "e_clip", "grad_norm", "reward_scale"):
            require_number(name, getattr(self, name), 0.0, math.inf, open_low=True)
        for name in ("critic_coef", "entropy_coef", "bounds_loss_coef", "adapter_weight_decay"):
            require_number(name, getattr(self, name), 0.0, math.inf)

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


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 products."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that activations free: given back, every page faults again (3 to 10 % of an update).

    Its thresholds rise to the size of the largest block ever freed, up to 32 MiB (mallopt(3)); elsewhere, no effect.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


class DualPPO:
    """Trains a ``DualActorCritic``.

    One iteration::

        storage.begin(n_low)
        for _ in range(horizon):
            actions, log_probs, values = policy.act(obs, n_low, generator)
            ...  # step the environments
            storage.add(...)
        algorithm.compute_returns(storage, obs)
        metrics = read_back(algorithm.update(storage, progress))

    Between the rollout and ``read_back`` the host never waits for a GPU.

    Args:
        policy: both policies; moved to ``device``, and given the type of its hidden layers' products.
        config: settings.
        device: of the policy and of the storages.
        seed: of the shuffling of samples, the same in every process.
        ranks: the processes that train this policy together; all give it the same initial weights.
    """

    def __init__(
        self,
        policy: DualActorCritic,
        config: PPOConfig,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Communicator = ALONE,
    ) -> None:
        self.ranks = ranks
        self.device = torch.device(device)
        self.policy, self.config = policy.to(self.device), config
        if self.device.type == "cpu":
            _keep_freed_memory()
        use_bfloat16 = bfloat16_is_fast(self.device) if config.mixed_precision == "auto" else config.mixed_precision
        policy.hidden_dtype = torch.bfloat16 if use_bfloat16 else torch.float32
        self._base, self._adapter = policy.base_parameters(), policy.adapter_parameters()
        self._parameters = [*self._base, *self._adapter]
        self.base_optimizer = torch.optim.Adam(self._base, lr=self._rate(config.learning_rate), fused=True)
        self.adapter_optimizer = torch.optim.AdamW(
            self._adapter,
            lr=self._rate(config.adapter_learning_rate),
            weight_decay=config.adapter_weight_decay,
            fused=True,
        )
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._coefficients = LossCoefficients(
            config.e_clip, config.critic_coef, config.clip_value, config.entropy_coef, config.bounds_loss_coef
        )

    def make_storage(self, num_envs: int) -> RolloutStorage:
        """A storage for N environments; ConfigError unless the mini-batch size divides N · T."""
        self.config.num_minibatches(num_envs)
        return RolloutStorage(
            self.config.horizon_length, num_envs, self.policy.num_obs, self.policy.num_actions, self.device
        )

    def compute_returns(self, storage: RolloutStorage, last_obs: Tensor) -> None:
        """Fill the storage's returns and advantages, given the observations (N, num_obs) after the last step."""
        config = self.config
        if config.value_bootstrap:
            if self.device.type == "cpu":  # few rows are truncated
                steps, rows, n_low = storage.truncated_rows()
                final_obs = storage.final_observations[steps, rows]
                storage.final_values[steps, rows] = self.policy.values(final_obs, n_low)
            else:  # to find them, the host would wait; one more pass of the critic costs a GPU less
                storage.set_final_values(self.policy.values(*storage.all_final_observations()))
        last_values = self.policy.values(last_obs, storage.n_low)
        storage.compute_returns(last_values, config.gamma, config.tau, config.reward_scale, config.value_bootstrap)

    def update(self, storage: RolloutStorage, progress: float) -> dict[str, Tensor]:
        """Train on one rollout whose returns are computed, then update the observation statistics.

        Args:
            storage: the rollout.
            progress: of the run, 0 at its beginning and 1 at its end, for ``lr_schedule`` "annealed".

        Returns:
            Metrics by name (docs/algorithm.md lists them), for ``read_back``; those of a fidelity without samples are
            left out.
        """
        config, policy, gather = self.config, self.policy, self.ranks.gather
        n_low, n_high = storage.n_low, storage.num_envs - storage.n_low
        metrics = {
            f"explained_variance/{side}": _explained_variance(storage.values[:, rows], storage.returns[:, rows], gather)
            for side, rows in (("low", slice(0, n_low)), ("high", slice(n_low, storage.num_envs)))
            if rows.start < rows.stop
        }
        if config.normalize_value:
            low_returns, high_returns = storage.returns[:, :n_low].flatten(), storage.returns[:, n_low:].flatten()
            policy.update_return_statistics(low_returns, high_returns, gather)

        minibatches = self._shuffled_minibatches(storage)
        share = n_low / storage.num_envs
        low_weight, high_weight = (share, 1.0 - share) if config.loss_weighting == "share" else (1.0, 1.0)
        sums = storage.returns.new_zeros(config.mini_epochs, 2, 4)
        norms = storage.returns.new_zeros(2)
        for epoch in range(config.mini_epochs):
            for chunks in minibatches:
                low_samples = sum(n for _, n in chunks)
                high_samples = sum(batch.values.shape[0] - n for batch, n in chunks)
                weights = (low_weight / max(low_samples, 1), high_weight / max(high_samples, 1))
                self.base_optimizer.zero_grad()
                self.adapter_optimizer.zero_grad()
                for batch, chunk_n_low in chunks:
                    mean, value = policy.evaluate(batch.obs, chunk_n_low)
                    gradient = ppo_loss_gradient(
                        mean, policy.log_std, value, batch, chunk_n_low, weights, self._coefficients
                    )
                    torch.autograd.backward((mean, value), (gradient.mean, gradient.value))
                    accumulated = policy.log_std.grad
                    policy.log_std.grad = gradient.log_std if accumulated is None else accumulated + gradient.log_std
                    sums[epoch] += gradient.sums
                # a mean of what is the same everywhere changes nothing: earlier mini-batches' sums stay as they are
                self.ranks.average_([p.grad for p in self._parameters if p.grad is not None] + [sums[epoch]])
                norms[0] += self._clip(self._base)
                norms[1] += self._clip(self._adapter)
                self.base_optimizer.step()
                self.adapter_optimizer.step()
            if config.lr_schedule != "constant":
                remaining = 1.0 - progress if config.lr_schedule == "annealed" else 1.0
                self._adapt_learning_rates(sums[epoch, :, 2], n_low, n_high, config.kl_threshold * remaining)

        if config.normalize_input:
            low_obs, high_obs = storage.low_observations.flatten(0, 1), storage.high_observations.flatten(0, 1)
            policy.normalizer.update(low_obs, high_obs, gather)
        return metrics | self._metrics(sums.mean(0), norms / (config.mini_epochs * len(minibatches)), storage)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's own state (which holds both normalisers) that the next update depends on."""
        return {
            "base_optimizer": self.base_optimizer.state_dict(),
            "adapter_optimizer": self.adapter_optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.base_optimizer.load_state_dict(state["base_optimizer"])
        self.adapter_optimizer.load_state_dict(state["adapter_optimizer"])
        for optimizer in (self.base_optimizer, self.adapter_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = self._rate(float(group["lr"]))
        self._generator.set_state(state["generator"].cpu())

    def _rate(self, value: float) -> Tensor:
        """A learning rate that the device can change. CUDA's optimisers read float32; a CPU's take it as a double."""
        return torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32).to(self.device)

    def _shuffled_minibatches(self, storage: RolloutStorage) -> list[list[tuple[MiniBatch, int]]]:
        """The samples as K mini-batches of [low | high] chunks, shuffled once; per chunk its number of low samples.

        Each of the K · C chunks takes an equal share (to one sample) of each fidelity's samples, so K does not depend
        on the allocation.
        """
        config, policy = self.config, self.policy
        horizon, num_envs, n_low = storage.horizon, storage.num_envs, storage.n_low
        num_minibatches = config.num_minibatches(num_envs)
        chunks_each = -(-config.minibatch_size // MAX_CHUNK_ROWS) if self.device.type == "cpu" else 1
        pieces = num_minibatches * chunks_each
        low = _shuffled_indices(horizon, num_envs, 0, n_low, self._generator).tensor_split(pieces)
        high = _shuffled_indices(horizon, num_envs, n_low, num_envs, self._generator).tensor_split(pieces)
        order = torch.cat([part for pair in zip(low, high, strict=True) for part in pair])

        advantages = storage.advantages
        if config.normalize_advantage:
            sides = (advantages[:, :n_low], advantages[:, n_low:])
            advantages = torch.cat([_standardised(side, self.ranks.gather) for side in sides], dim=1)
        normalizer = policy.return_normalizer
        samples = MiniBatch(
            obs=policy.normalizer(storage.observations).to(policy.hidden_dtype),
            actions=storage.actions,
            log_probs=storage.log_probs,
            advantages=advantages,
            returns=normalizer.normalize(storage.returns.t(), n_low).t(),
            values=normalizer.normalize(storage.values.t(), n_low).t(),
        )
        shuffled = [tensor.reshape(horizon * num_envs, *tensor.shape[2:]).index_select(0, order) for tensor in samples]
        sizes = [a.shape[0] + b.shape[0] for a, b in zip(low, high, strict=True)]
        batches = [MiniBatch(*parts) for parts in zip(*(tensor.split(sizes) for tensor in shuffled), strict=True)]
        chunks = [(batch, part.shape[0]) for batch, part in zip(batches, low, strict=True)]
        return [chunks[i : i + chunks_each] for i in range(0, pieces, chunks_each)]

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the norm of the gradients and return what it was."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if self.config.truncate_grads:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_norm, norm, foreach=True)
        return norm

    def _adapt_learning_rates(self, kl_sums: Tensor, n_low: int, n_high: int, threshold: float) -> None:
        """rl_games' adaptive rule, once per epoch."""
        horizon = self.config.horizon_length
        low_sum, high_sum = kl_sums.double().unbind()
        low_kl, high_kl = low_sum / max(n_low * horizon, 1), high_sum / max(n_high * horizon, 1)
        _adapt(self.base_optimizer, torch.maximum(low_kl, high_kl), threshold)
        if n_high > 0:
            _adapt(self.adapter_optimizer, high_kl, threshold)

    def _metrics(self, sums: Tensor, norms: Tensor, storage: RolloutStorage) -> dict[str, Tensor]:
        policy = self.policy
        log_std = policy.log_std.detach()
        metrics = {
            "policy/entropy": log_std.sum() + policy.num_actions * (0.5 + 0.5 * math.log(2.0 * math.pi)),
            "policy/std": log_std.exp().mean(),
            "grad_norm/base": norms[0],
            "grad_norm/adapter": norms[1],
            "adapter/actor_ratio": policy.adapter_ratio("actor"),
            "adapter/critic_ratio": policy.adapter_ratio("critic"),
            "learning_rate/base": self.base_optimizer.param_groups[0]["lr"],
            "learning_rate/adapter": self.adapter_optimizer.param_groups[0]["lr"],
        }
        sizes = {"low": storage.n_low, "high": storage.num_envs - storage.n_low}
        for side, (name, size) in enumerate(sizes.items()):
            if size > 0:
                means = sums[side] / (size * storage.horizon)
                for column, metric in enumerate(("policy_loss", "value_loss", "approx_kl", "clip_fraction")):
                    metrics[f"{metric}/{name}"] = means[column]
        return metrics


def read_back(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """The values of scalars of one device, in one copy: the only time in an iteration that the host waits for a GPU.

    Raises:
        FloatingPointError: a value is not finite. The policy is spoiled then: go on from a checkpoint.
    """
    values = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value}: check the rewards and observations of that fidelity")
    return values


def _adapt(optimizer: torch.optim.Optimizer, kl: Tensor, threshold: float) -> None:
    rate: Tensor = optimizer.param_groups[0]["lr"]
    slower, faster = (rate / 1.5).clamp_min(MIN_LEARNING_RATE), (rate * 1.5).clamp_max(MAX_LEARNING_RATE)
    rate.copy_(torch.where(kl > 2.0 * threshold, slower, torch.where(kl < 0.5 * threshold, faster, rate)))


def _shuffled_indices(horizon: int, num_envs: int, first_row: int, end_row: int, generator: torch.Generator) -> Tensor:
    """A random order of the samples (t, row), first_row <= row < end_row, as indices t · N + row."""
    rows = end_row - first_row
    order = torch.randperm(horizon * rows, generator=generator, device=generator.device)
    return order // max(rows, 1) * num_envs + order % max(rows, 1) + first_row


def _moments(x: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all elements of all processes."""
    std, mean = torch.std_mean(x, correction=0)
    # in float64 the root of the square of a single process's deviation is that deviation to the bit
    means, stds = gather(torch.stack((mean, std)).double()).unbind(1)
    return means.mean().to(x.dtype), (stds.square().mean() + means.var(correction=0)).sqrt().to(x.dtype)


def _standardised(advantages: Tensor, gather: Gather) -> Tensor:
    """(A − mean) / std; a single sample, or samples that are all equal, give zeros."""
    if advantages.numel() == 0:
        return advantages
    mean, std = _moments(advantages, gather)
    return (advantages - mean) / (std + 1e-8)


def _explained_variance(values: Tensor, returns: Tensor, gather: Gather) -> Tensor:
    """1 − Var(R − V) / Var(R): 1 for a perfect critic, 0 for a constant one."""
    _, error = _moments(returns - values, gather)
    _, spread = _moments(returns, gather)
    return 1.0 - error.square() / spread.square().clamp_min(1e-12)
