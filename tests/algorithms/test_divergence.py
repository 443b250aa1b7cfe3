"""The KL divergence against torch.distributions and Monte Carlo."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from dualfid_robot.algorithms.divergence import gaussian_kl, policy_divergence
from dualfid_robot.policies.actor_critic import DualActorCritic


def test_against_torch_distributions() -> None:
    mean_p, log_p, mean_q, log_q = (torch.randn(50, 6, dtype=torch.float64) for _ in range(4))
    expected = kl_divergence(Normal(mean_p, log_p.exp()), Normal(mean_q, log_q.exp())).sum(-1)
    torch.testing.assert_close(gaussian_kl(mean_p, log_p, mean_q, log_q), expected)


def test_against_monte_carlo() -> None:
    torch.manual_seed(0)
    mean_p, log_p = torch.tensor([0.3, -1.0]), torch.tensor([-0.2, 0.4])
    mean_q, log_q = torch.tensor([0.0, -0.5]), torch.tensor([0.1, 0.2])
    p, q = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean_p, log_p), (mean_q, log_q)))
    x = p.sample((400_000,))
    differences = p.log_prob(x) - q.log_prob(x)
    error = differences.std() / math.sqrt(x.shape[0])
    assert abs(gaussian_kl(mean_p, log_p, mean_q, log_q) - differences.mean()) < 4.0 * error


def make_policy() -> DualActorCritic:
    generator = torch.Generator().manual_seed(3)
    policy = DualActorCritic(5, 4, actor_hidden=[16], critic_hidden=[8], rank=2, init_log_std=-0.7, generator=generator)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return policy


@pytest.mark.parametrize("per_dimension", [True, False])
def test_policies_share_sigma_so_the_divergence_is_a_scaled_distance(per_dimension: bool) -> None:
    policy = make_policy()
    obs = torch.randn(7, 30, 5)
    means = [policy.action_mean(obs.reshape(-1, 5), name) for name in ("base", "adapted")]  # type: ignore[arg-type]
    expected = (0.5 * ((means[0] - means[1]) / policy.log_std.exp()) ** 2).sum(-1).mean()
    got = policy_divergence(policy, obs, per_dimension)
    assert got is not None and got.item() > 1e-3
    torch.testing.assert_close(got, expected / 4 if per_dimension else expected)


def test_subsample_is_evenly_strided_over_steps_and_rows() -> None:
    policy = make_policy()
    obs = torch.randn(10, 33, 5)
    every_fourth = obs.reshape(-1, 5)[::4]
    torch.testing.assert_close(
        policy_divergence(policy, obs, max_states=83), policy_divergence(policy, every_fourth), rtol=1e-5, atol=0.0
    )
    full = policy_divergence(policy, torch.randn(16, 4000, 5), max_states=10**9)
    some = policy_divergence(policy, torch.randn(16, 4000, 5))
    assert full is not None and some is not None
    assert some.item() == pytest.approx(full.item(), rel=0.1)


def test_equal_policies_and_no_states() -> None:
    policy = DualActorCritic(5, 4)
    assert policy_divergence(policy, torch.randn(3, 20, 5)) == 0.0
    assert policy_divergence(policy, torch.zeros(16, 0, 5)) is None
