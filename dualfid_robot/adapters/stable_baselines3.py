"""Stable-Baselines3's VecEnv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.errors import ConfigError

try:
    from stable_baselines3.common.vec_env import VecEnv
    from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
except ImportError as error:
    raise ConfigError("stable_baselines3 is not installed: pip install stable-baselines3") from error


class StableBaselinesVecEnv(VecEnv):
    """A pool's environments for Stable-Baselines3. Wrap them in its `VecMonitor` to log returns and lengths."""

    def __init__(self, env: PoolVectorEnv) -> None:
        """Wrap an environment.

        Raises:
            ConfigError: an environment that returns tensors.
        """
        if env.tensors:
            raise ConfigError("tensors=True: Stable-Baselines3 works on NumPy arrays; allowed is False")
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin a new episode everywhere, with the seed that `seed` has left. Returns observations (N, columns)."""
        # The library gives each environment a seed of its own. Ours draw from one source of random numbers.
        observations, _ = self.env.reset(seed=self._seeds[0], options=self._options[0])
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember (N, num_actions) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations (N, columns), rewards (N,), ends of episodes (N,) bool, and an info per environment."""
        observations, rewards, terminated, truncated, info = self.env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = terminated | truncated
        for row in ended.nonzero()[0]:
            infos[row]["terminal_observation"] = info["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated[row])
        return observations, rewards, ended, infos

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the vector environment, once for each of the chosen environments."""
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused, because rows of one batch have no attributes of their own."""
        raise NotImplementedError(f"set_attr({attr_name!r}): the environments are rows of one batch")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Refused, because rows of one batch have no methods of their own."""
        raise NotImplementedError(f"env_method({method_name!r}): the environments are rows of one batch")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> Sequence[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]
