"""Timing for all benchmarks: the compared things take turns within one run, and medians are compared."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable


def measure_in_turn(actions: dict[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, float]:
    """Median seconds of each action, called in turn (a, b, a, b, …) after `warmup` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for current in range(warmup + rounds):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            if current >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def rounds_argument(default: int) -> int:
    """`--rounds` of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=default, help="timed rounds of each thing")
    return int(parser.parse_args().rounds)
