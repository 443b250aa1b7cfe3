"""Engines under test, and small robots of our own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import DT, ENGINES

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import make_simulator

Make = Callable[..., Simulator]


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    if request.param == "pybullet":
        pytest.importorskip("pybullet")
    return str(request.param)


@pytest.fixture
def pybullet() -> None:
    """Skip where PyBullet is not installed."""
    if importlib.util.find_spec("pybullet") is None:
        pytest.skip("PyBullet is not installed")


@pytest.fixture
def make() -> Iterator[Make]:
    """make(engine, robot, num_worlds, dt=…, bodies=…, **settings); everything made is closed at the end."""
    made: list[Simulator] = []

    def build(
        engine: str, robot: RobotModel, n: int, dt: float = DT, bodies: tuple[str, ...] = (), **settings: Any
    ) -> Simulator:
        made.append(make_simulator(ENGINES[engine] | settings, robot, n, dt, bodies))
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
