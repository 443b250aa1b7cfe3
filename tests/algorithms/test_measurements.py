"""What is measured on a rollout: as much as is asked for, without waiting, and the ranks' means."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from test_dual_ppo import NoHostSynchronisation
from torch import Tensor

from dualfid_robot.algorithms.agreement import agreement
from dualfid_robot.algorithms.communicator import Communicator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.measurements import SIGNAL_OF_METRIC, measure
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import COSTS, MEASURED
from dualfid_robot.policies.actor_critic import DualActorCritic

NUM_ENVS = 24


def acted(n_low: int) -> tuple[DualActorCritic, RolloutStorage]:
    policy = DualActorCritic(5, 2, actor_hidden=[8], critic_hidden=[4], rank=2)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    storage = RolloutStorage(4, NUM_ENVS, 5, 2)
    storage.begin(n_low)
    ended = torch.zeros(NUM_ENVS, dtype=torch.bool)
    for _ in range(4):
        obs = torch.randn(NUM_ENVS, 5)
        storage.add(obs, *policy.act(obs, n_low), torch.zeros(NUM_ENVS), ended, ended, obs)
    return policy, storage


def test_every_signal_is_measured_somewhere() -> None:
    # the gap follows from the drift, the evidence from the agreement
    assert set(SIGNAL_OF_METRIC.values()) | COSTS | {"gap", "evidence"} == MEASURED


@pytest.mark.parametrize(
    ("n_low", "names"),
    [
        (10, set(SIGNAL_OF_METRIC) - {"divergence/drift"}),
        (0, {"divergence/high"}),
        (NUM_ENVS, {"divergence/D"}),
    ],
)
def test_what_needs_an_absent_fidelity_is_left_out(n_low: int, names: set[str]) -> None:
    policy, storage = acted(n_low)
    assert measure(policy, storage, MEASURED).keys() == names


def test_values_are_those_of_the_function() -> None:
    policy, storage = acted(10)
    metrics = measure(policy, storage, MEASURED)
    expected = {
        "divergence/D": policy_divergence(policy, storage.low_observations),
        "divergence/high": policy_divergence(policy, storage.high_observations),
        "allocation/agreement": agreement(policy, storage),
    }
    assert metrics == expected and metrics["divergence/D"] != metrics["divergence/high"]


def test_nothing_but_the_divergence_is_measured_unasked() -> None:
    policy, storage = acted(10)
    assert measure(policy, storage, frozenset()).keys() == {"divergence/D"}
    assert measure(policy, storage, COSTS).keys() == {"divergence/D"}


@pytest.mark.parametrize("n_low", [0, 10, NUM_ENVS])
def test_the_host_never_waits(n_low: int) -> None:
    policy, storage = acted(n_low)
    with NoHostSynchronisation():
        measure(policy, storage, MEASURED)


class TwoRanks(Communicator):
    """Another rank measured nothing but ones, and has the same advantages."""

    size = 2

    def average_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            tensor.add_(1.0).div_(2.0)


def test_ranks_are_averaged() -> None:
    policy, storage = acted(10)
    divergences = frozenset({"divergence_high"})
    alone = measure(policy, storage, divergences)
    both = measure(policy, storage, divergences, TwoRanks())
    assert both.keys() == alone.keys() and len(both) == 2
    for name, value in both.items():
        assert value.item() == pytest.approx((alone[name].item() + 1.0) / 2.0), name
