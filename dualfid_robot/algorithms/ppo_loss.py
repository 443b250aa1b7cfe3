"""The PPO loss of a mini-batch of both fidelities, with its gradient in closed form.

Written out by hand because the loss is about fifty small operations on (M,) and (M, d) tensors, under autograd twice
that with their backward passes; here each is done once and autograd gets the gradients at the networks' outputs.
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


class LossGradient(NamedTuple):
    """Gradient at the networks' outputs, and per-fidelity sums for the log."""

    mean: Tensor
    """(M, d)."""
    log_std: Tensor
    """(d,)."""
    value: Tensor
    """(M,)."""
    sums: Tensor
    """(2, 4): sums over low and over high rows of policy loss, value loss, approximate KL, clipped samples."""


BOUND = 1.1
"""Mean actions beyond ±1.1 are penalised (rl_games' soft bound for actions in [−1, 1])."""


@torch.no_grad()
def ppo_loss_gradient(
    mean: Tensor,
    log_std: Tensor,
    value: Tensor,
    batch: MiniBatch,
    n_low: int,
    weights: tuple[float, float],
    coefficients: LossCoefficients,
) -> LossGradient:
    """Gradient of L = w_low Σ_low ℓ + w_high Σ_high ℓ, rows weighted by fidelity, where per sample

        ℓ = max(−A r, −A clip(r, 1 − ε, 1 + ε))                               r = π(a|s) / π_old(a|s)
          + critic_coef · ½ max((v − R)², (v_old + clip(v − v_old, ±ε) − R)²)
          − entropy_coef · H[π]
          + bounds_loss_coef · Σ_i (μ_i − clip(μ_i, ±1.1))²

    Where the batch has policy weights c, the surrogate of each row is multiplied by its own, and low rows have no other
    term (``control_variate.py``: they correct the policy's gradient and train nothing else).

    The approximate KL is the low-variance, non-negative estimate (r − 1) − log r (J. Schulman, "Approximating KL
    divergence", 2020).

    Args:
        mean, log_std, value: outputs of the networks, (M, d), (d,), (M,), float32.
        batch: the samples.
        n_low: number of low rows.
        weights: of one low and one high sample.
        coefficients: of the terms.
    """
    d = mean.shape[1]
    inv_std = torch.exp(-log_std)
    z = (batch.actions - mean).mul_(inv_std)
    z_squared = z.square()
    log_prob = z_squared.sum(-1).mul_(-0.5).sub_(log_std.sum() + d * HALF_LOG_2PI)

    log_ratio = log_prob.sub_(batch.log_probs)
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1.0 - coefficients.e_clip, 1.0 + coefficients.e_clip)
    surrogate = batch.advantages * ratio
    clipped_surrogate = batch.advantages * clipped_ratio
    policy_loss = torch.minimum(surrogate, clipped_surrogate).neg_()
    # the minimum passes a gradient where it is the unclipped term (r itself inside the bounds included)
    grad_log_prob = surrogate.masked_fill(surrogate > clipped_surrogate, 0.0).neg_()

    error = value - batch.returns
    if coefficients.clip_value:
        change = value - batch.values
        clipped_change = change.clamp(-coefficients.e_clip, coefficients.e_clip)
        clipped_error = clipped_change + (batch.values - batch.returns)
        squared, clipped_squared = error.square(), clipped_error.square()
        value_loss = torch.maximum(squared, clipped_squared)
        # where the clipped term is the greater, v has no gradient (inside the bounds the two differ by rounding only)
        grad_value = error.masked_fill_((clipped_squared > squared) & (change != clipped_change), 0.0)
    else:
        value_loss = error.square()
        grad_value = error
    grad_value = grad_value.mul_(coefficients.critic_coef)
    value_loss = value_loss.mul_(0.5)

    clipped = (ratio != clipped_ratio).float()
    approx_kl = ratio.sub_(1.0).sub_(log_ratio)
    columns = torch.stack((policy_loss, value_loss, approx_kl, clipped))
    sums = torch.stack((columns[:, :n_low].sum(1), columns[:, n_low:].sum(1)))

    rows = mean.shape[0]
    other_weights = weights
    if batch.policy_weights is not None:
        grad_log_prob.mul_(batch.policy_weights)
        other_weights = (0.0, weights[1])
    for gradient, (low, high) in ((grad_log_prob, weights), (grad_value, other_weights)):
        gradient[:n_low].mul_(low)
        gradient[n_low:].mul_(high)
    # ∂ log π / ∂ log σ = z² − 1,   ∂ log π / ∂ μ = z / σ,   ∂H / ∂ log σ = 1
    total_weight = n_low * other_weights[0] + (rows - n_low) * other_weights[1]
    grad_log_std = torch.mv(z_squared.t(), grad_log_prob).sub_(grad_log_prob.sum())
    grad_log_std.sub_(coefficients.entropy_coef * total_weight)
    grad_mean = z.mul_(inv_std).mul_(grad_log_prob.unsqueeze(-1))
    if coefficients.bounds_loss_coef > 0.0:
        beyond = mean - mean.clamp(-BOUND, BOUND)
        grad_mean[:n_low].add_(beyond[:n_low], alpha=2.0 * coefficients.bounds_loss_coef * other_weights[0])
        grad_mean[n_low:].add_(beyond[n_low:], alpha=2.0 * coefficients.bounds_loss_coef * other_weights[1])
    return LossGradient(grad_mean, grad_log_std, grad_value, sums)
