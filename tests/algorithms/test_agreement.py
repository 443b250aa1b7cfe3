"""The agreement: its sign where E_low helps or misleads, chance elsewhere, and what the filter makes of it."""

from __future__ import annotations

import math

import pytest
import torch

from dualfid_robot.algorithms.agreement import agreement
from dualfid_robot.algorithms.communicator import Communicator
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import ALLOWANCE, FORGOTTEN, MOST_EVIDENCE, SignalFilter
from dualfid_robot.policies.actor_critic import DualActorCritic

HORIZON, NUM_ENVS, N_LOW, NUM_OBS, NUM_ACTIONS = 4, 64, 40, 5, 2


def rollout(low: float, high: float, seed: int) -> tuple[DualActorCritic, RolloutStorage]:
    """A rollout where an action along the observation's first two numbers pays so much in either simulator."""
    torch.manual_seed(seed)
    policy = DualActorCritic(NUM_OBS, NUM_ACTIONS, actor_hidden=[8], critic_hidden=[4], rank=2)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    storage = RolloutStorage(HORIZON, NUM_ENVS, NUM_OBS, NUM_ACTIONS)
    storage.begin(N_LOW)
    ended = torch.zeros(NUM_ENVS, dtype=torch.bool)
    for _ in range(HORIZON):
        obs = torch.randn(NUM_ENVS, NUM_OBS)
        storage.add(obs, *policy.act(obs, N_LOW), torch.zeros(NUM_ENVS), ended, ended, obs)
    pays = (storage.actions * storage.observations[..., :NUM_ACTIONS]).sum(-1)
    pays[:, :N_LOW] *= low
    pays[:, N_LOW:] *= high
    storage.advantages.copy_(torch.randn(HORIZON, NUM_ENVS) + pays)
    return policy, storage


def by_loops(policy: DualActorCritic, storage: RolloutStorage) -> float:
    """z by its definition, sample by sample."""

    def parts(t: int, row: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        side = storage.advantages[:, :N_LOW] if row < N_LOW else storage.advantages[:, N_LOW:]
        advantage = (storage.advantages[t, row] - side.mean()) / side.std(correction=0)
        obs = storage.observations[t, row : row + 1]
        mean = policy.action_mean(obs, "base" if row < N_LOW else "adapted")[0]
        noise = (storage.actions[t, row] - mean) / policy.log_std.exp()
        return advantage, noise, torch.cat((policy.normalizer(obs)[0], torch.ones(1)))

    gradient = torch.zeros(NUM_ACTIONS, NUM_OBS + 1)
    for t in range(HORIZON):
        for row in range(N_LOW):
            advantage, noise, inputs = parts(t, row)
            gradient += advantage * torch.outer(noise, inputs)
    worth = torch.zeros(NUM_ENVS - N_LOW)
    for t in range(HORIZON):
        for row in range(N_LOW, NUM_ENVS):
            advantage, noise, inputs = parts(t, row)
            worth[row - N_LOW] += advantage * (noise @ gradient @ inputs)
    return (worth.sum() / worth.square().sum().sqrt()).item()


@torch.no_grad()
def test_it_is_its_definition() -> None:
    policy, storage = rollout(1.0, 1.0, seed=0)
    assert agreement(policy, storage).item() == pytest.approx(by_loops(policy, storage), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_it_tells_help_from_harm(seed: int) -> None:
    assert agreement(*rollout(1.0, 1.0, seed)).item() > 2.0
    assert agreement(*rollout(-1.0, 1.0, seed)).item() < -2.0


def test_it_is_a_standard_normal_number_where_the_change_is_worth_nothing() -> None:
    scores = torch.stack([agreement(*rollout(1.0, 0.0, seed)) for seed in range(200)])
    assert abs(scores.mean().item()) < 3.0 / math.sqrt(200)
    assert scores.std().item() == pytest.approx(1.0, abs=0.2)


def test_it_has_no_unit() -> None:
    policy, storage = rollout(1.0, 1.0, seed=0)
    expected = agreement(policy, storage).item()
    storage.advantages[:, :N_LOW] *= 100.0
    storage.advantages[:, N_LOW:] *= 0.01
    assert agreement(policy, storage).item() == pytest.approx(expected, rel=1e-4)


def test_a_part_of_the_samples_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualfid_robot.algorithms.agreement.MAX_SAMPLES", HORIZON * (NUM_ENVS - N_LOW) // 2)
    policy, storage = rollout(-1.0, 1.0, seed=1)
    assert agreement(policy, storage).item() < -1.0


def test_ranks_have_the_same_gradient_and_add_their_evidence() -> None:
    class FourEqualRanks(Communicator):
        size = 4

    policy, storage = rollout(1.0, 1.0, seed=0)
    alone = agreement(policy, storage).item()
    assert agreement(policy, storage, FourEqualRanks()).item() == pytest.approx(2.0 * alone)


def test_evidence_adds_up_to_a_bound_and_harm_is_forgotten_slowly() -> None:
    filter_ = SignalFilter(64, 0.9)
    measured = [1.0, -0.5, -6.0, None, None, 20.0, -1.0, None]
    evidence = [filter_.update({} if z is None else {"agreement": z}, i, 0.0).evidence for i, z in enumerate(measured)]
    after_harm = 1.0 + ALLOWANCE - 6.0 + ALLOWANCE
    expected = [1.0 + ALLOWANCE, 1.0 + ALLOWANCE, after_harm, FORGOTTEN * after_harm, FORGOTTEN**2 * after_harm]
    lower = MOST_EVIDENCE - 1.0 + ALLOWANCE
    assert evidence == pytest.approx([*expected, MOST_EVIDENCE, lower, lower])
