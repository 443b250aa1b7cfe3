"""A property is a function that builds worlds in an engine and returns a residual. Its docstring explains it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator


class Build(Protocol):
    """Makes a simulator of the engine that is measured."""

    def __call__(
        self, robot: RobotModel, n: int, dt: float = ..., bodies: tuple[str, ...] = ..., **settings: object
    ) -> Simulator: ...


@dataclass(frozen=True)
class Property:
    """Something that an engine is measured by.

    Attributes:
        unit: of the residual. It is empty where it is relative, or compares states with components of several units.
        measure: builds worlds and returns the residual.
        parameter: the per-world parameter without which there is nothing to measure.
        of_one_world: whether it is physics, rather than how the worlds of a batch are kept apart.
    """

    unit: str
    measure: Callable[[Build], float]
    parameter: str | None = None
    of_one_world: bool = True

    @property
    def explanation(self) -> str:
        return " ".join(inspect.getdoc(self.measure).split())  # type: ignore[union-attr]


PROPERTIES: dict[str, Property] = {}
"""By name, in the order of the table."""


def measured(
    name: str, unit: str = "", parameter: str | None = None, of_one_world: bool = True
) -> Callable[[Callable[[Build], float]], Callable[[Build], float]]:
    """Add a function to `PROPERTIES`."""

    def register(measure: Callable[[Build], float]) -> Callable[[Build], float]:
        PROPERTIES[name] = Property(unit, measure, parameter, of_one_world)
        return measure

    return register
