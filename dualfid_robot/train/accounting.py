"""What iterations cost and what their episodes brought: clocks, sums and metrics, apart from the algorithm's text."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dualfid_robot.envs.pool import PoolStatistics
from dualfid_robot.envs.stopwatch import CpuClock

logger = logging.getLogger(__name__)

EPISODES = 100  # a return is reported as the mean of so many finished episodes
SIDES = ("low", "high")


@dataclass(frozen=True)
class Prices:
    """What a second costs: money, energy, or how dear the real E_high is. 1 counts plain seconds.

    Attributes:
        pools: of each pool's engine, in the order of `DualEnvironment.pools`.
        learner: of everything else.
    """

    pools: tuple[float, ...]
    learner: float = 1.0

    def cost(self, pools: Sequence[float], learner: float, hidden: float) -> float:
        """Σ price · seconds. Seconds in which two devices worked at once cost only the dearer one.

        Args:
            pools: counted seconds of each pool (see `Books`).
            learner: counted seconds of everything else.
            hidden: seconds in which pools of two devices were stepping at once.
        """
        seconds = sum(price * part for price, part in zip(self.pools, pools, strict=True))
        return seconds + self.learner * learner - min(self.pools) * hidden


@dataclass(frozen=True)
class IterationReport:
    """What one rank did in an iteration.

    Attributes:
        elapsed: wall time, s.
        allocation: part of it for reallocation, measurements and the rule, s.
        hidden: part of it in which pools of two devices were stepping at once, s.
        pools: what happened in each pool.
        counted_pools: seconds of each pool that cost something.
        counted_learner: those of everything else.
    """

    elapsed: float
    allocation: float
    hidden: float
    pools: list[PoolStatistics]
    counted_pools: list[float]
    counted_learner: float

    @property
    def learner(self) -> float:
        """Wall time of everything but the pools, s."""
        return self.elapsed - sum(part.seconds for part in self.pools) + self.hidden


class Books:
    """The accounts of a run.

    On a CPU the seconds that count are CPU seconds, of all threads and worker processes. Other programs on the machine
    do not change them. As soon as a GPU takes part, wall time counts.

    Attributes:
        iteration: iterations done.
        samples: environment steps of all engines in all processes.
        cost: Σ price · counted seconds of all engines and of the learner in all processes.
        wall: wall time of the iterations, s.
    """

    def __init__(
        self, engines: Sequence[tuple[str, str]], prices: Prices, steps: int, cpu_clock: CpuClock | None = None
    ) -> None:
        """Open the books.

        Args:
            engines: side ("low" or "high") and name of each pool's engine.
            prices: of their seconds.
            steps: environment steps of one process in an iteration.
            cpu_clock: of this process and of its engines' workers. Without it, wall time counts.
        """
        self.engines, self.prices, self._steps, self._cpu_clock = list(engines), prices, steps, cpu_clock
        self.iteration = 0
        self.samples = 0
        self.cost = 0.0
        self.wall = 0.0
        self._recent: dict[str, deque[tuple[float, float]]] = {}
        self._started = self._cpu_started = self._allocation = 0.0

    def begin(self) -> None:
        """An iteration begins."""
        self._started, self._allocation = time.perf_counter(), 0.0
        if self._cpu_clock is not None:
            self._cpu_started = self._cpu_clock.now()

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """What is done inside belongs to the allocation."""
        started = time.perf_counter()
        yield
        self._allocation += time.perf_counter() - started

    def report(self, pools: list[PoolStatistics], hidden: float) -> IterationReport:
        """This rank's iteration as it is now.

        Args:
            pools: what happened in each pool.
            hidden: see `DualEnvironment.hidden_seconds`.
        """
        elapsed = time.perf_counter() - self._started
        if self._cpu_clock is None:
            counted = [part.seconds for part in pools]
            learner = elapsed - sum(counted) + hidden
        else:
            counted = [part.cpu_seconds for part in pools]
            learner = self._cpu_clock.now() - self._cpu_started - sum(counted)
        return IterationReport(elapsed, self._allocation, hidden, pools, counted, learner)

    def cost_of(self, report: IterationReport) -> float:
        """What an iteration of one rank cost."""
        return self.prices.cost(report.counted_pools, report.counted_learner, report.hidden)

    def costs_of_a_step(self, report: IterationReport) -> dict[str, float]:
        """Cost of an environment step in each side, and in the learner, by the names of `Signals`."""
        costs = {"cost_learner": self.prices.learner * report.counted_learner / self._steps}
        for side in SIDES:
            of_side = [i for i, (s, _) in enumerate(self.engines) if s == side]
            steps = sum(report.pools[i].env_steps for i in of_side)
            if steps:
                costs[f"cost_{side}"] = sum(self.prices.pools[i] * report.counted_pools[i] for i in of_side) / steps
        return costs

    def close(self, reports: Sequence[IterationReport]) -> dict[str, float]:
        """Enter an iteration of all ranks. Returns its metrics.

        Seconds of wall time are means over the ranks, so that they add up to the time that passed. Cost and counted
        seconds are sums over the ranks.
        """
        ranks = len(reports)
        samples = self._steps * ranks
        self.iteration += 1
        self.samples += samples
        self.cost += sum(self.cost_of(report) for report in reports)
        elapsed, learner = (sum(getattr(r, name) for r in reports) / ranks for name in ("elapsed", "learner"))
        self.wall += elapsed
        metrics = {
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost,
            "wall_seconds": self.wall,
            "seconds/iteration": elapsed,
            "seconds/learner": learner,
            "seconds/hidden": sum(report.hidden for report in reports) / ranks,
            "seconds/allocation": sum(report.allocation for report in reports) / ranks,
            "env_steps_per_second": samples / elapsed,
            "seconds_per_env_step/learner": learner * ranks / samples,
            "counted_seconds/learner": sum(report.counted_learner for report in reports),
        }
        for side in SIDES:
            of_side = [i for i, (s, _) in enumerate(self.engines) if s == side]
            metrics |= self._metrics(side, [report.pools[i] for report in reports for i in of_side], ranks)
            metrics[f"counted_seconds/{side}"] = sum(report.counted_pools[i] for report in reports for i in of_side)
            if len(of_side) > 1:
                for i in of_side:
                    name = f"{side}.{self.engines[i][1]}"
                    metrics |= self._metrics(name, [report.pools[i] for report in reports], ranks)
        return metrics

    def _metrics(self, name: str, parts: Sequence[PoolStatistics], ranks: int) -> dict[str, float]:
        """Metrics of a side, or of one of its engines, over all ranks."""
        seconds, env_steps = sum(part.seconds for part in parts), sum(part.env_steps for part in parts)
        failures = sum(part.failures for part in parts)
        metrics: dict[str, float] = {
            f"seconds/{name}": seconds / ranks,
            f"failures/{name}": failures,
            f"overflows/{name}": sum(part.overflows for part in parts),
        }
        # Rewards and figures of merit are means over steps, parameters over worlds.
        if env_steps:
            metrics[f"seconds_per_env_step/{name}"] = seconds / env_steps
        for term, mean in _mean_of_steps([part.reward_terms for part in parts], parts, env_steps):
            metrics[f"reward/{term}/{name}"] = mean
        for measure, mean in _mean_of_steps([part.measures for part in parts], parts, env_steps):
            metrics[f"measure_{measure}/{name}"] = mean
        for parameter in parts[0].randomized if parts else ():
            total = sum(part.randomized[parameter] for part in parts)
            metrics[f"randomized_{parameter}/{name}"] = total / len(parts)
        # Returns are means over the last episodes that finished.
        recent = self._recent.setdefault(name, deque(maxlen=EPISODES))
        for part in parts:
            recent.extend(zip(part.returns.tolist(), part.lengths.tolist(), strict=True))
        if recent:
            metrics[f"return/{name}"] = sum(r for r, _ in recent) / len(recent)
            metrics[f"episode_length/{name}"] = sum(length for _, length in recent) / len(recent)
        if failures and "." not in name:
            logger.warning("%d world(s) of the %s simulator went non-finite and were reset", failures, name)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration's metrics depend on."""
        recent = {name: list(map(list, episodes)) for name, episodes in self._recent.items()}
        done = {"iteration": self.iteration, "samples": self.samples, "cost": self.cost, "wall": self.wall}
        return {**done, "recent": recent}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.iteration, self.samples = state["iteration"], state["samples"]
        self.cost, self.wall = state["cost"], state["wall"]
        self._recent = {
            name: deque([(r, length) for r, length in episodes], maxlen=EPISODES)
            for name, episodes in state["recent"].items()
        }


def _mean_of_steps(
    means: Sequence[Mapping[str, float]], parts: Sequence[PoolStatistics], env_steps: int
) -> Iterator[tuple[str, float]]:
    """Name and mean over all steps of each figure, from its means over every part's steps."""
    for name in {name: None for figures in means for name in figures}:
        total = sum(figures.get(name, 0.0) * part.env_steps for figures, part in zip(means, parts, strict=True))
        yield name, total / env_steps
