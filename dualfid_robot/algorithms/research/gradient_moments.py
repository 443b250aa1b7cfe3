"""Bias between the two fidelities' policy gradients, and their variances, from gradients of groups of environments.

The gradient is θ's, of the actor and log σ: that of the policy loss at the rollout's own policy,

    g = −mean_t Â_t ∇_θ log π(a_t | s_t)

with π_θ on low rows and π_{θ,φ} on high ones, Â as in the update. One environment's rollout is one sample of it: steps
within it are correlated. With the means of G groups of m environments each, n = G m, ĝ their mean,

    σ² = m Σ_k ‖ĝ_k − ĝ‖² / (G − 1)                    trace of the covariance of one environment's gradient
    b² = ‖ĝ_l − ĝ_h‖² − σ_l² / n_l − σ_h² / n_h         ‖E g_l − E g_h‖²
    ‖G_h‖² = ‖ĝ_h‖² − σ_h² / n_h                        ‖E g_h‖²

all unbiased for independent environments, and therefore not bounded by 0 (the subtraction of the noise's share follows
McCandlish et al., arXiv 1812.06162, appendix A).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic

GROUPS = 8
MAX_ENVIRONMENTS = 256
"""At most so many environments of a fidelity are measured on; a measurement of noise needs no more, and costs less."""
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": functional.elu,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": nn.Identity(),
}


class GradientMoments(NamedTuple):
    """Scalars; σ² of one sample."""

    bias_squared: Tensor
    variance_low: Tensor
    variance_high: Tensor
    gradient_squared: Tensor


def gradient_moments(low: Tensor, high: Tensor, group_low: int, group_high: int) -> GradientMoments:
    """b², σ_l², σ_h² and ‖G_h‖² from means of groups of samples.

    Args:
        low, high: means of G_l and G_h ≥ 2 groups, (G, P) each.
        group_low, group_high: samples of each of these groups.
    """
    mean_low, mean_high = low.mean(0), high.mean(0)
    error_low, error_high = _squared_error(low, mean_low), _squared_error(high, mean_high)
    return GradientMoments(
        bias_squared=(mean_low - mean_high).square().sum() - error_low - error_high,
        variance_low=error_low * (low.shape[0] * group_low),
        variance_high=error_high * (high.shape[0] * group_high),
        gradient_squared=mean_high.square().sum() - error_high,
    )


def _squared_error(groups: Tensor, mean: Tensor) -> Tensor:
    """E ‖ĝ − E ĝ‖² = σ² / n of the mean of all groups."""
    count = groups.shape[0]
    return (groups - mean).square().sum() / (count * (count - 1))


def policy_gradient_moments(
    policy: DualActorCritic, storage: RolloutStorage, advantages: Tensor
) -> GradientMoments | None:
    """The moments of θ's policy gradient in a rollout, or None unless there are two environments of each fidelity.

    Args:
        policy: both policies, as they acted.
        storage: the rollout.
        advantages: (T, N), as the update takes them.
    """
    n_low, num_envs = storage.n_low, storage.num_envs
    if min(n_low, num_envs - n_low) < 2:
        return None
    low, group_low = _group_gradients(policy, storage, advantages, range(n_low), high=False)
    high, group_high = _group_gradients(policy, storage, advantages, range(n_low, num_envs), high=True)
    return gradient_moments(low, high, group_low, group_high)


def _group_gradients(
    policy: DualActorCritic, storage: RolloutStorage, advantages: Tensor, rows: range, high: bool
) -> tuple[Tensor, int]:
    """θ's policy gradient in groups of a fidelity's environments, (G, P), and the number of environments of a group.

    The high policy's gradient at W is that at its own weight W' = W + s B A, so both are those of a plain network.
    """
    groups = min(GROUPS, len(rows))
    size = min(len(rows), MAX_ENVIRONMENTS) // groups
    chosen = torch.arange(groups * size, device=advantages.device) * len(rows) // (groups * size) + rows.start

    def grouped(x: Tensor) -> Tensor:
        """(T, N, ·) -> (G, m T, ·); every G-th of the chosen environments, so that a group is spread over all."""
        return x[:, chosen].unflatten(1, (size, groups)).movedim(2, 0).flatten(1, 2)

    actor = policy.actor
    weights = [
        (layer.weight_high, layer.bias_high) if high else (layer.weight_low, layer.bias_low)
        for layer in actor.merged(torch.float32)
    ]
    gradients = group_gradients(
        weights,
        [layer.activation for layer in actor.dual_layers()],
        policy.log_std.detach(),
        policy.normalizer(grouped(storage.observations))[..., : policy.num_actor_obs],
        grouped(storage.actions),
        grouped(advantages),
    )
    return gradients, size


@torch.enable_grad()
def group_gradients(
    weights: Sequence[tuple[Tensor, Tensor]],
    activations: Sequence[str],
    log_std: Tensor,
    obs: Tensor,
    actions: Tensor,
    advantages: Tensor,
) -> Tensor:
    """Gradients of −mean(Â log π(a|s)) over each group's samples, in one pass for all groups.

    Args:
        weights: weight (out, in) and bias (out,) of every layer.
        activations: of every layer.
        log_std: (d,).
        obs: what the network gets, (G, M, num_obs).
        actions, advantages: (G, M, d) and (G, M).

    Returns:
        (G, P), P all elements of weights, biases and log σ.
    """
    groups, samples, _ = actions.shape
    leaves = [
        parameter.expand(groups, *parameter.shape).clone().requires_grad_()
        for parameter in (*(part for layer in weights for part in layer), log_std)
    ]
    x = obs
    for i, activation in enumerate(activations):
        weight, bias = leaves[2 * i], leaves[2 * i + 1]
        x = _ACTIVATIONS[activation](torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)))
    log_std = leaves[-1].unsqueeze(1)
    z = (actions - x) * torch.exp(-log_std)
    log_prob = -0.5 * z.square().sum(-1) - log_std.sum(-1)
    loss = -(advantages * log_prob).sum() / samples
    return torch.cat([gradient.flatten(1) for gradient in torch.autograd.grad(loss, leaves)], dim=1)
