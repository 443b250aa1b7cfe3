"""Options that an engine honours: it moves as the closed form says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engines_under_test import Make, skip_missing

from dualfid_robot.conformance.worlds import run
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.changes import Changes
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import parameter_problem

SLIDE = '<body><joint type="slide" axis="0 0 1"/><geom size=".1"/></body>'
WEIGHTLESS = '<option><flag gravity="disable"/></option>'


@pytest.mark.parametrize("name", ["mujoco", "mujoco_reduced", "pybullet", "physx"])
def test_a_slide_without_gravity_stays(name: str, make: Make, robot_of: Callable[..., RobotModel]) -> None:
    skip_missing(name)
    for rest, fallen in ((WEIGHTLESS, 0.0), ("", -9.81 * 0.5**2 / 2)):
        simulator = make(name, robot_of(SLIDE, rest), 1)
        run(simulator, 0.5)
        assert float(simulator.qpos[0, 0]) == pytest.approx(fallen, abs=0.05)


def test_gravity_that_is_switched_off_cannot_be_changed(robot_of: Callable[..., RobotModel]) -> None:
    robot = robot_of(SLIDE, WEIGHTLESS)
    assert parameter_problem(robot, "gravity") == "robot.xml switches gravity off (option flag gravity)"
    with pytest.raises(ConfigError, match=r"^changes\.gravity=0\.5: robot\.xml has no gravity$"):
        robot.changed(Changes(gravity=0.5))
