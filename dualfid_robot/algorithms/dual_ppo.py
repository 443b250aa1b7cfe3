"""Proximal policy optimisation of a base and an adapted policy from two fidelities' rollouts.

    θ ← θ − η_θ ∇_θ (w_low L_low + w_high L_high),    φ ← φ − η_φ ∇_φ L_high

L_low is the PPO loss of π_θ on the low rows, L_high that of π_{θ,φ} on the high rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.gradients import SUMS, PolicyGradient
from dualfid_robot.algorithms.minibatches import Chunk, chunks_per_minibatch, make_minibatches, shuffled_indices
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.statistics import explained_variance, standardised_per_fidelity
from dualfid_robot.errors import NotFiniteError
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.settings import require

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-6, 1e-2


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
            actions, noise, log_probs, values = policy.act(obs, n_low, generator)
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
        ranks: the processes that train this policy together. All give it the same initial weights.

    What research adds to it (``algorithms/research``) are subclasses that override one step of ``update``.
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
        adapter_rate, decay = self._rate(config.adapter_speed * config.learning_rate), config.adapter_weight_decay
        allowed = "0 where there is no adapter to pull"
        require(bool(self._adapter) or decay == 0.0, "train.params.config.adapter_weight_decay", decay, allowed)
        self.adapter_optimizer = (
            torch.optim.AdamW(self._adapter, lr=adapter_rate, weight_decay=decay, fused=True) if self._adapter else None
        )
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._coefficients = LossCoefficients(
            config.e_clip, config.critic_coef, config.clip_value, config.entropy_coef, config.bounds_loss_coef
        )
        self._gradient = PolicyGradient(policy, self._coefficients)
        self.set_up()

    def set_up(self) -> None:
        """What a subclass adds to the constructor. It raises ConfigError where the policy does not suit it."""

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
        # How well the critic foresaw each fidelity's returns, before it learns from them.
        metrics = self.explained_variances(storage)
        # The value heads follow the scale of the returns.
        self.update_return_statistics(storage)
        # One shuffle gives K mini-batches [low | high] of the same make-up.
        minibatches = self.shuffled_minibatches(storage)
        sizes = storage.n_low, storage.num_envs - storage.n_low
        weights = self.loss_weights(*sizes)
        # A row of E_low is cheap, and is learnt from fewer times.
        epochs = self.config.num_epochs(*sizes)
        sums = storage.returns.new_zeros(epochs, 2, 4)
        norms = storage.returns.new_zeros(2)
        for epoch in range(epochs):
            for index, chunks in enumerate(minibatches):
                # ∇_θ (w_low L_low + w_high L_high) and ∇_φ L_high, the mean over all processes.
                self.set_gradients(chunks, weights, sums[epoch])
                # Clip both norms, and step.
                norms += self.step(index)
            # Both learning rates follow the KL of this epoch.
            self.adapt_learning_rates(sums[epoch, :, SUMS.index("approx_kl")], storage, progress)
        # Observations are normalised by what both fidelities have shown, from the next rollout on.
        self.update_observation_statistics(storage)
        return metrics | self.metrics(sums.mean(0), norms / (epochs * len(minibatches)), storage)

    def explained_variances(self, storage: RolloutStorage) -> dict[str, Tensor]:
        """``explained_variance/low`` and ``/high``, of the fidelities that have rows."""
        sides = {"low": slice(0, storage.n_low), "high": slice(storage.n_low, storage.num_envs)}
        return {
            f"explained_variance/{side}": explained_variance(
                storage.values[:, rows], storage.returns[:, rows], self.ranks.gather
            )
            for side, rows in sides.items()
            if rows.start < rows.stop
        }

    def update_return_statistics(self, storage: RolloutStorage) -> Tensor | None:
        """Update each fidelity's mean and deviation of returns from the rows that the critic learns from.

        Returns:
            (2,) old by new deviation of the low and the high returns. It is None where returns are not normalised.
        """
        if not self.config.normalize_value:
            return None
        rows = self.rows_of_the_critic(storage)
        low, high = (storage.returns[:, part].flatten() for part in rows)
        return self.policy.update_return_statistics(low, high, self.ranks.gather)

    def rows_of_the_critic(self, storage: RolloutStorage) -> tuple[slice, slice]:
        """The low and the high rows that the critic learns from."""
        return slice(0, storage.n_low), slice(storage.n_low, storage.num_envs)

    def shuffled_minibatches(self, storage: RolloutStorage) -> list[list[Chunk]]:
        """The samples as K mini-batches of C chunks [low | high], shuffled once.

        Each of the K · C chunks takes an equal share (to one sample) of each fidelity's samples. So K does not depend
        on the allocation.
        """
        chunks_each = chunks_per_minibatch(self.config.minibatch_size, self.device)
        pieces = self.config.num_minibatches(storage.num_envs) * chunks_each
        return make_minibatches(self.samples(storage), self.sample_order(storage, pieces), chunks_each)

    def sample_order(self, storage: RolloutStorage, pieces: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The low and the high samples' indices t · N + row, in random order and in so many pieces."""
        low, high = (
            shuffled_indices(storage.horizon, storage.num_envs, rows, self._generator).tensor_split(pieces)
            for rows in (range(storage.n_low), range(storage.n_low, storage.num_envs))
        )
        return low, high

    def samples(self, storage: RolloutStorage) -> MiniBatch:
        """What the loss reads of a rollout, (T, N, ·) each: observations, advantages, returns and values normalised."""
        policy, n_low = self.policy, storage.n_low
        advantages = storage.advantages
        if self.config.normalize_advantage:
            advantages = standardised_per_fidelity(advantages, n_low, self.ranks.gather)
        normalizer = policy.return_normalizer
        return MiniBatch(
            obs=policy.normalizer(storage.observations).to(policy.hidden_dtype),
            actions=storage.actions,
            log_probs=storage.log_probs,
            advantages=advantages,
            returns=normalizer.normalize(storage.returns.t(), n_low).t(),
            values=normalizer.normalize(storage.values.t(), n_low).t(),
        )

    def loss_weights(self, n_low: int, n_high: int) -> tuple[float, float]:
        """w_low and w_high in θ's gradient."""
        if self.config.loss_weighting == "sum":
            return 1.0, 1.0
        share = n_low / (n_low + n_high)
        return share, 1.0 - share

    def set_gradients(self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor) -> None:
        """Give the parameters their gradients of a mini-batch, over all processes; add to the sums (2, 4)."""
        for optimizer in self._optimizers():
            optimizer.zero_grad()
        self.accumulate_gradients(chunks, weights, sums)
        # A mean of what is the same everywhere changes nothing: earlier mini-batches' sums stay as they are.
        self.ranks.average_([p.grad for p in self._parameters if p.grad is not None] + [sums])

    def accumulate_gradients(self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor) -> None:
        """This process's gradients of a mini-batch."""
        self._gradient.accumulate(chunks, weights, sums)

    def step(self, index: int) -> Tensor:
        """Clip the gradients of mini-batch `index` and take a step. Returns (2,) their norms before, of θ and φ."""
        norms = torch.stack([self._clip(self._base), self._clip(self._adapter)])
        for optimizer in self._optimizers():
            optimizer.step()
        return norms

    def adapt_learning_rates(self, kl_sums: Tensor, storage: RolloutStorage, progress: float) -> None:
        """rl_games' adaptive rule, once per epoch, by the sums (2,) of both fidelities' KL."""
        config, horizon = self.config, storage.horizon
        n_low, n_high = storage.n_low, storage.num_envs - storage.n_low
        if config.lr_schedule == "constant":
            return
        threshold = config.kl_threshold * (1.0 - progress if config.lr_schedule == "annealed" else 1.0)
        low_sum, high_sum = kl_sums.double().unbind()
        low_kl, high_kl = low_sum / max(n_low * horizon, 1), high_sum / max(n_high * horizon, 1)
        _adapt(self.base_optimizer, torch.maximum(low_kl, high_kl), threshold)
        if self.adapter_optimizer is not None:
            rate = self.base_optimizer.param_groups[0]["lr"] * config.adapter_speed
            self.adapter_optimizer.param_groups[0]["lr"].copy_(rate)

    def update_observation_statistics(self, storage: RolloutStorage) -> None:
        """Update the normaliser of observations, with the same weight for each fidelity."""
        if self.config.normalize_input:
            low, high = storage.low_observations.flatten(0, 1), storage.high_observations.flatten(0, 1)
            self.policy.normalizer.update(low, high, self.ranks.gather)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's own state (which holds both normalisers) that the next update depends on."""
        return {
            **{name: part.state_dict() for name, part in self.parts().items()},
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self._rate(float(group["lr"]))
        self._generator.set_state(state["generator"].cpu())

    def parts(self) -> dict[str, Any]:
        """What has a state of its own, by its name in a checkpoint."""
        parts = {"base_optimizer": self.base_optimizer, "adapter_optimizer": self.adapter_optimizer}
        return {name: part for name, part in parts.items() if part is not None}

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for optimizer in (self.base_optimizer, self.adapter_optimizer) if optimizer is not None]

    def _rate(self, value: float) -> Tensor:
        """A learning rate that the device can change. CUDA's optimisers read float32; a CPU's take it as a double."""
        return torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32).to(self.device)

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the norm of the gradients and return what it was."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return self.policy.log_std.new_zeros(())
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if self.config.truncate_grads:
            nn.utils.clip_grads_with_norm_(parameters, self.config.grad_norm, norm, foreach=True)
        return norm

    def metrics(self, sums: Tensor, norms: Tensor, storage: RolloutStorage) -> dict[str, Tensor]:
        """What to log of an update: means (2, 4) over its epochs, and norms (2,) of its gradients."""
        policy = self.policy
        log_std = policy.log_std.detach()
        metrics = {
            "policy/entropy": entropy(policy),
            "policy/std": log_std.exp().mean(),
            "grad_norm/base": norms[0],
            "learning_rate/base": self.base_optimizer.param_groups[0]["lr"],
        }
        if self.adapter_optimizer is not None:
            metrics |= {
                "grad_norm/adapter": norms[1],
                "learning_rate/adapter": self.adapter_optimizer.param_groups[0]["lr"],
                "adapter/ratio": policy.adapter_ratio(),
            }
        sizes = {"low": storage.n_low, "high": storage.num_envs - storage.n_low}
        for side, (name, size) in enumerate(sizes.items()):
            if size > 0:
                means = sums[side] / (size * storage.horizon)
                for column, metric in enumerate(SUMS):
                    metrics[f"{metric}/{name}"] = means[column]
        return metrics


def read_back(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """The values of scalars of one device, in one copy. Only here does the host wait for a GPU in an iteration.

    Raises:
        NotFiniteError: a value is not finite. The policy is spoiled then: go on from a checkpoint.
    """
    values = dict(zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True))
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFiniteError(
                f"{name} is {value}: rewards, observations or train.params.config.learning_rate are too large;"
                " the checkpoints that were saved before are whole"
            )
    return values


def entropy(policy: DualActorCritic) -> Tensor:
    """Entropy of the action distribution, nats. It is the same in every state."""
    return policy.log_std.detach().sum() + policy.num_actions * (0.5 + 0.5 * math.log(2.0 * math.pi))


def _adapt(optimizer: torch.optim.Optimizer, kl: Tensor, threshold: float) -> None:
    rate: Tensor = optimizer.param_groups[0]["lr"]
    slower, faster = (rate / 1.5).clamp_min(MIN_LEARNING_RATE), (rate * 1.5).clamp_max(MAX_LEARNING_RATE)
    rate.copy_(torch.where(kl > 2.0 * threshold, slower, torch.where(kl < 0.5 * threshold, faster, rate)))
