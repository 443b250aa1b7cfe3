"""The mini-batch's gradient by hand against autograd through the layers as they are written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_ppo_loss import reference_terms
from torch import Tensor

from dualfid_robot.algorithms.gradients import SUMS, PolicyGradient
from dualfid_robot.algorithms.minibatches import Chunk
from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch
from dualfid_robot.policies import mlp
from dualfid_robot.policies.actor_critic import DualActorCritic

COEFFICIENTS = LossCoefficients(0.2, 2.0, True, 0.01, 0.1)
WEIGHTS = (0.3, 0.7)
ROWS, NUM_OBS, NUM_ACTIONS = 60, 7, 3


def trained_policy(dtype: torch.dtype, **settings: Any) -> DualActorCritic:
    generator = torch.Generator().manual_seed(0)
    sizes: dict[str, Any] = {"actor_hidden": [12, 9], "critic_hidden": [10], "rank": 4, "num_privileged": 2}
    policy = DualActorCritic(NUM_OBS, NUM_ACTIONS, generator=generator, **(sizes | settings)).to(dtype)
    policy.hidden_dtype = dtype
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=dtype))
    return policy


@torch.no_grad()
def samples(policy: DualActorCritic, n_low: int) -> MiniBatch:
    """What a policy close to this one has done, so that some ratios and values are clipped and some are not."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=policy.log_std.dtype)

    obs = normal(ROWS, NUM_OBS)
    mean, value = policy.evaluate(obs, n_low)
    actions = mean + policy.log_std.exp() * normal(ROWS, NUM_ACTIONS)
    log_probs = torch.distributions.Normal(mean, policy.log_std.exp()).log_prob(actions).sum(-1) + 0.2 * normal(ROWS)
    return MiniBatch(obs, actions, log_probs, normal(ROWS), value + normal(ROWS), value + 0.2 * normal(ROWS))


def by_autograd(policy: DualActorCritic, batch: MiniBatch, n_low: int) -> tuple[list[Tensor | None], Tensor]:
    """Gradients of the weighted means of the losses, and the sums for the log."""
    mean, value = policy.evaluate(batch.obs, n_low)
    per_sample, policy_loss, value_loss = reference_terms(mean, policy.log_std, value, batch, COEFFICIENTS)
    sides = (slice(0, n_low), slice(n_low, ROWS))
    loss = sum(w * per_sample[rows].mean() for w, rows in zip(WEIGHTS, sides, strict=True) if rows.start < rows.stop)
    gradients = torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
    distribution = torch.distributions.Normal(mean, policy.log_std.exp())
    ratio = torch.exp(distribution.log_prob(batch.actions).sum(-1) - batch.log_probs)
    columns = {
        "policy_loss": policy_loss,
        "approx_kl": ratio - 1.0 - ratio.log(),
        "clip_fraction": ((ratio - 1.0).abs() > 0.2).to(ratio.dtype),
        "value_loss": value_loss,
    }
    return list(gradients), torch.stack([torch.stack([columns[name][rows].sum() for name in SUMS]) for rows in sides])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("n_low", [0, 1, 23, ROWS])
@pytest.mark.parametrize("activation", ["elu", "tanh", "relu"])
@pytest.mark.parametrize("adapter", ["lora", "bit", "none"])
@pytest.mark.parametrize("networks", [2, 1])
def test_gradient_against_autograd(
    dtype: torch.dtype,
    tolerance: float,
    n_low: int,
    activation: str,
    adapter: str,
    networks: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In several blocks of each fidelity; relative to each gradient's norm."""
    monkeypatch.setattr(mlp, "BLOCK_ROWS", 16)
    one: dict[str, Any] = {"critic_hidden": None, "num_privileged": 0}
    policy = trained_policy(dtype, activation=activation, adapter=adapter, **(one if networks == 1 else {}))
    batch = samples(policy, n_low)
    expected, expected_sums = by_autograd(policy, batch, n_low)
    sums = torch.zeros(2, 4, dtype=dtype)
    gradient = PolicyGradient(policy, COEFFICIENTS)
    for _ in range(2):  # the second time in the same memory
        policy.zero_grad()
        gradient.accumulate([Chunk(batch, (n_low, ROWS - n_low))], WEIGHTS, sums.zero_())
    for p, wanted in zip(policy.parameters(), expected, strict=True):
        if wanted is None:
            assert p.grad is None
        else:
            assert p.grad is not None
            assert (p.grad - wanted).norm() <= tolerance * (wanted.norm() + 1e-3)
    torch.testing.assert_close(sums, expected_sums, rtol=10 * tolerance, atol=10 * tolerance)


def test_theta_without_the_high_rows() -> None:
    """θ has the gradient of w_low L_low, φ that of w_high L_high."""
    policy = trained_policy(torch.float64)
    batch = samples(policy, 23)
    gradient, sums = PolicyGradient(policy, COEFFICIENTS), torch.zeros(2, 4, dtype=torch.float64)
    gradient.accumulate([Chunk(batch, (23, ROWS - 23))], WEIGHTS, sums, base_from_high=False)
    mean, value = policy.evaluate(batch.obs[:23], 23)
    per_sample, _, _ = reference_terms(mean, policy.log_std, value, batch.rows(0, 23), COEFFICIENTS)
    expected = torch.autograd.grad(WEIGHTS[0] * per_sample.mean(), policy.base_parameters())
    for p, wanted in zip(policy.base_parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, wanted, rtol=1e-10, atol=1e-12)
    of_adapter = dict(zip(policy.parameters(), by_autograd(policy, batch, 23)[0], strict=True))
    for p in policy.adapter_parameters():
        torch.testing.assert_close(p.grad, of_adapter[p], rtol=1e-10, atol=1e-12)
