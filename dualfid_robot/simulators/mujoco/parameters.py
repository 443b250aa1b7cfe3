"""How per-world parameters change a MuJoCo model; for every engine that runs on such a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import mujoco
import numpy as np
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import servos
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import nominal_value, parameter_shape

T = TypeVar("T")

_GAINS = ("actuator_gainprm", "actuator_biasprm")

FIELDS = {
    "friction": ("geom_friction", "pair_friction"),
    "mass": ("body_mass", "body_inertia"),
    "damping": ("dof_damping", "dof_dampingpoly"),
    "geom_friction": ("geom_friction",),
    "dof_damping": ("dof_damping", "dof_dampingpoly"),
    "joint_stiffness": ("jnt_stiffness", "jnt_stiffnesspoly"),
    "motor_strength": _GAINS,
    "servo_stiffness": _GAINS,
    "servo_damping": _GAINS,
}
"""The fields of the model that a parameter multiplies, in part or as a whole (`scaled_entries`)."""

INERTIAL = ("mass", "com")
"""Parameters after whose change MuJoCo derives other constants anew."""

_SLIDING = {"geom_friction": 1, "pair_friction": 2}  # so many leading columns of these fields are sliding friction

_SNAPSHOT = "parameter/"  # keeps the parameters' names apart from those of MuJoCo's state


def snapshot_names(values: Mapping[str, T]) -> dict[str, T]:
    """Values by parameter, under the names that they have in a simulator's snapshot."""
    return {_SNAPSHOT + name: value for name, value in values.items()}


def from_snapshot(snapshot: Mapping[str, T]) -> dict[str, T]:
    """The parameters in a simulator's snapshot, by their own names. What was never set is not in it."""
    return {name.removeprefix(_SNAPSHOT): value for name, value in snapshot.items() if name.startswith(_SNAPSHOT)}


def nominal_values(robot: RobotModel, name: str, num_worlds: int) -> np.ndarray:
    """The asset's values of a parameter for all worlds, (N, …)."""
    if name == "gravity":
        return np.tile(robot.model.opt.gravity, (num_worlds, 1))
    return np.full((num_worlds, *parameter_shape(robot, name)), nominal_value(name))


def parameters_of(field: str) -> tuple[str, ...]:
    """The parameters that multiply a field; their factors multiply each other."""
    return tuple(name for name, fields in FIELDS.items() if field in fields)


def scaled_entries(model: mujoco.MjModel, name: str, field: str) -> np.ndarray:
    """Which entries of a field a parameter multiplies: a bool array of the field's shape.

    MuJoCo keeps a servo's gain in gainprm[0]. The factors of length and velocity, negative, are in biasprm[1] and [2]
    (`robots.actuators.servos`).
    """
    nominal = getattr(model, field)
    if name in ("friction", "geom_friction"):
        return np.broadcast_to(np.arange(nominal.shape[1]) < _SLIDING[field], nominal.shape)
    if name not in ("servo_stiffness", "servo_damping"):
        return np.ones(nominal.shape, dtype=bool)
    position, velocity = servos(model)
    entries = np.zeros(nominal.shape, dtype=bool)
    if field == "actuator_gainprm":
        entries[:, 0] = position if name == "servo_stiffness" else velocity
    elif name == "servo_stiffness":
        entries[:, 1] = position
    else:
        entries[:, 2] = position | velocity
    return entries


def check_com(model: mujoco.MjModel, asset: str, offsets: Tensor) -> None:
    """Raise ConfigError for an offset (k, bodies, 3) of a centre of mass that MuJoCo cannot move.

    A lone body may have its joints and its inertia in its own frame. MuJoCo keeps such a body's mass matrix as a
    diagonal.
    """
    for column in np.flatnonzero(model.body_simple[1:]).tolist():
        if offsets[:, column].any():
            raise ConfigError(
                f"parameter=com: body {model.body(column + 1).name} of {asset}: it was compiled with its centre of "
                'mass at its origin for good; allowed with simple="false" in the file'
            )
