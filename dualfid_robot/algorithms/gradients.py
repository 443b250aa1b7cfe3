"""Gradients of the PPO loss with respect to the parameters: of a whole mini-batch at once, or of one part of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualfid_robot.algorithms.minibatches import Chunk
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, LossGradient, ppo_loss_gradient
from dualfid_robot.policies.actor_critic import DualActorCritic


def accumulate_joint_gradient(
    policy: DualActorCritic,
    chunks: Sequence[Chunk],
    weights: tuple[float, float],
    coefficients: LossCoefficients,
    sums: Tensor,
) -> None:
    """Add the gradient of w_low L_low + w_high L_high to the parameters' `grad`, both fidelities in one pass; and what
    ``LossGradient.sums`` has to `sums` (2, 4)."""
    low_samples, high_samples = sum(chunk.n_low for chunk in chunks), sum(chunk.n_high for chunk in chunks)
    row_weights = (weights[0] / max(low_samples, 1), weights[1] / max(high_samples, 1))
    for chunk in chunks:
        mean, value = policy.evaluate(chunk.batch.obs, chunk.n_low)
        gradient = ppo_loss_gradient(mean, policy.log_std, value, chunk.batch, chunk.n_low, row_weights, coefficients)
        torch.autograd.backward((mean, value), (gradient.mean, gradient.value))
        accumulated = policy.log_std.grad
        policy.log_std.grad = gradient.log_std if accumulated is None else accumulated + gradient.log_std
        sums += gradient.sums


def part_gradient(
    policy: DualActorCritic,
    chunks: Sequence[Chunk],
    group: int,
    weight: float,
    coefficients: LossCoefficients,
    parameters: Sequence[nn.Parameter],
    sums: Tensor,
) -> list[Tensor]:
    """The gradient of `weight` times the summed loss of one group of a mini-batch's rows. No `grad` is touched.

    Args:
        policy: both policies.
        chunks: the mini-batch.
        group: of ``Chunk.sizes``: in the first half of them the rows are low ones, in the second high ones.
        weight: of a sample.
        coefficients: of the loss.
        parameters: with respect to which; zero where the loss does not depend on one.
        sums: (2, 4), to which ``LossGradient.sums`` is added.

    Returns:
        A gradient per parameter.
    """
    total: list[Tensor] | None = None
    for chunk in chunks:
        rows = chunk.sizes[group]
        if rows == 0:
            continue
        first = sum(chunk.sizes[:group])
        batch = chunk.batch.rows(first, first + rows)
        n_low = rows if 2 * group < len(chunk.sizes) else 0
        mean, value = policy.evaluate(batch.obs, n_low)
        gradient = ppo_loss_gradient(mean, policy.log_std, value, batch, n_low, (weight, weight), coefficients)
        part = _pull_back(policy, (mean, value), gradient, parameters)
        total = part if total is None else list(torch._foreach_add(total, part))
        sums += gradient.sums
    return [torch.zeros_like(p) for p in parameters] if total is None else total


def _pull_back(
    policy: DualActorCritic,
    outputs: tuple[Tensor, Tensor],
    gradient: LossGradient,
    parameters: Sequence[nn.Parameter],
) -> list[Tensor]:
    """The gradient at the parameters from the one at the outputs."""
    parts = torch.autograd.grad(outputs, parameters, (gradient.mean, gradient.value), allow_unused=True)
    return [
        gradient.log_std if p is policy.log_std else torch.zeros_like(p) if part is None else part
        for p, part in zip(parameters, parts, strict=True)
    ]
