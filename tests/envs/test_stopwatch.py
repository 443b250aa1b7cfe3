"""What is measured: work costs CPU time, waiting does not, and worker processes count."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest
import torch

from dualfid_robot.envs.stopwatch import CpuClock, Stopwatch, WallClock
from dualfid_robot.simulators.base import Simulator

pytestmark = pytest.mark.alone


class EngineElsewhere:
    """An engine whose workers have worked so long."""

    seconds = 5.0

    def worker_cpu_seconds(self) -> float:
        return self.seconds


def work(seconds: float) -> None:
    """Use the CPU for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_waiting_costs_wall_time_and_work_costs_cpu_time() -> None:
    stopwatch = Stopwatch(torch.device("cpu"))
    with stopwatch:
        time.sleep(0.1)
    stopwatch.end_lap()
    with stopwatch:
        work(0.1)
    stopwatch.end_lap()
    waited, worked = stopwatch.take_laps()
    assert waited.wall >= 0.1 and waited.cpu < 0.05
    assert worked.wall >= 0.099 and worked.cpu >= 0.099
    assert stopwatch.take_laps() == []


def test_all_threads_and_the_workers_of_engines_count() -> None:
    engine: Any = EngineElsewhere()
    clock, stopwatch = CpuClock(cast(Simulator, engine)), Stopwatch(torch.device("cpu"), engine)
    started = clock.now()
    with stopwatch:
        threads = [threading.Thread(target=work, args=(0.05,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        engine.seconds += 2.0
    stopwatch.end_lap()
    assert clock.now() - started == pytest.approx(2.1, abs=0.09)
    assert stopwatch.take_laps()[0].cpu == pytest.approx(2.1, abs=0.09)


def test_wall_clock() -> None:
    clock = WallClock()
    started = clock.now()
    time.sleep(0.02)
    assert clock.now() - started >= 0.02
