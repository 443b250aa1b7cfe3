"""Wall time of what runs on a device, without waiting for it meanwhile."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Sums the time spent inside `with stopwatch:` blocks, in laps.

    On CUDA, events on the current stream time the work that a block starts. Only `take_laps` waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._intervals: list[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = [[]]
        self._laps = [0.0]

    def __enter__(self) -> None:
        if self._cuda:
            self._started_event = _recorded_event()
        else:
            self._started = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        if self._cuda:
            self._intervals[-1].append((self._started_event, _recorded_event()))
        else:
            self._laps[-1] += time.perf_counter() - self._started

    def end_lap(self) -> None:
        """What follows belongs to the next lap."""
        if self._cuda:
            self._intervals.append([])
        else:
            self._laps.append(0.0)

    def take_laps(self) -> list[float]:
        """Seconds of each ended lap since the last call."""
        if not self._cuda:
            *laps, last = self._laps
            self._laps = [last]
            return laps
        *intervals, last_intervals = self._intervals
        self._intervals = [last_intervals]
        torch.cuda.current_stream().synchronize()
        return [sum(start.elapsed_time(end) for start, end in lap) / 1e3 for lap in intervals]


def _recorded_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
