"""Engines under test, and small robots of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.robots import DT
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

Make = Callable[..., Simulator]


def on_every_engine() -> list[Any]:
    """The names of all engines, as parameters of a test; those on CUDA are marked `gpu`."""
    marks = {name: [pytest.mark.gpu] if engine.device != "cpu" else [] for name, engine in CASES.items()}
    return [pytest.param(name, marks=marks[name], id=name) for name in CASES]


@pytest.fixture(params=on_every_engine())
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn."""
    skip_missing(request.param)
    return str(request.param)


def skip_missing(engine: str) -> None:
    """Skip where an engine cannot run, and say why."""
    if reason := CASES[engine].missing():
        pytest.skip(f"{engine}: {reason}")


def refused(engine: str, subject: str) -> AbstractContextManager[object]:
    """Expect the refusal that the engine's case announces for a property or a robot, if it announces one."""
    named = CASES[engine].refuses.get(subject)
    return pytest.raises(ConfigError, match=named) if named else contextlib.nullcontext()


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
