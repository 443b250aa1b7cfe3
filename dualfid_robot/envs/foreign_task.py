"""Tasks of other programs, which step a simulation of their own: what the rest of the program needs of them."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

import dualfid_robot as package
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.task import ActionMapping, State, Task, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel


class ForeignTask(Task):
    """A task whose observations, rewards, ends and resets are code of another program's class.

    That class is not asked about a state: it steps its own simulation, which an engine of ours runs. So the task brings
    its own pool, and says about itself what an ordinary task's YAML says. Whatever needs its functions of a state, such
    as an export, is refused by name.
    """

    @classmethod
    @abstractmethod
    def described(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A task's YAML with what the class says of itself: `asset`, `sim` and the rest of `env`.

        Raises:
            ConfigError: the class cannot be found or built, or the YAML says something else than it.
        """

    @classmethod
    @abstractmethod
    def load_robot(cls, settings: Mapping[str, Any]) -> RobotModel:
        """The robot that the class builds, from a described YAML."""

    @abstractmethod
    def make_pool(
        self, simulator: Mapping[str, Any], num_envs: int, seed: int, reward_factor: float
    ) -> EnvironmentPool:
        """A pool of environments of the class in an engine; arguments as for `Experiment.make_pool`."""

    @abstractmethod
    def code(self) -> list[type]:
        """Classes whose modules are the task's code."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What errors call the class."""

    @property
    @abstractmethod
    def substeps(self) -> int:
        """Physics steps of a control period, in every engine: the class sets them."""

    def refuse(self, what: str) -> NoReturn:
        """Refuse what needs the task's functions of a state, or another hand on its worlds.

        Raises:
            ConfigError: says so.
        """
        raise ConfigError(f"{what}: {self.name} keeps its worlds, observations and rewards to itself")

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        self.refuse("initial states")

    def observe(self, state: State) -> dict[str, Tensor]:
        self.refuse("observations of a given state")

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        self.refuse("ends of a given state")

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> NoReturn:
        self.refuse("rewards of a given state")


class RobotTask(Task):
    """A robot alone, for those who measure an engine with it: actions are controls, observations are the state."""

    action_mapping = ActionMapping("control")

    def __init__(self, task: Task) -> None:
        super().__init__(task.config, task.robot, task.control_dt, task.device)
        self.terms = (Term("position", self.robot.model.nq), Term("velocity", self.robot.model.nv))

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = torch.from_numpy(self.robot.model.qpos0).float().repeat(n, 1)
        return qpos, torch.zeros(n, self.robot.model.nv)

    def observe(self, state: State) -> dict[str, Tensor]:
        return {"position": state.qpos, "velocity": state.qvel}

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros(len(state.qpos), dtype=torch.bool)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        return {"none": torch.zeros(len(state.qpos))}


def foreign_task(name: object) -> type[ForeignTask] | None:
    """The class of tasks whose names begin with a package of this program and a dot, such as `isaacgym.Go2`: `TASK` in
    its `foreign_task.py`. None for a name without a dot.

    Raises:
        ConfigError: there is no such package.
    """
    family, dot, _ = str(name).partition(".")
    if not dot:
        return None
    root = Path(package.__path__[0])
    families = sorted(path.parent.name for path in root.glob("*/foreign_task.py") if path.parent.name != "envs")
    if family not in families:
        raise ConfigError(f"task={name}: allowed before the dot are {families}")
    found: type[ForeignTask] = importlib.import_module(f"{package.__name__}.{family}.foreign_task").TASK
    return found


def described(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A task's YAML, completed by its class where that is another program's."""
    found = foreign_task(settings.get("name"))
    return dict(settings) if found is None else found.described(settings)
