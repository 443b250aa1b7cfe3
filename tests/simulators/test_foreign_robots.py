"""Gymnasium's robots, in every engine: each moves for a second, or is refused by the name of an element."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from engines_under_test import Make, on_every_engine, refused, skip_missing

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.foreign import drive_for_a_second, gymnasium_robots

pytest.importorskip("gymnasium", reason="Gymnasium, whose robots these are, is not installed")

ROBOTS = gymnasium_robots()


def cases() -> list[Any]:
    """Each engine with each robot. MuJoCo Warp compiles kernels for each robot's size, which takes its time."""
    found = []
    for engine in on_every_engine():
        for robot in ROBOTS:
            slow = [pytest.mark.slow] if "warp" in engine.id and robot not in CASES[engine.id].refuses else []
            found.append(pytest.param(engine.id, robot, marks=[*engine.marks, *slow]))
    return found


@pytest.mark.parametrize(("engine", "robot"), cases())
def test_it_moves_or_is_refused(engine: str, robot: str, make: Make) -> None:
    skip_missing(engine)
    with refused(engine, robot):
        drive_for_a_second(partial(make, engine), ROBOTS[robot])


def test_elements_without_a_name_get_one() -> None:
    ant = ROBOTS["ant"]
    assert all(ant.body_names)
    assert len(set(ant.actuator_names)) == ant.model.nu == 8
    for name in ant.feet:  # the bodies of the ankles
        assert ant.model.joint(int(ant.model.body(name).jntadr[0])).name.startswith("ankle")
