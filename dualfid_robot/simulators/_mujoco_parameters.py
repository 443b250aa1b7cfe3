"""How per-world parameters change a MuJoCo model; for every engine that runs on such a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError

T = TypeVar("T")

FIELDS = {
    "friction": ("geom_friction", "pair_friction"),
    "mass": ("body_mass", "body_inertia"),
    "damping": ("dof_damping", "dof_dampingpoly"),
    "motor_strength": ("actuator_gainprm", "actuator_biasprm"),
}
"""The fields of the model that a parameter multiplies."""

SLIDING = {"geom_friction": 1, "pair_friction": 2}
"""So many leading columns of these fields are sliding friction."""

_LINEAR_GAINS = {int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)}
_LINEAR_BIASES = {int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)}


_SNAPSHOT = "parameter/"  # keeps the parameters' names apart from those of MuJoCo's state


def snapshot_names(values: Mapping[str, T]) -> dict[str, T]:
    """Values by parameter, under the names that they have in a simulator's snapshot."""
    return {_SNAPSHOT + name: value for name, value in values.items()}


def from_snapshot(snapshot: Mapping[str, T]) -> dict[str, T]:
    """The parameters in a simulator's snapshot, by their own names; what was never set is not in it."""
    return {name.removeprefix(_SNAPSHOT): value for name, value in snapshot.items() if name.startswith(_SNAPSHOT)}


def nominal_values(model: mujoco.MjModel, name: str, num_worlds: int) -> np.ndarray:
    """The asset's values of a parameter for all worlds, (N, …)."""
    if name == "gravity":
        return np.tile(model.opt.gravity, (num_worlds, 1))
    columns = {"mass": (model.nbody - 1,), "motor_strength": (model.nu,)}
    return np.ones((num_worlds, *columns.get(name, ())))


def check_actuators(model: mujoco.MjModel, asset: str) -> None:
    """Raise ConfigError for an actuator whose force is not proportional to its gain and bias parameters."""
    for i in range(model.nu):
        if model.actuator_gaintype[i] not in _LINEAR_GAINS or model.actuator_biastype[i] not in _LINEAR_BIASES:
            raise ConfigError(
                f"parameter=motor_strength: actuator {model.actuator(i).name} of {asset}: its force is not "
                "proportional to its parameters; allowed are fixed and affine gains and biases"
            )
