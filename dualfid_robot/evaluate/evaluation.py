"""Evaluation of any agent in any engine: returns of complete episodes in numbers and in words, and videos."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import counted
from dualfid_robot.view.video import Video

if TYPE_CHECKING:  # a player of exported policies knows no task
    from dualfid_robot.envs.pool import EnvironmentPool
    from dualfid_robot.evaluate.agents import Agent


@dataclass(frozen=True)
class Evaluation:
    """Returns of complete episodes, one per environment.

    Attributes:
        returns: (episodes,) undiscounted; lengths: (episodes,) steps.
        terminated: (episodes,) bool: which of them ended for good, not by the time limit.
        failures: worlds that went non-finite meanwhile.
        measures: (episodes,) mean over the episode's steps of each of `Task.measure`.
        final_measures: (episodes,) their values in its last step.
        reward_terms: (episodes,) sum over the episode's steps of each term of `Task.reward`. Together they are the
            returns.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    failures: int
    measures: dict[str, np.ndarray]
    final_measures: dict[str, np.ndarray]
    reward_terms: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean return (Student's t); degenerate for a single episode."""
        half = half_width(self.returns, 0.95)
        return self.mean - half, self.mean + half

    def summary(self) -> dict[str, float]:
        """The figures of a report."""
        low, high = self.interval
        measures = {f"measure_{name}": float(values.mean()) for name, values in self.measures.items()}
        finals = {f"final_{name}": float(values.mean()) for name, values in self.final_measures.items()}
        rewards = {f"reward_{name}": float(values.mean()) for name, values in self.reward_terms.items()}
        return (
            rewards
            | measures
            | finals
            | {
                "return_mean": self.mean,
                "return_95_low": low,
                "return_95_high": high,
                "return_median": float(np.median(self.returns)),
                "episode_length": float(self.lengths.mean()),
                "terminated": float(self.terminated.mean()),
                "episodes": len(self.returns),
                "failures": self.failures,
            }
        )

    def line(self) -> str:
        """The evaluation for a reader, in one line."""
        low, high = self.interval
        text = (
            f"return {rounded(self.mean, 4)} (95% interval {rounded(low, 4)} to {rounded(high, 4)},"
            f" median {rounded(float(np.median(self.returns)), 4)}),"
            f" episode length {self.lengths.mean():.1f}, terminated {self.terminated.mean():.0%},"
            f" {counted(len(self.returns), 'episode')}"
        )
        for name, values in self.measures.items():
            text += f"; {name} {values.mean():.3g}, at the end {self.final_measures[name].mean():.3g}"
        if self.failures:
            text += f"; {self.failures} world(s) went non-finite"
        return text


def rounded(value: float, digits: int) -> str:
    """A number for a reader, rounded to so many digits and never with an exponent."""
    return np.format_float_positional(float(f"{value:.{digits}g}"), trim="-")


def rollout(agent: Agent, pool: EnvironmentPool) -> Iterator[Tensor]:
    """Run an agent from fresh initial states for one episode length.

    Yields (N,) bool after each step: the environments that were still in their first episode during it.
    """
    pool.reset_all()
    running = torch.ones(pool.num_envs, dtype=torch.bool, device=pool.device)
    for _ in range(pool.task.config.episodeLength):
        pool.step(agent(pool.observations))
        yield running
        running = running & ~(pool.terminated | pool.truncated)
        if not running.any():
            return


def evaluate(
    agent: Agent, pool: EnvironmentPool, watch: Callable[[Iterator[Tensor]], Iterator[Tensor]] = iter
) -> Evaluation:
    """Run one complete episode in each environment of the pool.

    Every environment counts once, so short episodes do not weigh more than long ones.

    Args:
        watch: what is between this function and the steps of `rollout`, such as a display of progress.
    """
    returns = torch.zeros(pool.num_envs, dtype=torch.float64, device=pool.device)
    lengths = torch.zeros(pool.num_envs, device=pool.device)
    terminated = torch.zeros(pool.num_envs, dtype=torch.bool, device=pool.device)
    rewards: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    finals: dict[str, Tensor] = {}
    pool.take_statistics()
    for running in watch(rollout(agent, pool)):
        returns += torch.where(running, pool.reward, 0.0)
        lengths += running
        terminated |= running & pool.terminated
        for key, values in pool.reward_terms.items():
            rewards[key] = rewards.get(key, torch.zeros_like(returns)) + torch.where(running, values, 0.0)
        for key, values in pool.measured.items():
            sums[key] = sums.get(key, torch.zeros_like(returns)) + torch.where(running, values, 0.0)
            finals[key] = torch.where(running, values, finals.get(key, values))
    return Evaluation(
        returns.cpu().numpy(),
        lengths.cpu().numpy(),
        terminated.cpu().numpy(),
        pool.take_statistics().failures,
        {key: (total / lengths).cpu().numpy() for key, total in sums.items()},
        {key: values.cpu().numpy() for key, values in finals.items()},
        {key: total.cpu().numpy() for key, total in rewards.items()},
    )


def half_width(values: np.ndarray, confidence: float) -> float:
    """Half the width of the confidence interval of a mean (Student's t); 0 for a single value.

    Args:
        values: (n,) independent.
        confidence: such as 0.95.
    """
    n = len(values)
    if n < 2:
        return 0.0
    from scipy import stats  # half a second of imports that training does not need

    return float(stats.t.ppf(0.5 + 0.5 * confidence, n - 1) * values.std(ddof=1) / np.sqrt(n))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Mean difference of returns from the same starts, (n,) each, and the half-width of its 99% interval."""
    difference = ours - theirs
    return float(difference.mean()), half_width(difference, 0.99)


def record_video(
    agent: Agent, pool: EnvironmentPool, path: Path, size: tuple[int, int] = (640, 480), steps: int | None = None
) -> None:
    """Write a video of the first episode of all environments, until that of environment 0 ends.

    Args:
        agent: acts in it.
        pool: all of its environments are shown, side by side.
        path: of the file; its ending says the format.
        size: width and height, pixels.
        steps: bound on the control steps. None means the episode's.

    Raises:
        ConfigError: there is no OpenGL to draw with, or the episode ends in its first step.
        OSError: the file cannot be written.
    """
    with Video(path, pool.task.robot, pool.task.control_dt, "capture_video=True", size, pool.num_envs) as video:
        for step, running in enumerate(itertools.islice(rollout(agent, pool), steps)):
            if step == 0 and pool.terminated[0]:
                raise ConfigError("capture_video=True: the episode ends in its first step, so there is nothing to show")
            if not running[0] or pool.terminated[0]:
                return
            video.show(pool.simulator.qpos.cpu().numpy())
