"""A robot model in the words of the metadata. An exporter writes it down, and a player compares it with its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import cast

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Actuator, Joint, RobotInfo
from dualfid_robot.robots.actuators import Law, actuator_law
from dualfid_robot.robots.model import RobotModel

_POSITIONS = {"free": 7, "ball": 4, "slide": 1, "hinge": 1}  # columns in qpos


def describe_robot(robot: RobotModel, contact_bodies: Sequence[str], file: str) -> RobotInfo:
    """The robot as a whole.

    Args:
        contact_bodies: bodies whose contact wrench the observation looks at.
        file: name of the MJCF in the export's folder.
    """
    model = robot.model
    name = model.names[: model.names.index(b"\0")].decode() or robot.path.stem
    return RobotInfo(name, file, robot.feet, tuple(contact_bodies), robot.floating_base, model.nq, model.nv)


def describe_joints(robot: RobotModel) -> tuple[Joint, ...]:
    """Every joint, free ones included, in the model's order."""
    data = mujoco.MjData(robot.model)
    mujoco.mj_kinematics(robot.model, data)
    return tuple(_joint(robot.model, number, data.xaxis[number]) for number in range(robot.model.njnt))


def _joint(model: mujoco.MjModel, number: int, axis: np.ndarray) -> Joint:
    kind = _name(mujoco.mjtJoint, model.jnt_type[number], "mjJNT_")
    qpos, qvel = int(model.jnt_qposadr[number]), int(model.jnt_dofadr[number])
    limited = model.jnt_limited[number] and _POSITIONS[kind] == 1
    low, high = model.jnt_range[number].tolist() if limited else (None, None)
    return Joint(
        name=model.joint(number).name,
        type=kind,  # type: ignore[arg-type]
        qpos=qpos,
        qvel=qvel,
        default_position=tuple(model.qpos0[qpos : qpos + _POSITIONS[kind]].tolist()),
        low=low,
        high=high,
        armature=float(model.dof_armature[qvel]),
        damping=float(model.dof_damping[qvel]),
        axis=tuple(axis.tolist()) if _POSITIONS[kind] == 1 else (),
    )


def describe_actuators(robot: RobotModel) -> tuple[Actuator, ...]:
    """Every actuator, in the order of controls.

    The gear of a motor is its joint's torque per unit of control. It does not matter what share of that the model calls
    gain. Some actuators do not follow the law of joints' drives. Their gear is the size of their force per unit of
    control.
    """
    return tuple(_actuator(robot, number) for number in range(robot.model.nu))


def _actuator(robot: RobotModel, number: int) -> Actuator:
    model = robot.model
    on_joint = model.actuator_trntype[number] == mujoco.mjtTrn.mjTRN_JOINT
    joint = int(model.actuator_trnid[number, 0])
    control = _range(model.actuator_ctrllimited[number], model.actuator_ctrlrange[number])
    force = _range(model.actuator_forcelimited[number], model.actuator_forcerange[number])
    try:
        law = actuator_law(model, number, robot.path.name)
    except ConfigError:  # it acts on something else than a hinge or slide, or by another law
        law = None
    if law is None:
        arm, gain = float(np.linalg.norm(model.actuator_gear[number])), float(model.actuator_gainprm[number, 0])
        proportional = model.actuator_biastype[number] == mujoco.mjtBias.mjBIAS_NONE
    else:
        arm, gain = float(model.actuator_gear[number, 0]), law.gain
        proportional = law.kind == "motor"
    limits = [abs(arm) * _largest(force)]
    if proportional:
        limits.append(abs(arm * gain) * _largest(control))
    if law is not None:
        limits.append(abs(arm) * law.stall)
    if on_joint and model.jnt_actfrclimited[joint]:
        limits.append(_largest(model.jnt_actfrcrange[joint]))
    return Actuator(
        name=model.actuator(number).name,
        joint=model.joint(joint).name if on_joint else "",
        kind="other" if law is None else law.kind,
        gear=arm * gain if proportional else arm,
        kp=0.0 if law is None else 0.0 - law.bias[1],
        kd=0.0 if law is None else 0.0 - law.bias[2],
        control_low=_bound(control[0]),
        control_high=_bound(control[1]),
        effort_limit=_bound(min(limits)),
        velocity_limit=None if law is None else _speed_without_torque(law, control, arm),
        delay=float(model.actuator_delay[number]),
    )


def _speed_without_torque(law: Law, control: tuple[float, float], arm: float) -> float | None:
    """Joint speed at which the back EMF of a DC motor uses up the largest voltage."""
    if law.kind != "dc motor" or arm == 0.0:
        return None
    if law.drop:
        return law.stall / law.drop / abs(arm)
    commanded_by_voltage = law.bias[1] == 0.0 and law.bias[2] != 0.0
    return _bound(law.gain * _largest(control) / -law.bias[2] / abs(arm)) if commanded_by_voltage else None


def _largest(bounds: Iterable[float]) -> float:
    return max(abs(float(bound)) for bound in bounds)


def _bound(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _range(limited: int, bounds: np.ndarray) -> tuple[float, float]:
    return cast(tuple[float, float], tuple(bounds.tolist())) if limited else (-math.inf, math.inf)


def _name(enum: type, value: int, prefix: str) -> str:
    return str(enum(value).name.removeprefix(prefix).lower())
