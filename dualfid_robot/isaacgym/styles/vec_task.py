"""The base class `VecTask` of IsaacGymEnvs.

Its configuration is a YAML, which may refer to the `config.yaml` of the folder above. A step in which an episode ends
shows its last observation. The next step resets the environment, whatever the action, and shows the first observation
of the next episode.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from torch import Tensor

from dualfid_robot.isaacgym.styles import Facts, Shown, Step, Style, changed
from dualfid_robot.isaacgym.their_code import check_signature, find_file

_ARGUMENTS = (
    "cfg",
    "rl_device",
    "sim_device",
    "graphics_device_id",
    "headless",
    "virtual_screen_capture",
    "force_render",
)
_RUN = {"sim_device": "cpu", "rl_device": "cpu", "pipeline": "cpu", "physics_engine": "physx", "headless": True}
_RESOLVERS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, b: a.lower() == b.lower(),
    "contains": lambda a, b: a.lower() in b.lower(),
    "if": lambda condition, a, b: a if condition else b,
    "resolve_default": lambda default, value: default if value == "" else value,
}


class VecTaskStyle(Style):
    """Built from `cfg, rl_device, sim_device, graphics_device_id, headless, virtual_screen_capture, force_render`."""

    def configure(self, text: str, folders: Sequence[Path], changes: Mapping[str, Any], num_envs: int) -> Any:
        file = find_file("task.env.taskConfig", text, folders)
        for name, function in _RESOLVERS.items():
            OmegaConf.register_new_resolver(name, function, replace=True)
        above = file.parent.parent / "config.yaml"
        run = OmegaConf.load(above) if above.is_file() else OmegaConf.create()
        run = OmegaConf.merge(run, _RUN, {"num_envs": num_envs, "task": OmegaConf.load(file)})
        loaded = cast(dict[str, Any], OmegaConf.to_container(run.task, resolve=True))
        configuration = changed("task.env.settings", loaded, changes)
        configuration["env"]["numEnvs"] = num_envs
        return configuration

    def build(self, task_class: type, configuration: Any) -> Any:
        # IsaacGymEnvs keeps the first simulation of a process for every further task: each pool needs one of its own.
        for base in task_class.__mro__:
            if "EXISTING_SIM" in (names := vars(sys.modules[base.__module__])):
                names["EXISTING_SIM"] = None
        check_signature(task_class, _ARGUMENTS)
        return task_class(configuration, "cpu", "cpu", -1, True, False, False)

    def facts(self, env: Any) -> Facts:
        return Facts(
            env.num_obs,
            env.num_states,
            env.num_actions,
            int(env.max_episode_length),
            float(env.dt * env.control_freq_inv),
            float(env.clip_obs),
            float(env.clip_actions),
        )

    def reset_all(self, env: Any) -> Shown:
        env.reset_buf[:] = 1
        return self.step(env, torch.zeros(env.num_envs, env.num_actions)).shown

    def step(self, env: Any, actions: Tensor) -> Step:
        found, reward, ended, extras = env.step(actions)
        shown = Shown(found["obs"], found.get("states"))
        return Step(shown, shown, reward, ended.bool(), extras["time_outs"].bool())

    def end(self, env: Any, ids: Tensor) -> None:
        env.reset_buf[ids] = 1  # the next step resets them


STYLE = VecTaskStyle()
