"""What work costs: CPU seconds, which a busy machine does not change, and wall time, also of what runs on a GPU."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

import torch

from dualfid_robot.simulators.base import Simulator


class Clock(Protocol):
    """Seconds since some moment."""

    def now(self) -> float: ...


class WallClock:
    """The time that passes."""

    def now(self) -> float:
        return time.perf_counter()


class CpuClock:
    """CPU seconds of this process, all its threads included, and of the worker processes of its engines.

    Args:
        simulators: the engines; those of this process itself count by themselves.
    """

    def __init__(self, *simulators: Simulator) -> None:
        self._simulators = simulators

    def now(self) -> float:
        return time.process_time() + sum(simulator.worker_cpu_seconds() for simulator in self._simulators)


class Seconds(NamedTuple):
    """What something took: ``wall`` time, on a GPU that of the device, and ``cpu`` time of this process and of the
    engine's workers."""

    wall: float
    cpu: float


class Stopwatch:
    """Sums the time spent inside `with stopwatch:` blocks, in laps.

    On CUDA, events on the current stream time the work that a block starts. Only `take_laps` waits for it.

    Args:
        device: on which the work runs.
        simulators: engines whose worker processes take part in it.
    """

    def __init__(self, device: torch.device, *simulators: Simulator) -> None:
        self._cuda = device.type == "cuda"
        self._cpu_clock, self._wall_clock = CpuClock(*simulators), WallClock()
        self._intervals: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[]]
        self._laps = [Seconds(0.0, 0.0)]

    def __enter__(self) -> None:
        if self._cuda:
            self._started_event = _recorded_event()
        self._started = Seconds(self._wall_clock.now(), self._cpu_clock.now())

    def __exit__(self, *exception: object) -> None:
        wall, cpu = self._wall_clock.now() - self._started.wall, self._cpu_clock.now() - self._started.cpu
        if self._cuda:
            self._intervals[-1].append((self._started_event, _recorded_event()))
        self._laps[-1] = Seconds(self._laps[-1].wall + wall, self._laps[-1].cpu + cpu)

    def end_lap(self) -> None:
        """What follows belongs to the next lap."""
        self._intervals.append([])
        self._laps.append(Seconds(0.0, 0.0))

    def take_laps(self) -> list[Seconds]:
        """What each ended lap since the last call took."""
        *laps, last = self._laps
        *intervals, last_intervals = self._intervals
        self._laps, self._intervals = [last], [last_intervals]
        if not self._cuda:
            return laps
        torch.cuda.current_stream().synchronize()
        on_device = [sum(start.elapsed_time(end) for start, end in lap) / 1e3 for lap in intervals]
        return [Seconds(wall, lap.cpu) for wall, lap in zip(on_device, laps, strict=True)]


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
