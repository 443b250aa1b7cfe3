"""One environment of ours as a plain `gymnasium.Env`, so that other libraries' own code can judge it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from dualfid_robot.adapters.gymnasium import PoolVectorEnv


class SingleEnvironment(gymnasium.Env[np.ndarray, np.ndarray]):
    """Row 0 of a vector environment of size 1; it stays at the end of its episode until it is reset."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, vector: PoolVectorEnv) -> None:
        assert vector.num_envs == 1
        self.vector = vector
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        observations, info = self.vector.reset(seed=seed, options=options)
        return observations[0], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observations, rewards, terminated, truncated, info = self.vector.step(action[None])
        observation = info["final_obs"][0] if info else observations[0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        self.vector.close()
