"""Evaluation of any agent in any engine, and videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.evaluate.agents import Agent
from dualfid_robot.evaluate.returns import Evaluation
from dualfid_robot.evaluate.video import Video


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
    """Write a video of environment 0's first episode.

    Raises:
        ConfigError: there is no OpenGL to draw with.
    """
    with Video(path, pool.task.robot, pool.task.control_dt, "capture_video=True") as video:
        for running in rollout(agent, pool):
            if not running[0] or pool.terminated[0]:
                return
            video.show(pool.simulator.qpos[0].cpu().numpy())
