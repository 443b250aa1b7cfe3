"""How an engine's feet stand where it makes contacts of springs, for a robot that nobody has fitted to it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dualfid_robot.robots.contacts import touching_pairs
from dualfid_robot.robots.model import RobotModel

_SINKS = 0.002  # m, under the robot's weight on all shapes of its feet
_GRAVITY = 9.81  # m/s²


def foot_settings(robot: RobotModel) -> dict[str, dict[str, Any]]:
    """Values for files of cfg/simulator, by file and setting, as in a task's `simulators`.

    The files' own suit a robot of a kilogram: one of thirty would stand in mud. Each shape is critically damped under
    its part of the mass.
    """
    # As `RobotModel.foot_geoms`, which refuses feet that touch nothing. Here they are merely not asked about.
    model = robot.model
    bodies = model.geom_bodyid[np.unique(touching_pairs(model))]
    shapes = 0
    for foot in robot.feet:
        body = int(model.body(foot).id)
        welded = (model.body_weldid[bodies] == model.body_weldid[body]) & (model.body_weldid[body] != 0)
        shapes += int((bodies == body).sum() or welded.sum())
    if not robot.floating_base or not shapes:
        return {}
    mass = float(model.body_mass.sum()) / shapes
    stiffness = mass * _GRAVITY / _SINKS
    values = {"contact_stiffness": stiffness, "contact_damping": 2 * math.sqrt(stiffness * mass)}
    return {"pybullet": {name: float(f"{value:.3g}") for name, value in values.items()}}
