"""How classes of Isaac Gym tasks are built and stepped: one file per base class that repositories share."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from dualfid_robot.errors import ConfigError


class Facts(NamedTuple):
    """What a class says of itself once it is built: columns, steps, s, and bounds on each observation and action.

    `num_privileged` columns are for the critic alone. `episode_length` is the most steps of an episode.
    """

    num_observations: int
    num_privileged: int
    num_actions: int
    episode_length: int
    control_dt: float
    clip_observations: float
    clip_actions: float


class Shown(NamedTuple):
    """Observations (N, ·), and those for the critic alone, (N, ·) or None."""

    observations: Tensor
    privileged: Tensor | None


class Step(NamedTuple):
    """What a step of N environments gave.

    Attributes:
        shown: what the environments show after it.
        last: the last observations of the episodes that ended, in their rows. None where their code loses them.
        reward: (N,).
        ended, timed_out: (N,) bool: which episodes ended, and which of these by their time limit.
    """

    shown: Shown
    last: Shown | None
    reward: Tensor
    ended: Tensor
    timed_out: Tensor


class Style(ABC):
    """One base class of tasks."""

    @abstractmethod
    def configure(self, text: str, folders: Sequence[Path], changes: Mapping[str, Any], num_envs: int) -> Any:
        """Their configuration, which `text` names, with changes and a number of environments.

        Raises:
            ConfigError: it cannot be found, or a change names nothing in it.
        """

    @abstractmethod
    def build(self, task_class: type, configuration: Any) -> Any:
        """The vectorised environment."""

    @abstractmethod
    def facts(self, env: Any) -> Facts: ...

    @abstractmethod
    def reset_all(self, env: Any) -> Shown:
        """Begin an episode everywhere."""

    @abstractmethod
    def step(self, env: Any, actions: Tensor) -> Step:
        """One control step with actions (N, num_actions)."""

    @abstractmethod
    def end(self, env: Any, ids: Tensor) -> None:
        """End the episodes of environments that the engine had to put back."""


def find_style(name: str) -> Style:
    """The style of a name: `STYLE` in its file here.

    Raises:
        ConfigError: there is no such file.
    """
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    if name not in names:
        raise ConfigError(f"task.env.interface={name}: allowed are {names}")
    style: Style = importlib.import_module(f"{__name__}.{name}").STYLE
    return style


def changed(where: str, values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with some of them replaced.

    Raises:
        ConfigError: a change names nothing.
    """
    found = dict(values)
    for key, change in changes.items():
        if key not in found:
            raise ConfigError(f"{where}.{key}={change}: their configuration has none; allowed are {sorted(found)}")
        nested = isinstance(found[key], Mapping) and isinstance(change, Mapping)
        found[key] = changed(f"{where}.{key}", found[key], change) if nested else change
    return found
