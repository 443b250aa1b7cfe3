"""The transfer gap against its closed form for one action, and against log-probabilities of torch.distributions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from dualfid_robot.algorithms.research.transfer_gap import transfer_gap
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic


def make_policy(shift: float, num_actions: int = 1) -> DualActorCritic:
    """π_θ = N(0, 0.5²) and π_{θ,φ} = N(shift, 0.5²) in every state."""
    policy = DualActorCritic(3, num_actions, actor_hidden=[4], critic_hidden=[4], init_log_std=math.log(0.5))
    with torch.no_grad():
        policy.actor.output_layer.weight.zero_()
        policy.actor.output_layer.bias_delta.fill_(shift)
    return policy


def acted(policy: DualActorCritic, horizon: int, num_envs: int, n_low: int) -> RolloutStorage:
    storage = RolloutStorage(horizon, num_envs, 3, policy.num_actions)
    storage.begin(n_low)
    ended = torch.zeros(num_envs, dtype=torch.bool)
    for _ in range(horizon):
        obs = torch.randn(num_envs, 3)
        storage.add(obs, *policy.act(obs, n_low), torch.zeros(num_envs), ended, ended, obs)
    return storage


@pytest.mark.parametrize(("slope", "sign"), [(1.0, 1.0), (-1.0, -1.0)])
def test_closed_form_for_one_action(slope: float, sign: float) -> None:
    """Without clipping, E_adapted[(r − 1) z] = −δ, z the action's deviation, δ = shift / σ: Ĝ = ±δ for Â = ±z."""
    policy = make_policy(0.1)
    storage = acted(policy, 50, 2000, 500)
    z = (storage.actions.squeeze(-1) - 0.1) / 0.5
    samples = 50 * 1500
    gap = transfer_gap(policy, storage, slope * z, 1e6, max_states=samples)
    assert gap is not None
    # Var[(r − 1) z] from the log-normal moments is below 3 δ² e^{δ²} here
    assert abs(gap.item() - sign * 0.2) < 4.0 * math.sqrt(3.0 * 0.04 * math.exp(0.04) / samples)


@pytest.mark.parametrize("e_clip", [0.05, 0.2])
def test_against_torch_distributions(e_clip: float) -> None:
    policy = make_policy(0.3, num_actions=4)
    storage = acted(policy, 6, 40, 15)
    advantages = torch.randn(6, 40)
    actions, advantage = storage.actions[:, 15:].double(), advantages[:, 15:].double()
    base, adapted = (
        Independent(Normal(torch.full((4,), mean, dtype=torch.float64), 0.5), 1).log_prob(actions)
        for mean in (0.0, 0.3)
    )
    ratio = (base - adapted).exp().clamp(1.0 - e_clip, 1.0 + e_clip)
    expected = -((ratio - 1.0) * advantage).mean()
    got = transfer_gap(policy, storage, advantages, e_clip)
    assert got is not None and abs(expected) > 1e-4
    assert got.item() == pytest.approx(expected.item(), rel=1e-4)


def test_equal_policies_lose_nothing() -> None:
    policy = make_policy(0.0)
    storage = acted(policy, 4, 20, 10)
    assert transfer_gap(policy, storage, torch.randn(4, 20), 0.2) == 0.0


def test_without_high_samples_there_is_none() -> None:
    policy = make_policy(0.1)
    assert transfer_gap(policy, acted(policy, 4, 20, 20), torch.randn(4, 20), 0.2) is None


def test_subsample_is_evenly_strided() -> None:
    policy = make_policy(0.2)
    storage = acted(policy, 8, 30, 10)
    advantages = torch.randn(8, 30)
    got = transfer_gap(policy, storage, advantages, 0.2, max_states=41)  # every 4th of 160
    base, adapted = (Normal(mean, 0.5).log_prob(storage.actions[:, 10:].flatten()[::4]) for mean in (0.0, 0.2))
    ratio = (base - adapted).exp().clamp(0.8, 1.2)
    assert got is not None
    assert got.item() == pytest.approx(-((ratio - 1.0) * advantages[:, 10:].flatten()[::4]).mean().item(), rel=1e-4)
