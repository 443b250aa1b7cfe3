"""rsl_rl's VecEnv."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.errors import ConfigError

try:
    from rsl_rl.env import VecEnv
    from tensordict import TensorDict
except ImportError as error:
    raise ConfigError("rsl_rl is not installed: pip install rsl-rl-lib") from error


class RslRlVecEnv(VecEnv):
    """A pool's environments for rsl_rl's runners.

    The observations are two groups. `critic` adds the task's privileged terms behind the columns of `policy`.
    """

    def __init__(self, env: PoolVectorEnv) -> None:
        """Wrap an environment.

        Raises:
            ConfigError: an environment that returns NumPy arrays.
        """
        if not env.tensors:
            raise ConfigError("tensors=False: rsl_rl works on tensors; allowed is True")
        pool = env.pool
        self.env = env
        self.num_envs = pool.num_envs
        self.num_actions = pool.task.num_actions
        self.max_episode_length = pool.task.config.episodeLength
        self.device = pool.device
        self.cfg = {
            "task": type(pool.task).__name__,
            "engine": pool.simulator.name(),
            "env": dataclasses.asdict(pool.task.config),
        }

    @property
    def episode_length_buf(self) -> Tensor:
        """(N,) steps since each episode began. The runner sets it to spread the time limits."""
        return self.env.pool.episode_step

    @episode_length_buf.setter
    def episode_length_buf(self, steps: Tensor) -> None:
        self.env.pool.episode_step.copy_(steps)

    def get_observations(self) -> TensorDict:
        """The current observations."""
        # Copies, because the next step overwrites the pool's tensor before PPO stores what it acted on.
        critic = self.env.pool.observations.clone()
        policy = critic[:, : self.env.policy_columns]
        return TensorDict({"policy": policy, "critic": critic}, batch_size=[self.num_envs])

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Advance every environment. Returns observations, rewards (N,), ends (N,) bool, and `time_outs` (N,)."""
        _, rewards, terminated, truncated, _ = self.env.step(actions)
        time_outs = {"time_outs": truncated.clone()}
        return self.get_observations(), rewards.clone(), terminated | truncated, time_outs
