"""Evaluation of any agent in any engine, and videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imageio.v2 as imageio
import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.runners.agents import Agent

_VIDEO_SIZE = (480, 640)  # height, width
_FRAME_RATE = 30.0  # 1/s


@dataclass(frozen=True)
class Evaluation:
    """Returns of complete episodes, one per environment.

    Attributes:
        returns: (episodes,) undiscounted; lengths: (episodes,) steps.
        terminated: (episodes,) bool: which of them ended for good, not by the time limit.
        failures: worlds that went non-finite meanwhile.
        measures: (episodes,) mean over the episode's steps of each of `Task.measure`.
        final_measures: (episodes,) their values in its last step.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    failures: int
    measures: dict[str, np.ndarray]
    final_measures: dict[str, np.ndarray]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean return (Student's t); degenerate for a single episode."""
        if len(self.returns) < 2:
            return self.mean, self.mean
        from scipy import stats  # half a second of imports that training does not need

        half = stats.t.ppf(0.975, len(self.returns) - 1) * self.returns.std(ddof=1) / np.sqrt(len(self.returns))
        return self.mean - float(half), self.mean + float(half)

    def summary(self) -> dict[str, float]:
        """The figures of a report."""
        low, high = self.interval
        measures = {f"measure_{name}": float(values.mean()) for name, values in self.measures.items()}
        finals = {f"final_{name}": float(values.mean()) for name, values in self.final_measures.items()}
        return (
            measures
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
        """The same for a reader, in one line."""
        low, high = self.interval
        text = (
            f"return {self.mean:.4g} (95% interval {low:.4g} to {high:.4g}, median {np.median(self.returns):.4g}),"
            f" episode length {self.lengths.mean():.1f}, terminated {self.terminated.mean():.0%},"
            f" {len(self.returns)} episodes"
        )
        for name, values in self.measures.items():
            text += f"; {name} {values.mean():.3g}, at the end {self.final_measures[name].mean():.3g}"
        if self.failures:
            text += f"; {self.failures} world(s) went non-finite"
        return text


def rollout(agent: Agent, pool: EnvironmentPool) -> Iterator[Tensor]:
    """Run an agent from fresh initial states for one episode length; yields (N,) bool after each step: the environments
    that were still in their first episode during it."""
    pool.reset_all()
    running = torch.ones(pool.num_envs, dtype=torch.bool, device=pool.device)
    for _ in range(pool.task.config.episodeLength):
        pool.step(agent(pool.observations))
        yield running
        running = running & ~(pool.terminated | pool.truncated)
        if not running.any():
            return


def evaluate(agent: Agent, pool: EnvironmentPool) -> Evaluation:
    """Run one complete episode in each environment of the pool.

    Every environment counts once, so short episodes do not weigh more than long ones.
    """
    returns = torch.zeros(pool.num_envs, dtype=torch.float64, device=pool.device)
    lengths = torch.zeros(pool.num_envs, device=pool.device)
    terminated = torch.zeros(pool.num_envs, dtype=torch.bool, device=pool.device)
    sums: dict[str, Tensor] = {}
    finals: dict[str, Tensor] = {}
    pool.take_statistics()
    for running in rollout(agent, pool):
        returns += torch.where(running, pool.reward, 0.0)
        lengths += running
        terminated |= running & pool.terminated
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
    )


def record_video(agent: Agent, pool: EnvironmentPool, path: Path) -> None:
    """Write a video of environment 0's first episode, drawn in software or on a GPU, without a window.

    Raises:
        ConfigError: there is no OpenGL to draw with.
    """
    robot = pool.task.robot
    stride = max(1, round(1.0 / (pool.task.control_dt * _FRAME_RATE)))
    with _renderer(robot) as renderer, imageio.get_writer(path, fps=1.0 / (stride * pool.task.control_dt)) as video:
        data = mujoco.MjData(robot.model)
        for step, running in enumerate(rollout(agent, pool)):
            if not running[0] or pool.terminated[0]:
                return
            if step % stride == 0:
                data.qpos[:] = pool.simulator.qpos[0].cpu().numpy()
                mujoco.mj_forward(robot.model, data)
                renderer.update_scene(data, camera=0 if robot.model.ncam else -1)
                video.append_data(renderer.render())  # type: ignore[attr-defined]


def _renderer(robot: RobotModel) -> mujoco.Renderer:
    try:
        return mujoco.Renderer(robot.model, *_VIDEO_SIZE)
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        raise ConfigError(
            f"capture_video=True: no OpenGL to draw with ({error}); install EGL (Debian: libegl1 libgl1-mesa-dri), "
            "or set MUJOCO_GL=osmesa with libosmesa6"
        ) from error
