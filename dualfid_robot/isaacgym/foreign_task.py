"""Isaac Gym tasks of other people's repositories as tasks of ours: a class of theirs, a simulation for each pool."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.task import ActionMapping, TaskConfig, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.feet import foot_settings
from dualfid_robot.isaacgym.pool import GymPool, Origin
from dualfid_robot.isaacgym.provide import provide
from dualfid_robot.isaacgym.session import Session, check_feet, using
from dualfid_robot.isaacgym.styles import Facts, find_style
from dualfid_robot.isaacgym.their_code import find
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings, require_number

_OBSERVATION, _PRIVILEGED = "observation", "privileged"


@dataclass(frozen=True)
class GymTaskConfig(TaskConfig):
    """Which class it is. `episodeLength`, `clipObservations` and `clipActions` are what the class says.

    Attributes:
        interface: a file of `isaacgym/styles`, without its suffix.
        folders: where its modules and files are. They come first in `sys.path`.
        taskClass: the class, as `module:name` or `file.py:name`.
        taskConfig: its configuration: for legged_robot a class, for vec_task a YAML file.
        settings: what is changed in that.
        measures: names of figures of merit besides the return. Each is a tensor (N,) of the class, or a method without
            arguments that gives one.
        feet: parts of the names of bodies that keep contacts in an engine with reduced contacts.
        armatureFloor: least armature of joints under explicit efforts, kg m² (hinge) or kg (slide).
    """

    interface: str = ""
    folders: tuple[str, ...] = ()
    taskClass: str = ""
    taskConfig: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    feet: tuple[str, ...] = ("foot", "ankle")
    armatureFloor: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("armatureFloor", self.armatureFloor, 0.0, 100.0)
        check_feet("feet", self.feet)


@dataclass(frozen=True)
class _Probe:
    """What one environment of a class shows before any pool is built."""

    origin: Origin
    facts: Facts
    physics_dt: float
    robot: RobotModel


class GymTask(ForeignTask):
    """A task of Isaac Gym. Its observation is the class's, and then what that gives to a critic alone."""

    Config = GymTaskConfig
    config: GymTaskConfig

    @classmethod
    def described(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        facts, robot = (probe := _probe(settings)).facts, probe.robot
        own: dict[str, dict[str, Any]] = {
            "env": {
                "episodeLength": facts.episode_length,
                "clipObservations": facts.clip_observations,
                "clipActions": facts.clip_actions,
            },
            "asset": {"assetFileName": str(settings["env"]["taskClass"]), "feet": list(robot.feet)},
            "sim": {"dt": facts.control_dt},
        }
        for section, values in own.items():
            for key, value in values.items():
                given = (settings.get(section) or {}).get(key, value)
                if given != value:
                    raise ConfigError(
                        f"task.{section}.{key}={given}: their class says {value}; change it in task.env.settings"
                    )
        simulators = {name: dict(values) for name, values in (settings.get("simulators") or {}).items()}
        for name, values in foot_settings(robot).items():
            simulators[name] = values | simulators.get(name, {})
        return dict(settings) | own | {"env": dict(settings["env"]) | own["env"], "simulators": simulators}

    @classmethod
    def load_robot(cls, settings: Mapping[str, Any]) -> RobotModel:
        return _probe(settings).robot

    def __init__(self, config: GymTaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        if self.device.type != "cpu":
            raise ConfigError(f"sim_device={device}: tasks of isaacgym are simulated on the CPU; allowed is cpu")
        probe = _probe({"env": _as_settings(config)})
        self._origin, self._facts, self._physics_dt = probe.origin, probe.facts, probe.physics_dt
        self.terms = (Term(_OBSERVATION, self._facts.num_observations),)
        privileged = self._facts.num_privileged
        self.privileged_terms = (Term(_PRIVILEGED, privileged),) if privileged else ()
        self.action_mapping = ActionMapping("what their class makes of it", clip=self._facts.clip_actions)

    @property
    def name(self) -> str:
        return self.config.taskClass

    @property
    def substeps(self) -> int:
        return round(self.control_dt / self._physics_dt)

    @property
    def num_actions(self) -> int:
        return self._facts.num_actions

    def make_pool(self, simulator: Mapping[str, Any], num_envs: int, seed: int, reward_factor: float = 1.0) -> GymPool:
        return GymPool(self, self._origin, simulator, num_envs, seed, reward_factor)

    def code(self) -> list[type]:
        return [base for base in self._origin.task_class.__mro__ if base.__module__ not in ("builtins", "abc")]


def _as_settings(config: GymTaskConfig) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(config).items()}


def _probe(settings: Mapping[str, Any]) -> _Probe:
    """Build one environment, once for all uses of the same class and configuration."""
    keys = ("interface", "folders", "taskClass", "taskConfig", "settings", "measures", "feet", "armatureFloor")
    env = {key: value for key, value in settings["env"].items() if key in keys}
    return _probed(json.dumps(env, sort_keys=True))


@functools.cache
def _probed(text: str) -> _Probe:
    env = json.loads(text)
    placeholders = {"numEnvs": 1, "episodeLength": 1}
    config: GymTaskConfig = parse_settings(GymTaskConfig, env | placeholders, "task.env")
    for key in ("interface", "taskClass", "taskConfig"):
        if not getattr(config, key):
            raise ConfigError(f"task.env.{key}: is required")
    style = find_style(config.interface)
    folders = [Path(folder).expanduser().absolute() for folder in config.folders]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"task.env.folders={folder}: no such folder")
    provide(replace=True)  # who names the task asks for it
    session = Session(feet=config.feet, armature_floor=config.armatureFloor, threads=1)
    with using(session):
        task_class = find("task.env.taskClass", config.taskClass, folders)
        if not isinstance(task_class, type):
            raise ConfigError(f"task.env.taskClass={config.taskClass}: is not a class")
        origin = Origin(
            style,
            task_class,
            lambda num_envs: style.configure(config.taskConfig, folders, config.settings, num_envs),
            config.measures,
            session,
        )
        env, _ = origin.build(session, 1, seed=0)
        try:
            params = env.sim.params
            return _Probe(origin, style.facts(env), params.dt / params.substeps, env.sim.simulator.robot)
        finally:
            env.sim.simulator.close()


TASK = GymTask
