"""What an iteration costs: by hand-made clocks, and beside a program that eats the CPU."""

from __future__ import annotations

import time
from typing import cast

import pytest

from dualfid_robot.envs.pool import PoolStatistics
from dualfid_robot.envs.stopwatch import CpuClock
from dualfid_robot.train import accounting
from dualfid_robot.train.accounting import Books, Prices

ENGINES = [("low", "cheap"), ("low", "other"), ("high", "dear")]


class HandMadeClock:
    """Goes on by what it is told."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time


def pools() -> list[PoolStatistics]:
    """Each pool's wall time is twice its CPU time, as beside another program."""
    return [PoolStatistics(env_steps=steps, step_seconds=[2 * cpu], cpu_seconds=cpu) for steps, cpu in zip(
        (60, 20, 20), (1.0, 2.0, 4.0), strict=True
    )]  # fmt: skip


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> HandMadeClock:
    clock = HandMadeClock()
    monkeypatch.setattr(accounting.time, "perf_counter", clock.now)
    return clock


def test_on_a_cpu_cpu_seconds_cost(wall: HandMadeClock) -> None:
    cpu = HandMadeClock()
    books = Books(ENGINES, Prices((1.0, 3.0, 10.0), learner=2.0), 100, cast(CpuClock, cpu))
    books.begin()
    wall.time, cpu.time = wall.time + 24.0, cpu.time + 12.0
    report = books.report(pools(), hidden=0.0)
    metrics = books.close([report])
    # 1·1 + 3·2 + 10·4 of the engines and 2·(12 − 7) of the learner.
    assert books.cost == metrics["cost_seconds"] == pytest.approx(57.0)
    assert [metrics[f"counted_seconds/{part}"] for part in ("low", "high", "learner")] == [3.0, 4.0, 5.0]
    assert (metrics["wall_seconds"], metrics["seconds/learner"]) == pytest.approx((24.0, 10.0))
    costs = books.costs_of_a_step(report)
    assert costs == pytest.approx({"cost_low": 7.0 / 80, "cost_high": 40.0 / 20, "cost_learner": 10.0 / 100})


def test_with_a_gpu_wall_time_costs(wall: HandMadeClock) -> None:
    books = Books(ENGINES, Prices((1.0, 3.0, 10.0), learner=2.0), 100)
    books.begin()
    wall.time += 24.0
    metrics = books.close([books.report(pools(), hidden=1.5)])
    # 1·2 + 3·4 + 10·8 of the engines, 2·(24 − 14 + 1.5) of the learner; in 1.5 s the cheapest pool cost nothing.
    assert metrics["cost_seconds"] == pytest.approx(94.0 + 23.0 - 1.5)


def test_idle_time_costs_nothing_on_a_cpu() -> None:
    books = Books([("high", "dear")], Prices((1.0,)), 100, CpuClock())
    books.begin()
    time.sleep(0.3)
    metrics = books.close([books.report([PoolStatistics(env_steps=100)], hidden=0.0)])
    assert metrics["wall_seconds"] > 0.29 and metrics["cost_seconds"] < 0.1


def test_books_go_on_from_their_state(wall: HandMadeClock) -> None:
    books, other = (Books(ENGINES, Prices((1.0, 1.0, 1.0)), 100) for _ in range(2))
    books.begin()
    wall.time += 20.0
    books.close([books.report(pools(), hidden=0.0)])
    other.load_state_dict(books.state_dict())
    assert (other.iteration, other.samples, other.cost, other.wall) == (1, 100, books.cost, 20.0)
