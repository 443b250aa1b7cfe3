"""A second adapter that has nothing to learn: how far apart two policies drift by the optimiser's noise alone.

φ0 is shaped, initialised and trained like φ, but on as many *low* rows as φ has high ones. There is no gap between
these and the rows that θ learns from, so D(π_θ ‖ π_{θ,φ0}) is what D(π_θ ‖ π_{θ,φ}) would be without a gap between the
simulators: Adam moves a parameter by about its learning rate per step, however little the gradient says.

The rows' actions are π_θ's, where φ's rows have π_{θ,φ}'s own. Taken as they are, they would give φ0 the gradient of
π_θ's improvement, again and again, whatever π_{θ,φ0} has become, and nothing would bring it back. So the surrogate is
weighted by w = π_{θ,φ0}(a|s) / π_θ(a|s) at the iteration's start, with which its gradient is one under π_{θ,φ0}'s own
actions, and the clipped ratio is taken to π_{θ,φ0} at that time (behaviour and proximal policy apart, as in Hilton et
al., arXiv 2110.00641):

    ℓ = max(−w A r, −w A clip(r, 1 ± ε))        r = π_{θ,φ0}(a|s) / π_{θ,φ0,start}(a|s)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dualfid_robot.algorithms.communicator import Communicator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.gradients import part_gradient
from dualfid_robot.algorithms.minibatches import Chunk, make_minibatches, shuffled_indices
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.statistics import standardised
from dualfid_robot.policies.actor_critic import HALF_LOG_2PI, DualActorCritic

MAX_IMPORTANCE = 10.0
"""Bound of w: of a few samples that would count for all."""


class Placebo:
    """Trains φ0 in step with φ: same mini-batches, learning rate, clipping and weight decay. θ gets no gradient.

    Args:
        policy: the policy, with its initial adapter, which φ0 starts as.
        coefficients: of the loss.
        weight_decay: of φ.
        grad_norm: bound of the gradient's norm; infinite for none.
        normalize_advantage: whether φ's advantages are standardised.
        seed: of the choice and the shuffling of rows, the same in every process.
        ranks: the processes that train together.

    Attributes:
        policy: θ and the normalisers themselves, not copies of them, with φ0 in φ's place.
    """

    def __init__(
        self,
        policy: DualActorCritic,
        coefficients: LossCoefficients,
        weight_decay: float,
        grad_norm: float,
        normalize_advantage: bool,
        seed: int,
        ranks: Communicator,
    ) -> None:
        shared: list[object] = [*policy.base_parameters(), policy.normalizer, policy.return_normalizer]
        self.policy = copy.deepcopy(policy, {id(part): part for part in shared})
        self.ranks = ranks
        self._parameters = self.policy.adapter_parameters()
        self._coefficients, self._grad_norm = coefficients, grad_norm
        self._normalize_advantage = normalize_advantage
        device = policy.log_std.device
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=torch.zeros((), device=device), weight_decay=weight_decay, fused=True
        )
        self._generator = torch.Generator(device).manual_seed(seed)
        self._minibatches: list[list[Chunk]] = []

    @torch.no_grad()
    def rescale(self, ratio: Tensor) -> None:
        """Follow the value head after a change of the return statistics, see
        ``DualActorCritic.update_return_statistics``: W + δ0 ← ratio · (W + δ0), where W is already rescaled.

        Args:
            ratio: old deviation of the low fidelity's returns by the new one.
        """
        head = self.policy.critic.output_layer
        for difference in (head.lora_b, head.bias_delta):
            if difference is not None:
                difference.mul_(ratio)

    @torch.no_grad()
    def begin(self, storage: RolloutStorage, num_minibatches: int, chunks_each: int, learning_rate: Tensor) -> None:
        """Prepare an update from a rollout: min(n_low, n_high) of its low environments, drawn anew.

        The old log-probabilities and values are φ0's own, now, so that its ratio starts from 1 as φ's does.

        Args:
            storage: the rollout, with returns.
            num_minibatches, chunks_each: of the update.
            learning_rate: φ's, on the device, which may change it during the update.
        """
        rows = min(storage.n_low, storage.num_envs - storage.n_low)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._minibatches = []
        if rows == 0:
            return
        policy, horizon = self.policy, storage.horizon
        drawn = torch.randperm(storage.n_low, generator=self._generator, device=self._generator.device)[:rows]
        x = policy.normalizer(storage.observations.index_select(1, drawn)).to(policy.hidden_dtype)
        actions, advantages, returns = (
            tensor.index_select(1, drawn) for tensor in (storage.actions, storage.advantages, storage.returns)
        )
        mean, values = policy.evaluate(x.flatten(0, 1), 0)
        z = (actions.flatten(0, 1) - mean) * torch.exp(-policy.log_std)
        log_probs = -0.5 * z.square().sum(-1) - policy.log_std.sum() - policy.num_actions * HALF_LOG_2PI
        log_probs = log_probs.view(horizon, rows)
        importance = (log_probs - storage.log_probs.index_select(1, drawn)).exp().clamp_max(MAX_IMPORTANCE)
        samples = MiniBatch(
            obs=x,
            actions=actions,
            log_probs=log_probs,
            advantages=standardised(advantages, self.ranks.gather) if self._normalize_advantage else advantages,
            returns=policy.return_normalizer.normalize(returns.flatten(), horizon * rows).view(horizon, rows),
            values=values.view(horizon, rows),
            policy_weights=importance,
        )
        pieces = num_minibatches * chunks_each
        indices = shuffled_indices(horizon, rows, range(rows), self._generator).tensor_split(pieces)
        # φ0 takes the high rows' place in both layers and mini-batches
        self._minibatches = make_minibatches(samples, ([indices[0][:0]] * pieces, indices), chunks_each)

    def step(self, index: int) -> None:
        """One gradient step of φ0 on a mini-batch, at the present θ; nothing where there were no rows."""
        if not self._minibatches:
            return
        chunks = self._minibatches[index]
        weight = 1.0 / max(sum(chunk.n_high for chunk in chunks), 1)
        sums = self.policy.log_std.new_zeros(2, 4)
        gradients = part_gradient(self.policy, chunks, 1, weight, self._coefficients, self._parameters, sums)
        self.ranks.average_(gradients)
        for p, gradient in zip(self._parameters, gradients, strict=True):
            p.grad = gradient
        if self._grad_norm < math.inf:
            nn.utils.clip_grad_norm_(self._parameters, self._grad_norm, foreach=True)
        self._optimizer.step()

    def divergence(self, low_obs: Tensor) -> Tensor | None:
        """D(π_θ ‖ π_{θ,φ0}) on states of the low rows, see ``policy_divergence``."""
        return policy_divergence(self.policy, low_obs)

    def state_dict(self) -> dict[str, Any]:
        return {
            "adapter": [p.detach() for p in self._parameters],
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for p, value in zip(self._parameters, state["adapter"], strict=True):
                p.copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())
