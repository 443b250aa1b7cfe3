"""The drift: 1 by chance, W for a straight path, the same in every unit, and what the filter makes of it."""

from __future__ import annotations

import math

import pytest
import torch

from dualfid_robot.algorithms.drift import EVERY, WINDOWS, Drift
from dualfid_robot.algorithms.signals import RELEASE, WITHOUT_GAP, SignalFilter
from dualfid_robot.policies.actor_critic import DualActorCritic


def drift_of(steps: list[torch.Tensor], factor: float = 1.0) -> float:
    """V of a policy whose action head's adapter takes the given steps (2, 16), one in a window."""
    generator = torch.Generator().manual_seed(0)
    policy = DualActorCritic(5, 2, actor_hidden=[16], critic_hidden=[4], rank=2, generator=generator)
    drift, obs = Drift(policy), torch.randn(4, 64, 5, generator=generator)
    head, ratio = policy.actor.output_layer, None
    for step in steps:
        for _ in range(EVERY):
            assert ratio is None
            ratio = drift.measure(obs)
        with torch.no_grad():
            head.lora_b.add_(factor * step)
    assert ratio is not None
    return ratio.item()


def test_a_straight_path_has_as_many_windows() -> None:
    step = torch.randn(2, 16)
    assert drift_of([step] * (WINDOWS + 1)) == pytest.approx(WINDOWS, rel=1e-3)


def test_there_and_back_has_none() -> None:
    step = torch.randn(2, 16)
    assert drift_of([step, -step] * (WINDOWS // 2) + [step]) == pytest.approx(0.0, abs=1e-6)


def test_a_random_walk_has_one_in_the_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    walks = [drift_of([torch.randn(2, 16, generator=generator) for _ in range(WINDOWS + 1)]) for _ in range(200)]
    mean, error = torch.tensor(walks).mean().item(), torch.tensor(walks).std().item() / math.sqrt(len(walks))
    assert abs(mean - 1.0) < 4.0 * error


def test_the_adapters_speed_cancels() -> None:
    generator = torch.Generator().manual_seed(2)
    steps = [torch.randn(2, 16, generator=generator) for _ in range(WINDOWS + 1)]
    expected = drift_of(steps)
    for factor in (0.1, 10.0):
        assert drift_of(steps, factor) == pytest.approx(expected, rel=1e-3)


def test_without_high_rows_nothing_is_measured() -> None:
    drift = Drift(DualActorCritic(5, 2, actor_hidden=[16], critic_hidden=[4], rank=2))
    assert all(drift.measure(torch.zeros(4, 0, 5)) is None for _ in range(EVERY * (WINDOWS + 3)))


def test_a_window_ends_where_e_high_has_rows() -> None:
    """With rows in each seventh iteration only, windows have seven iterations."""
    drift = Drift(DualActorCritic(5, 2, actor_hidden=[16], critic_hidden=[4], rank=2))
    measured = [drift.measure(torch.zeros(4, 3 * (i % 7 == 6), 5)) is not None for i in range(7 * (WINDOWS + 2))]
    assert [i for i, done in enumerate(measured) if done] == [7 * (WINDOWS + 1) - 1, 7 * (WINDOWS + 2) - 1]


def test_it_goes_on_from_its_state() -> None:
    policy = DualActorCritic(5, 2, actor_hidden=[16], critic_hidden=[4], rank=2)
    first, obs = Drift(policy), torch.randn(4, 8, 5)

    def move_and_measure(drift: Drift) -> torch.Tensor | None:
        ratio = None
        for _ in range(EVERY):
            ratio = drift.measure(obs)
        return ratio

    for i in range(WINDOWS):
        move_and_measure(first)
        with torch.no_grad():
            policy.actor.output_layer.lora_b.add_(0.1 * (i + 1))
    second = Drift(policy)
    second.load_state_dict(first.state_dict())
    expected, found = move_and_measure(first), move_and_measure(second)
    assert expected is not None and found is not None and torch.equal(expected, found)


def test_the_gap_rises_at_once_and_falls_slowly() -> None:
    filter_ = SignalFilter(64, 0.9)
    gaps = [filter_.update({"drift": v}, i, 0.0).gap for i, v in enumerate((1.0, 2.5, 1.0, 1.0, 3.3))]
    assert gaps == pytest.approx([0.0, 2.5 - WITHOUT_GAP, RELEASE, RELEASE**2, 3.3 - WITHOUT_GAP])
