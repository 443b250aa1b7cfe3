"""The base class `LeggedRobot` of legged_gym, which unitree_rl_gym and humanoid-gym share.

Its configuration is a class with classes in it. A step resets what ended and then shows the next episode's observation.
The last one is computed before the reset (`last_observations.py`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.api import gymapi, gymutil
from dualfid_robot.isaacgym.last_observations import LastObservations, last_shown
from dualfid_robot.isaacgym.styles import Facts, Shown, Step, Style
from dualfid_robot.isaacgym.their_code import check_signature, find

_ARGUMENTS = ("cfg", "sim_params", "physics_engine", "sim_device", "headless")


class LeggedRobotStyle(Style):
    """Built from `cfg, sim_params, physics_engine, sim_device, headless`."""

    def configure(self, text: str, folders: Sequence[Path], changes: Mapping[str, Any], num_envs: int) -> Any:
        configuration = find("task.env.taskConfig", text, folders)()
        _change("task.env.settings", configuration, changes)
        _change("task.env", configuration, {"env": {"num_envs": num_envs}})
        return configuration

    def build(self, task_class: type, configuration: Any) -> Any:
        params = gymapi.SimParams()
        gymutil.parse_sim_config(_as_mapping(configuration.sim), params)
        params.use_gpu_pipeline = params.physx.use_gpu = False
        check_signature(task_class, _ARGUMENTS)
        env = task_class(configuration, params, gymapi.SIM_PHYSX, "cpu", True)
        LastObservations(env, lambda: _clipped(_shown(env), float(env.cfg.normalization.clip_observations)))
        return env

    def facts(self, env: Any) -> Facts:
        limits = env.cfg.normalization
        return Facts(
            env.num_obs,
            env.num_privileged_obs or 0,
            env.num_actions,
            math.ceil(env.max_episode_length) + 1,  # an episode ends in the first step beyond
            float(env.dt),
            float(limits.clip_observations),
            float(limits.clip_actions),
        )

    def reset_all(self, env: Any) -> Shown:
        env.reset()
        return _shown(env)

    def step(self, env: Any, actions: Tensor) -> Step:
        with env.reset_idx.looking() as seen:
            env.step(actions)
        ended = env.reset_buf.bool()
        last = last_shown(seen, ended) if ended.any() else _shown(env)
        return Step(_shown(env), last, env.rew_buf, ended, env.time_out_buf.bool())

    def end(self, env: Any, ids: Tensor) -> None:
        env.reset_idx(ids)


def _shown(env: Any) -> Shown:
    return Shown(env.obs_buf, env.privileged_obs_buf)


def _clipped(shown: Shown, limit: float) -> Shown:
    """Copies, clipped as a step clips them before it returns them."""
    observations, privileged = shown
    return Shown(observations.clip(-limit, limit), None if privileged is None else privileged.clip(-limit, limit))


def _change(where: str, section: Any, changes: Mapping[str, Any]) -> None:
    """Set attributes of a configuration, in nested classes too; the classes themselves stay as they are."""
    for key, change in changes.items():
        if not hasattr(section, key):
            known = [name for name in dir(section) if not name.startswith("_")]
            raise ConfigError(f"{where}.{key}={change}: their configuration has none; allowed are {known}")
        value = getattr(section, key)
        if inspect.isclass(value):
            value = value()
        if isinstance(change, Mapping) and not isinstance(value, Mapping):
            _change(f"{where}.{key}", value, change)
            change = value
        setattr(section, key, change)


def _as_mapping(section: Any) -> dict[str, Any]:
    """A configuration's class as nested mappings."""
    names = [name for name in dir(section) if not name.startswith("_")]
    values = {name: getattr(section, name) for name in names}
    return {
        name: _as_mapping(value) if inspect.isclass(value) or hasattr(value, "__dict__") else value
        for name, value in values.items()
        if not callable(value) or inspect.isclass(value)
    }


STYLE = LeggedRobotStyle()
