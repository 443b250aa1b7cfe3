"""The PPO loss of samples of one fidelity, with its gradient in closed form. With w the weight of a sample it is::

    L = w Σ [ max(−A r, −A clip(r, 1 − ε, 1 + ε))                                    r = π(a|s) / π_old(a|s)
            − entropy_coef · H[π] + bounds_loss_coef · Σ_i (μ_i − clip(μ_i, ±1.1))² ]          (policy)
      + w Σ critic_coef · ½ max((v − R)², (v_old + clip(v − v_old, ±ε) − R)²)                  (value)

It is written out by hand. Autograd would need twice as many small operations on (M,) and (M, d) tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dualfid_robot.policies.actor_critic import HALF_LOG_2PI


class MiniBatch(NamedTuple):
    """M samples laid out [low | high]; values, returns in the critic's units, advantages normalised."""

    obs: Tensor
    """Normalised observations (M, num_obs)."""
    actions: Tensor
    log_probs: Tensor
    """Log-probabilities (M,) of the actions when they were taken."""
    advantages: Tensor
    returns: Tensor
    values: Tensor
    """Predictions (M,) when the actions were taken."""
    policy_weights: Tensor | None = None
    """Factors (M,) of either sign on the surrogate; where given, low rows have no other term. None: all 1."""

    def rows(self, first: int, end: int) -> MiniBatch:
        """A view of rows [first, end)."""
        return MiniBatch(*(None if x is None else x[first:end] for x in self))  # type: ignore[arg-type]


class LossCoefficients(NamedTuple):
    """Names as in rl_games."""

    e_clip: float
    critic_coef: float
    clip_value: bool
    entropy_coef: float
    bounds_loss_coef: float


class PolicyLossGradient(NamedTuple):
    """Gradient at the actor's output and at log σ, and sums for the log."""

    mean: Tensor
    """(M, d)."""
    log_std: Tensor
    """(d,)."""
    sums: Tensor
    """(3,): sums over the samples of policy loss, approximate KL, clipped samples."""


class ValueLossGradient(NamedTuple):
    """Gradient at the critic's output, and a sum for the log."""

    value: Tensor
    """(M,)."""
    sum: Tensor
    """(): sum of the value loss over the samples, without its coefficient."""


BOUND = 1.1
"""Mean actions beyond ±1.1 are penalised (rl_games' soft bound for actions in [−1, 1])."""


def policy_loss_gradient(
    mean: Tensor,
    log_std: Tensor,
    batch: MiniBatch,
    weight: float,
    coefficients: LossCoefficients,
    surrogate_only: bool = False,
) -> PolicyLossGradient:
    """The policy's part of the loss.

    Where the batch has policy weights c, the surrogate of each sample is multiplied by its own.

    The approximate KL is the low-variance, non-negative estimate (r − 1) − log r (J. Schulman, "Approximating KL
    divergence", 2020).

    Args:
        mean, log_std: output of the actor (M, d), and (d,).
        batch: the samples.
        weight: of a sample.
        coefficients: of the terms.
        surrogate_only: leave out the entropy and the bounds.
    """
    rows, d = mean.shape
    inv_std = torch.exp(-log_std)
    z = (batch.actions - mean).mul_(inv_std)
    z_squared = z.square()
    log_prob = z_squared.sum(-1).mul_(-0.5).sub_(log_std.sum() + d * HALF_LOG_2PI)

    log_ratio = log_prob.sub_(batch.log_probs)
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1.0 - coefficients.e_clip, 1.0 + coefficients.e_clip)
    surrogate = batch.advantages * ratio
    clipped_surrogate = batch.advantages * clipped_ratio
    pessimistic = torch.minimum(surrogate, clipped_surrogate)
    clipped = ratio != clipped_ratio
    approx_kl = ratio.sub_(1.0).sub_(log_ratio)
    sums = torch.stack((-pessimistic.sum(), approx_kl.sum(), clipped.sum()))

    # the minimum passes a gradient where it is the unclipped term (r itself inside the bounds included)
    grad_log_prob = surrogate.masked_fill_(surrogate > clipped_surrogate, 0.0).mul_(-weight)
    if batch.policy_weights is not None:
        grad_log_prob.mul_(batch.policy_weights)
    # ∂ log π / ∂ log σ = z² − 1,   ∂ log π / ∂ μ = z / σ,   ∂H / ∂ log σ = 1
    grad_log_std = torch.mv(z_squared.t(), grad_log_prob).sub_(grad_log_prob.sum())
    grad_mean = z.mul_(inv_std).mul_(grad_log_prob.unsqueeze(-1))
    if not surrogate_only:
        if coefficients.entropy_coef > 0.0:
            grad_log_std.sub_(coefficients.entropy_coef * weight * rows)
        if coefficients.bounds_loss_coef > 0.0:
            beyond = mean - mean.clamp(-BOUND, BOUND)
            grad_mean.add_(beyond, alpha=2.0 * coefficients.bounds_loss_coef * weight)
    return PolicyLossGradient(grad_mean, grad_log_std, sums)


def value_loss_gradient(
    value: Tensor, batch: MiniBatch, weight: float, coefficients: LossCoefficients
) -> ValueLossGradient:
    """The value's part of the loss.

    Args:
        value: output of the critic, (M,).
        batch: the samples.
        weight: of a sample.
        coefficients: of the terms.
    """
    error = value - batch.returns
    squared = error.square()
    if coefficients.clip_value:
        change = value - batch.values
        clipped_change = change.clamp(-coefficients.e_clip, coefficients.e_clip)
        clipped_squared = (clipped_change + (batch.values - batch.returns)).square_()
        # where the clipped term is the greater, v has no gradient (inside the bounds the two differ by rounding only)
        error.masked_fill_((clipped_squared > squared).logical_and_(change != clipped_change), 0.0)
        squared = torch.maximum(squared, clipped_squared)
    return ValueLossGradient(error.mul_(coefficients.critic_coef * weight), squared.sum().mul_(0.5))
