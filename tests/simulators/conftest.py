"""Engines under test, and small robots of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines_under_test import Make, on_every_engine, skip_missing

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.robots import DT
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator


@pytest.fixture(params=on_every_engine())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    skip_missing(request.param)
    return str(request.param)


@pytest.fixture
def pybullet() -> None:
    """Skip where PyBullet is not installed."""
    skip_missing("pybullet")


@pytest.fixture
def make() -> Iterator[Make]:
    """make(engine, robot, num_worlds, dt=…, bodies=…, **settings); everything made is closed at the end."""
    made: list[Simulator] = []

    def build(
        engine: str, robot: RobotModel, n: int, dt: float = DT, bodies: tuple[str, ...] = (), **settings: Any
    ) -> Simulator:
        made.append(CASES[engine].build(robot, n, dt, bodies, **settings))
        return made[-1]

    yield build
    for simulator in made:
        simulator.close()


@pytest.fixture
def robot_of(tmp_path: Path) -> Callable[..., RobotModel]:
    """A robot from the text of a worldbody and further sections: robot_of(worldbody, rest, feet=…)."""

    def build(worldbody: str, rest: str = "", feet: tuple[str, ...] = ()) -> RobotModel:
        path = tmp_path / "robot.xml"
        path.write_text(
            f'<mujoco><compiler angle="radian" autolimits="true"/><worldbody>{worldbody}</worldbody>{rest}</mujoco>'
        )
        return RobotModel(path, feet)

    return build
