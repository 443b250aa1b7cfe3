"""The contract of a task: pure functions of the state, declared by name, without any engine.

A task file in `tasks/` defines one subclass of `Task`. The observation is an ordered list of named terms and the action
a declared mapping to control units, so that one declaration serves every engine, the exporter and a player on a robot.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import tasks as task_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings, require


@dataclass(frozen=True)
class Term:
    """One named part of the observation.

    Attributes:
        name: unique within the task.
        size: number of columns.
        scale: factor applied to the raw value.
        unit: unit of the raw value.
        frame: frame in which it is expressed, where that matters.
    """

    name: str
    size: int
    scale: float = 1.0
    unit: str = "1"
    frame: str = ""


@dataclass(frozen=True)
class ActionMapping:
    """How an action becomes a control: control = scale * clip(action, -clip, clip) + offset, per actuator.

    Attributes:
        kind: what a control means, such as "torque"; the actuators of the asset say the rest (gear, limits).
    """

    kind: str
    scale: float = 1.0
    offset: float = 0.0
    clip: float = 1.0


@dataclass
class State:
    """What a task may look at, for n worlds (see `simulators.base` for frames and units).

    Attributes:
        qpos: (n, nq).
        qvel: (n, nv).
        contact_wrench: (n, len(contact_bodies), 6).
        action: (n, nu), the clipped action that led here; zero after a reset.
    """

    qpos: Tensor
    qvel: Tensor
    contact_wrench: Tensor
    action: Tensor

    def rows(self, ids: Tensor) -> State:
        """The same for some of the worlds."""
        return State(self.qpos[ids], self.qvel[ids], self.contact_wrench[ids], self.action[ids])


@dataclass(frozen=True)
class TaskConfig:
    """Settings of every task, under IsaacGymEnvs' names.

    Attributes:
        numEnvs: number of environments N when `num_envs` is not given.
        episodeLength: control steps after which an episode is truncated.
        clipObservations: bound on each scaled observation.
        clipActions: bound on each action.
    """

    numEnvs: int
    episodeLength: int
    clipObservations: float = 5.0
    clipActions: float = 1.0

    def __post_init__(self) -> None:
        for key in ("numEnvs", "episodeLength", "clipObservations", "clipActions"):
            require(getattr(self, key) > 0, key, getattr(self, key), "positive")


class Task(ABC):
    """A task: observation, action, reward, termination and initial states as batched functions.

    Attributes:
        Config: dataclass of the settings under `task.env` of the task's YAML.
        terms: the observation, in order.
        action_mapping: from actions to controls.
        contact_bodies: bodies whose contact wrench the task looks at.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    contact_bodies: ClassVar[tuple[str, ...]] = ()
    terms: tuple[Term, ...]
    action_mapping: ActionMapping

    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        self.config = config
        self.robot = robot
        self.control_dt = control_dt
        self.device = torch.device(device)

    @property
    def num_observations(self) -> int:
        """Columns of the observation."""
        return sum(term.size for term in self.terms)

    @property
    def num_actions(self) -> int:
        """Columns of the action: one per actuator, in the model's order."""
        return len(self.robot.actuator_names)

    @abstractmethod
    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Initial qpos (n, nq) and qvel (n, nv) of n episodes."""

    @abstractmethod
    def observe(self, state: State) -> dict[str, Tensor]:
        """The raw value of each term, (n, size) or (n,) where the size is 1; further quantities may be added for the
        reward, under names that are no terms."""

    @abstractmethod
    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        """(n,) bool: the episode ends here for good (not by its time limit)."""

    @abstractmethod
    def reward(self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor) -> Tensor:
        """(n,) reward for the step from `previous_qpos` to `state`."""

    def clip_action(self, action: Tensor) -> Tensor:
        """Actions within the mapping's bounds."""
        return action.clamp(-self.action_mapping.clip, self.action_mapping.clip)

    def control(self, clipped_action: Tensor) -> Tensor:
        """Controls (n, nu) in actuator units."""
        mapping = self.action_mapping
        if mapping.offset == 0.0:
            return clipped_action if mapping.scale == 1.0 else clipped_action * mapping.scale
        return clipped_action * mapping.scale + mapping.offset

    def write_observation(self, observed: Mapping[str, Tensor], out: Tensor) -> None:
        """Scale the terms, put them in their declared order into `out` (n, num_observations) and clip."""
        start = 0
        for term in self.terms:
            value = observed[term.name]
            target = out[:, start : start + term.size]
            torch.mul(value.view(len(out), term.size), term.scale, out=target)
            start += term.size
        out.clamp_(-self.config.clipObservations, self.config.clipObservations)


def uniform(n: int, size: int, half_width: float, generator: torch.Generator) -> Tensor:
    """(n, size) uniform in [-half_width, half_width)."""
    return (torch.rand(n, size, generator=generator, device=generator.device) * 2 - 1) * half_width


def task_names() -> list[str]:
    """Names of the tasks: each module of `tasks/`, in camel case."""
    modules = (module.name for module in pkgutil.iter_modules(task_package.__path__))
    return sorted("".join(part.capitalize() for part in name.split("_")) for name in modules)


def make_task(
    name: str, settings: Mapping[str, Any], robot: RobotModel, control_dt: float, device: torch.device | str = "cpu"
) -> Task:
    """Build the task `name` (class `Ant` in `tasks/ant.py`, say) with the settings of its YAML's `env`.

    Raises:
        ConfigError: an unknown task or setting, or an asset that lacks what the task names.
    """
    if name not in task_names():
        raise ConfigError(f"task={name}: allowed are {task_names()}")
    module = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    cls = getattr(importlib.import_module(f"tasks.{module}"), name)
    config = parse_settings(cls.Config, settings, "task.env")
    return cls(config, robot, control_dt, device)
