"""Random trajectories for the tests of determinism."""

from __future__ import annotations

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool


def random_trajectory(pool: EnvironmentPool, steps: int) -> tuple[Tensor, Tensor]:
    """Last observations and rewards of a pool under always the same random actions; the pool is closed."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        pool.step(torch.randn(pool.num_envs, pool.task.num_actions, generator=generator))
    last = pool.observations.clone(), pool.reward.clone()
    pool.simulator.close()
    return last
