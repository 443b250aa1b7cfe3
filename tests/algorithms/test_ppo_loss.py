"""The hand-written gradient against autograd on the loss as papers write it, and against hand-computed numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from dualfid_robot.algorithms.ppo_loss import (
    LossCoefficients,
    MiniBatch,
    policy_loss_gradient,
    value_loss_gradient,
)


def reference_terms(
    mean: Tensor, log_std: Tensor, value: Tensor, batch: MiniBatch, c: LossCoefficients
) -> tuple[Tensor, Tensor, Tensor]:
    """Per sample: whole loss, policy loss, half the squared value error."""
    distribution = Normal(mean, log_std.exp().expand_as(mean))
    ratio = torch.exp(distribution.log_prob(batch.actions).sum(-1) - batch.log_probs)
    clipped = torch.clamp(ratio, 1 - c.e_clip, 1 + c.e_clip)
    policy = torch.max(-batch.advantages * ratio, -batch.advantages * clipped)
    error = (value - batch.returns) ** 2
    if c.clip_value:
        limited = batch.values + torch.clamp(value - batch.values, -c.e_clip, c.e_clip)
        error = torch.max(error, (limited - batch.returns) ** 2)
    entropy = distribution.entropy().sum(-1)
    bounds = (torch.clamp(mean.abs() - 1.1, min=0.0) ** 2).sum(-1)
    loss = policy + 0.5 * c.critic_coef * error - c.entropy_coef * entropy + c.bounds_loss_coef * bounds
    return loss, policy, 0.5 * error


def random_batch(rows: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, MiniBatch]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mean, log_std, value = 1.5 * normal(rows, d), 0.3 * normal(d), normal(rows)
    old_mean = mean + 0.1 * normal(rows, d)
    actions = old_mean + log_std.exp() * normal(rows, d)
    log_probs = Normal(old_mean, log_std.exp()).log_prob(actions).sum(-1)
    batch = MiniBatch(normal(rows, 2), actions, log_probs, normal(rows), normal(rows), value + 0.2 * normal(rows))
    return mean.requires_grad_(), log_std.requires_grad_(), value.requires_grad_(), batch


@pytest.mark.parametrize("rows", [1, 500])
@pytest.mark.parametrize("clip_value", [True, False])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.01])
@pytest.mark.parametrize("bounds_loss_coef", [0.0, 0.1])
def test_gradient_against_autograd(rows: int, clip_value: bool, entropy_coef: float, bounds_loss_coef: float) -> None:
    mean, log_std, value, batch = random_batch(rows, 6, torch.Generator().manual_seed(rows))
    c = LossCoefficients(0.2, 2.0, clip_value, entropy_coef, bounds_loss_coef)
    weight = 0.7 / rows
    per_sample, policy_loss, value_loss = reference_terms(mean, log_std, value, batch, c)
    expected = torch.autograd.grad(weight * per_sample.sum(), (mean, log_std, value))
    policy, critic = policy_loss_gradient(mean, log_std, batch, weight, c), value_loss_gradient(value, batch, weight, c)
    for ours, wanted in zip((policy.mean, policy.log_std, critic.value), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)
    ratio = torch.exp(Normal(mean, log_std.exp()).log_prob(batch.actions).sum(-1) - batch.log_probs)
    columns = (policy_loss, ratio - 1 - ratio.log(), ((ratio - 1).abs() > 0.2).double(), value_loss)
    for ours, column in zip((*policy.sums, critic.sum), columns, strict=True):
        torch.testing.assert_close(ours, column.sum(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("surrogate_only", [True, False])
def test_policy_weights_against_autograd(surrogate_only: bool) -> None:
    """Weights of either sign on each sample's surrogate, with the other terms or without."""
    generator = torch.Generator().manual_seed(3)
    mean, log_std, value, batch = random_batch(500, 6, generator)
    batch = batch._replace(policy_weights=torch.randn(500, generator=generator, dtype=torch.float64))
    c = LossCoefficients(0.2, 0.0, True, 0.01, 0.1)
    per_sample, policy_loss, _ = reference_terms(mean, log_std, value, batch, c)
    others = 0.0 if surrogate_only else per_sample - policy_loss
    loss = 0.3 * (batch.policy_weights * policy_loss + others).sum()  # type: ignore[operator]
    expected = torch.autograd.grad(loss, (mean, log_std))
    got = policy_loss_gradient(mean, log_std, batch, 0.3, c, surrogate_only)
    for ours, wanted in zip((got.mean, got.log_std), expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


def one_sample(log_ratio: float, advantage: float, value: float, old_value: float, target: float) -> list[float]:
    """Gradients and sums of one sample with d = 1, μ = 0.5, σ = 2, a = 2.5 (so z = 1)."""
    log_prob = -0.5 - math.log(2.0) - 0.5 * math.log(2.0 * math.pi)
    batch = MiniBatch(
        torch.zeros(1, 1),
        torch.tensor([[2.5]]),
        torch.tensor([log_prob - log_ratio]),
        torch.tensor([advantage]),
        torch.tensor([target]),
        torch.tensor([old_value]),
    )
    c = LossCoefficients(0.2, 2.0, True, 0.0, 0.0)
    mean, log_std = torch.tensor([[0.5]]), torch.tensor([math.log(2.0)])
    policy = policy_loss_gradient(mean, log_std, batch, 1.0, c)
    critic = value_loss_gradient(torch.tensor([value]), batch, 1.0, c)
    policy_loss, approx_kl, clipped = policy.sums.tolist()
    gradients = [policy.mean.item(), policy.log_std.item(), critic.value.item()]
    return [*gradients, policy_loss, critic.sum.item(), approx_kl, clipped]


def test_by_hand_inside_the_bounds() -> None:
    """r = 1.1, A = 2: loss −2.2; ∂/∂μ = −A r z/σ = −1.1; ∂/∂log σ = −A r (z² − 1) = 0; v − R = 0.1, coefficient 2."""
    got = one_sample(math.log(1.1), 2.0, value=1.1, old_value=1.0, target=1.0)
    assert got == pytest.approx([-1.1, 0.0, 0.2, -2.2, 0.005, 0.1 - math.log(1.1), 0.0], abs=1e-6)


def test_by_hand_clipped() -> None:
    """r = 1.5, A = 2: loss −2·1.2, no gradient. v = 2, old 1, R = 3: clipped 1.2, the greater error: no gradient."""
    got = one_sample(math.log(1.5), 2.0, value=2.0, old_value=1.0, target=3.0)
    assert got == pytest.approx([0.0, 0.0, 0.0, -2.4, 1.62, 0.5 - math.log(1.5), 1.0], abs=1e-6)


def test_by_hand_beyond_the_bounds_on_the_bad_side() -> None:
    """r = 1.5, A = −2: the unclipped term 3 is the greater loss, so it has a gradient: −A r z/σ = 1.5."""
    got = one_sample(math.log(1.5), -2.0, value=2.0, old_value=1.0, target=1.0)
    assert got[:1] == pytest.approx([1.5], abs=1e-6)
    assert got[2] == pytest.approx(2.0)  # (2 − 1)² > (1.2 − 1)²: the unclipped value error, times critic_coef 2
    assert got[3] == pytest.approx(3.0, abs=1e-5)
