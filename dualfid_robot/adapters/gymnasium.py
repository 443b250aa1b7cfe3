"""Gymnasium's VectorEnv: the environments of a pool for everyone else's algorithms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.config.values import check_seed
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError

try:
    from gymnasium.error import ClosedEnvironmentError
    from gymnasium.spaces import Box
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ConfigError("gymnasium is not installed: pip install 'dualfid_robot[gymnasium]'") from error

# A pool keeps every finished episode until its statistics are taken. They are thrown away here now and then. Taking
# them makes the host wait for the device.
_STEPS_BETWEEN_DISCARDS = 256


class PoolVectorEnv(VectorEnv[Any, Any, Any]):
    """The environments of a pool under Gymnasium's contract. One whose episode ends is reset within the same step.

    Observations are the policy's terms. `pool.observations` also has those for a critic alone
    (`Task.privileged_terms`).

    With NumPy arrays, the caller owns everything that `reset` and `step` return. `info` looks as that of Gymnasium's
    `SyncVectorEnv` with `AutoresetMode.SAME_STEP`. It is empty while no episode ends. Otherwise it has an object array
    `final_obs` (None where the episode goes on), its mask `_final_obs`, `final_info` and `_final_info`.

    With tensors, everything but masks is a view of the pool's memory, which the next step overwrites. `info` then
    always has these keys, so that the host need not wait to learn whether an episode ended. `final_obs` has all N rows.
    Only those in `_final_obs` hold values.

    Attributes:
        pool: the environments.
        tensors: whether `reset` and `step` return tensors.
        policy_columns: columns of an observation, the first ones of `pool.observations`.
    """

    def __init__(self, pool: EnvironmentPool, tensors: bool = False) -> None:
        task = pool.task
        self.pool = pool
        self.tensors = tensors
        self.num_envs = pool.num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.policy_columns = task.num_observations - task.num_privileged
        self.single_observation_space = _box(task.config.clipObservations, self.policy_columns)
        self.single_action_space = _box(task.action_mapping.clip, task.num_actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin a new episode everywhere.

        Args:
            seed: of all initial states from now on. None goes on with the random numbers.
            options: there are none.

        Returns:
            Observations (N, columns) and an empty info.

        Raises:
            ConfigError: a seed that is no whole number, or an option.
        """
        self._require_open()
        if options:
            raise ConfigError(f"options={options}: allowed are none")
        if seed is not None:
            check_seed("seed", seed)
            super().reset(seed=seed)
            self.pool.seed(seed)
        self.pool.reset_all()
        return self._out(self._shown(self.pool.observations)), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every environment by one control period.

        Args:
            actions: (N, num_actions), an array or a tensor, clipped to the action space.

        Returns:
            Returns observations (N, columns), rewards (N,), terminations (N,) bool, truncations (N,) bool and info.
            Where an episode ended, the observation is the next episode's.

        Raises:
            ConfigError: actions of another shape.
        """
        self._require_open()
        pool = self.pool
        pool.step(self._as_actions(actions))
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_DISCARDS == 0:
            pool.take_statistics()
        observations = self._shown(pool.observations)
        results = (self._out(x) for x in (observations, pool.reward, pool.terminated, pool.truncated))
        ended = pool.terminated | pool.truncated
        return *results, self._tensor_info(ended) if self.tensors else self._array_info(ended)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the simulator."""
        self.pool.simulator.close()

    def _require_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError(f"{self} is closed")

    def _as_actions(self, actions: Any) -> Tensor:
        tensor = torch.as_tensor(actions, dtype=torch.float32, device=self.pool.device)
        expected = (self.num_envs, self.pool.task.num_actions)
        if tensor.shape != expected:
            raise ConfigError(f"actions of shape {tuple(tensor.shape)}: allowed is {expected}")
        return tensor.detach()

    def _shown(self, observations: Tensor) -> Tensor:
        return observations[:, : self.policy_columns]

    def _out(self, tensor: Tensor) -> Any:
        return tensor if self.tensors else tensor.to("cpu", copy=True).numpy()

    def _tensor_info(self, ended: Tensor) -> dict[str, Any]:
        final = self._shown(self.pool.final_observations)
        return {"final_obs": final, "_final_obs": ended, "final_info": {}, "_final_info": ended}

    def _array_info(self, ended: Tensor) -> dict[str, Any]:
        mask = ended.cpu().numpy()
        if not mask.any():
            return {}
        final = np.full(self.num_envs, None, dtype=object)
        last = self._out(self._shown(self.pool.final_observations)[ended])
        for row, observation in zip(mask.nonzero()[0], last, strict=True):
            final[row] = observation
        return {"final_obs": final, "_final_obs": mask, "final_info": {}, "_final_info": mask.copy()}


def _box(bound: float, size: int) -> Box:
    return Box(-bound, bound, (size,), np.float32)
