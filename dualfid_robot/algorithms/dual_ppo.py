"""Proximal policy optimisation of a base and an adapted policy from two fidelities' rollouts.

    θ ← θ − η_θ ∇_θ (L_low + L_high),    φ ← φ − η_φ ∇_φ L_high

L_low is the PPO loss of π_θ on the low rows, L_high that of π_{θ,φ} on the high rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.gradients import accumulate_joint_gradient, part_gradient
from dualfid_robot.algorithms.minibatches import Chunk, chunks_per_minibatch, make_minibatches, shuffled_indices
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch
from dualfid_robot.algorithms.research.bias_variance import precision_weight
from dualfid_robot.algorithms.research.control_variate import ControlVariate, paired_order
from dualfid_robot.algorithms.research.gradient_gate import GradientGate
from dualfid_robot.algorithms.research.placebo import Placebo
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import GRADIENT_MOMENTS, NOTHING_MEASURED, Signals
from dualfid_robot.algorithms.statistics import explained_variance, standardised_per_fidelity
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import DualActorCritic

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-6, 1e-2
MAX_PRECISION_WEIGHT = 0.95
"""Of the low gradient: where no bias and no low variance can be seen, the odds would be infinite."""


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
        metrics = read_back(algorithm.update(storage, progress, signals))

    Between the rollout and ``read_back`` the host never waits for a GPU.

    Args:
        policy: both policies; moved to ``device``, and given the type of its hidden layers' products.
        config: settings.
        device: of the policy and of the storages.
        seed: of the shuffling of samples, the same in every process.
        ranks: the processes that train this policy together; all give it the same initial weights.
        placebo: whether a placebo adapter is trained too, see ``Placebo``.

    Raises:
        ConfigError: settings that the policy's kind of adapter excludes.
    """

    def __init__(
        self,
        policy: DualActorCritic,
        config: PPOConfig,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Communicator = ALONE,
        placebo: bool = False,
    ) -> None:
        _check_adapter(policy, config, placebo)
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
        adapter_rate, decay = self._rate(config.adapter_learning_rate), config.adapter_weight_decay
        self.adapter_optimizer = (
            torch.optim.AdamW(self._adapter, lr=adapter_rate, weight_decay=decay, fused=True) if self._adapter else None
        )
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._coefficients = LossCoefficients(
            config.e_clip, config.critic_coef, config.clip_value, config.entropy_coef, config.bounds_loss_coef
        )
        self.gate: GradientGate | None = None
        if config.gradient_gate != "none":
            self.gate = GradientGate(policy.blocks(self._base), config.gradient_gate, self.device)
        self.control_variate = ControlVariate(ranks, self.device) if config.control_variate else None
        self.placebo: Placebo | None = None
        if placebo:
            grad_norm = config.grad_norm if config.truncate_grads else math.inf
            self.placebo = Placebo(
                policy, self._coefficients, decay, grad_norm, config.normalize_advantage, seed, ranks
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

    @property
    def requires(self) -> frozenset[str]:
        """Names of the ``Signals`` that an update needs."""
        return GRADIENT_MOMENTS if self.config.loss_weighting == "precision" else frozenset()

    def update(
        self, storage: RolloutStorage, progress: float, signals: Signals = NOTHING_MEASURED
    ) -> dict[str, Tensor]:
        """Train on one rollout whose returns are computed, then update the observation statistics.

        Args:
            storage: the rollout.
            progress: of the run, 0 at its beginning and 1 at its end, for ``lr_schedule`` "annealed".
            signals: what is known from the iterations before.

        Returns:
            Metrics by name (docs/algorithm.md lists them), for ``read_back``; those of a fidelity without samples are
            left out.
        """
        config, policy, gather = self.config, self.policy, self.ranks.gather
        n_low, n_high = storage.n_low, storage.num_envs - storage.n_low
        metrics = {
            f"explained_variance/{side}": explained_variance(storage.values[:, rows], storage.returns[:, rows], gather)
            for side, rows in (("low", slice(0, n_low)), ("high", slice(n_low, storage.num_envs)))
            if rows.start < rows.stop
        }
        placebo_divergence = None if self.placebo is None else self.placebo.divergence(storage.low_observations)
        if placebo_divergence is not None:
            self.ranks.average_([placebo_divergence])
            metrics["divergence/placebo"] = placebo_divergence
        if config.normalize_value:
            low_returns, high_returns = storage.returns[:, :n_low].flatten(), storage.returns[:, n_low:].flatten()
            if self.control_variate is not None:  # the critic learns from high rows alone
                low_returns = low_returns[:0]
            ratio = policy.update_return_statistics(low_returns, high_returns, gather)
            if self.placebo is not None:
                self.placebo.rescale(ratio[0])

        gate = self.gate if n_low > 0 and n_high > 0 else None
        minibatches = self._shuffled_minibatches(storage, halves=gate is not None)
        if self.placebo is not None:
            assert self.adapter_optimizer is not None
            chunks_each = chunks_per_minibatch(config.minibatch_size, self.device)
            rate = self.adapter_optimizer.param_groups[0]["lr"]
            self.placebo.begin(storage, len(minibatches), chunks_each, rate)
        weights = self._loss_weights(n_low, n_high, signals)
        sums = storage.returns.new_zeros(config.mini_epochs, 2, 4)
        norms = storage.returns.new_zeros(2)
        for epoch in range(config.mini_epochs):
            for index, chunks in enumerate(minibatches):
                self._set_gradients(chunks, weights, gate, sums[epoch])
                if self.placebo is not None:
                    self.placebo.step(index)
                norms[0] += self._clip(self._base)
                norms[1] += self._clip(self._adapter)
                self.base_optimizer.step()
                if self.adapter_optimizer is not None:
                    self.adapter_optimizer.step()
            if config.lr_schedule != "constant":
                remaining = 1.0 - progress if config.lr_schedule == "annealed" else 1.0
                self._adapt_learning_rates(sums[epoch, :, 2], n_low, n_high, config.kl_threshold * remaining)

        if config.normalize_input:
            low_obs, high_obs = storage.low_observations.flatten(0, 1), storage.high_observations.flatten(0, 1)
            policy.normalizer.update(low_obs, high_obs, gather)
        if gate is not None:
            metrics |= gate.take_metrics()
        if self.control_variate is not None:
            metrics |= self.control_variate.metrics()
        if config.loss_weighting == "precision":
            metrics["loss_weight/low"] = storage.returns.new_full((), weights[0])
        return metrics | self._metrics(sums.mean(0), norms / (config.mini_epochs * len(minibatches)), storage)

    def _loss_weights(self, n_low: int, n_high: int, signals: Signals) -> tuple[float, float]:
        """Weights of L_low and L_high in θ's gradient."""
        weighting = self.config.loss_weighting
        if weighting == "share":
            share = n_low / (n_low + n_high)
            return share, 1.0 - share
        if weighting == "precision" and n_low > 0 and n_high > 0:
            weight = precision_weight(
                signals.bias_squared,
                signals.variance_low,
                signals.variance_high,
                n_low * self.ranks.size,
                n_high * self.ranks.size,
                signals.gradient_squared,
                self.config.precision_cap,
            )
            if not math.isnan(weight):  # something has been measured
                weight = min(weight, MAX_PRECISION_WEIGHT)
                return weight / (1.0 - weight), 1.0
        return 1.0, 1.0

    def _set_gradients(
        self, chunks: Sequence[Chunk], weights: tuple[float, float], gate: GradientGate | None, sums: Tensor
    ) -> None:
        """Give the parameters their gradients of a mini-batch, over all processes; add to the sums (2, 4)."""
        self.base_optimizer.zero_grad()
        if self.adapter_optimizer is not None:
            self.adapter_optimizer.zero_grad()
        if gate is not None:
            self._set_gated_gradient(chunks, weights, gate, sums)
            return
        if self.config.base_learns_from == "low":
            self._set_parted_gradient(chunks, weights, sums)
        else:
            accumulate_joint_gradient(self.policy, chunks, weights, self._coefficients, sums)
        # a mean of what is the same everywhere changes nothing: earlier mini-batches' sums stay as they are
        self.ranks.average_([p.grad for p in self._parameters if p.grad is not None] + [sums])

    def _set_parted_gradient(self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor) -> None:
        """w_l ∇_θ L_low and w_h ∇_φ L_high; none where a fidelity has no rows."""
        for group, parameters in enumerate((self._base, self._adapter)):
            samples = sum(chunk.sizes[group] for chunk in chunks)
            if samples > 0:
                weight = weights[group] / samples
                gradients = part_gradient(self.policy, chunks, group, weight, self._coefficients, parameters, sums)
                for p, gradient in zip(parameters, gradients, strict=True):
                    p.grad = gradient

    def _set_gated_gradient(
        self, chunks: Sequence[Chunk], weights: tuple[float, float], gate: GradientGate, sums: Tensor
    ) -> None:
        """w_h g_h + w_l P(g_l) for θ, w_h ∇_φ L_high for φ: each fidelity's halves in passes of their own."""
        sizes = [sum(chunk.sizes[group] for chunk in chunks) for group in range(4)]
        per_sample = (1.0 / max(sizes[0] + sizes[1], 1), 1.0 / max(sizes[2] + sizes[3], 1))
        parts = [
            part_gradient(
                self.policy,
                chunks,
                group,
                per_sample[group // 2],
                self._coefficients,
                self._base if group < 2 else self._parameters,
                sums,
            )
            for group in range(4)
        ]
        self.ranks.average_([gradient for part in parts for gradient in part] + [sums])
        count = len(self._base)
        low, high = parts[:2], [part[:count] for part in parts[2:]]
        factors = gate(low, high, sizes)
        of_low, of_high = weights[0] * factors.low, weights[1] - weights[0] * factors.along_high
        for i, (p, block) in enumerate(zip(self._base, gate.blocks, strict=True)):
            p.grad = of_high[block] * (high[0][i] + high[1][i]) + of_low[block] * (low[0][i] + low[1][i])
        for i, p in enumerate(self._adapter):
            p.grad = weights[1] * (parts[2][count + i] + parts[3][count + i])

    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy's own state (which holds both normalisers) that the next update depends on."""
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`. A gate, placebo or control variate that it does not have, since none was asked
        for then, starts anew."""
        for name, part in self._parts().items():
            if name in state:
                part.load_state_dict(state[name])
        for optimizer in self._optimizers():
            for group in optimizer.param_groups:
                group["lr"] = self._rate(float(group["lr"]))
        self._generator.set_state(state["generator"].cpu())

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own, by its name in a checkpoint."""
        parts = {
            "base_optimizer": self.base_optimizer,
            "adapter_optimizer": self.adapter_optimizer,
            "gradient_gate": self.gate,
            "placebo": self.placebo,
            "control_variate": self.control_variate,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [optimizer for optimizer in (self.base_optimizer, self.adapter_optimizer) if optimizer is not None]

    def _rate(self, value: float) -> Tensor:
        """A learning rate that the device can change. CUDA's optimisers read float32; a CPU's take it as a double."""
        return torch.tensor(value, dtype=torch.float64 if self.device.type == "cpu" else torch.float32).to(self.device)

    def _shuffled_minibatches(self, storage: RolloutStorage, halves: bool = False) -> list[list[Chunk]]:
        """The samples as K mini-batches of [low | high] chunks, shuffled once.

        Each of the K · C chunks takes an equal share (to one sample) of each fidelity's samples, so K does not depend
        on the allocation. With `halves`, of every second environment's and of the others' in turn, apart.
        """
        config, policy = self.config, self.policy
        horizon, num_envs, n_low = storage.horizon, storage.num_envs, storage.n_low
        chunks_each = chunks_per_minibatch(config.minibatch_size, self.device)
        pieces = config.num_minibatches(num_envs) * chunks_each
        rows = [range(0, n_low), range(n_low, num_envs)]
        if halves:
            rows = [half for side in rows for half in (side[::2], side[1::2])]
        groups: list[Sequence[Tensor]]
        if self.control_variate is None:
            groups = [shuffled_indices(horizon, num_envs, part, self._generator).tensor_split(pieces) for part in rows]
        else:
            groups = list(paired_order(horizon, num_envs, n_low, pieces, self._generator))

        advantages = storage.advantages
        if config.normalize_advantage:
            advantages = standardised_per_fidelity(advantages, n_low, self.ranks.gather)
        normalizer = policy.return_normalizer
        samples = MiniBatch(
            obs=policy.normalizer(storage.observations).to(policy.hidden_dtype),
            actions=storage.actions,
            log_probs=storage.log_probs,
            advantages=advantages,
            returns=normalizer.normalize(storage.returns.t(), n_low).t(),
            values=normalizer.normalize(storage.values.t(), n_low).t(),
        )
        if self.control_variate is not None:
            weights = self.control_variate.weights(storage, advantages, _entropy(policy))
            samples = samples._replace(policy_weights=weights)
        return make_minibatches(samples, groups, chunks_each)

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
        if n_high > 0 and self.adapter_optimizer is not None:
            _adapt(self.adapter_optimizer, high_kl, threshold)

    def _metrics(self, sums: Tensor, norms: Tensor, storage: RolloutStorage) -> dict[str, Tensor]:
        policy = self.policy
        log_std = policy.log_std.detach()
        metrics = {
            "policy/entropy": _entropy(policy),
            "policy/std": log_std.exp().mean(),
            "grad_norm/base": norms[0],
            "learning_rate/base": self.base_optimizer.param_groups[0]["lr"],
        }
        if self.adapter_optimizer is not None:
            metrics |= {
                "grad_norm/adapter": norms[1],
                "learning_rate/adapter": self.adapter_optimizer.param_groups[0]["lr"],
                "adapter/actor_ratio": policy.adapter_ratio("actor"),
                "adapter/critic_ratio": policy.adapter_ratio("critic"),
            }
        sizes = {"low": storage.n_low, "high": storage.num_envs - storage.n_low}
        for side, (name, size) in enumerate(sizes.items()):
            if size > 0:
                means = sums[side] / (size * storage.horizon)
                for column, metric in enumerate(("policy_loss", "value_loss", "approx_kl", "clip_fraction")):
                    metrics[f"{metric}/{name}"] = means[column]
        return metrics


def _check_adapter(policy: DualActorCritic, config: PPOConfig, placebo: bool) -> None:
    """Raise ConfigError for settings that need another kind of adapter than the policy has."""
    kind = policy.adapter
    if config.base_learns_from == "low" and kind != "lora":
        raise ConfigError(
            f"train.params.config.base_learns_from=low: needs train.params.network.adapter.kind=lora, not {kind}, for "
            "what the base does not learn"
        )
    if placebo and kind == "none":
        raise ConfigError(
            "train.params.network.adapter.kind=none: the rule asks for a placebo adapter; allowed are lora and bit"
        )


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


def _entropy(policy: DualActorCritic) -> Tensor:
    """Of the action distribution, nats: the same in every state."""
    return policy.log_std.detach().sum() + policy.num_actions * (0.5 + 0.5 * math.log(2.0 * math.pi))


def _adapt(optimizer: torch.optim.Optimizer, kl: Tensor, threshold: float) -> None:
    rate: Tensor = optimizer.param_groups[0]["lr"]
    slower, faster = (rate / 1.5).clamp_min(MIN_LEARNING_RATE), (rate * 1.5).clamp_max(MAX_LEARNING_RATE)
    rate.copy_(torch.where(kl > 2.0 * threshold, slower, torch.where(kl < 0.5 * threshold, faster, rate)))
