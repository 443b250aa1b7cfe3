"""What a robot's file lacks for a simulation: actuators, a floor, a free base that stands on it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from dualfid_robot.robots.importer.decisions import Decisions, few
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.settings import counted

FLOOR = "floor"


@dataclass(frozen=True)
class Drive:
    """A joint that can have an actuator.

    Attributes:
        name: of the joint.
        turns: whether it is a hinge; else a slide.
        range: its limits, rad or m; None: none.
        effort, velocity: largest, N m or N and rad/s or m/s; None: not given.
    """

    name: str
    turns: bool
    range: tuple[float, float] | None
    effort: float | None
    velocity: float | None


def add_actuators(root: ET.Element, drives: Sequence[Drive], options: ImportOptions, decisions: Decisions) -> None:
    """Give joints an actuator whose control is limited, and whose force is limited to the joint's effort."""
    if options.actuators == "none":
        decisions.add("actuators: none, as asked")
        return
    section = root.find("actuator")
    if section is None:
        section = ET.SubElement(root, "actuator")
    made = []
    for drive in drives:
        place = f"joint {drive.name}"
        if not re.fullmatch(options.joints, drive.name):
            decisions.add(f"no actuator: its name does not match joints={options.joints}", place)
            continue
        effort = drive.effort or options.effort
        control = _control(drive, options, decisions)
        if not effort:
            decisions.add("no actuator: its largest effort is not given, or has no bound; effort=… gives it one", place)
        elif control is not None:
            attributes = {"name": drive.name, "joint": drive.name, "ctrllimited": "true", "ctrlrange": _pair(control)}
            if options.actuators == "motor":
                attributes["gear"] = repr(effort)
            else:
                attributes |= {"forcelimited": "true", "forcerange": _pair((-effort, effort))}
                gains = {"kp": options.kp, "kv": options.kd} if options.actuators == "position" else {"kv": options.kd}
                attributes |= {key: repr(gain) for key, gain in gains.items()}
            ET.SubElement(section, options.actuators, attributes)
            made.append(drive.name)
    if not len(section):
        root.remove(section)
    meaning = {
        "motor": "control 1 is the joint's largest effort",
        "position": f"control is a position; kp {options.kp:g}, kd {options.kd:g}",
        "velocity": f"control is a speed; kd {options.kd:g}",
    }[options.actuators]
    if made:
        decisions.add(f"{counted(len(made), 'actuator')} of kind {options.actuators}: {meaning}", few(made))
    limited = [drive.name for drive in drives if drive.velocity and drive.name in made]
    if options.actuators != "velocity" and limited:
        decisions.add("<limit velocity> is not used: only actuators=velocity has a bound on the speed", few(limited))


def _control(drive: Drive, options: ImportOptions, decisions: Decisions) -> tuple[float, float] | None:
    """The range of a drive's control. It is None where it has no bounds to get one from."""
    if options.actuators == "motor":
        return -1.0, 1.0
    if options.actuators == "velocity":
        if drive.velocity:
            return -drive.velocity, drive.velocity
        decisions.add("no actuator: its largest velocity is not given", f"joint {drive.name}")
        return None
    if drive.range is None and drive.turns:
        decisions.add("without limits: its control is limited to [-π, π]", f"joint {drive.name}")
        return -math.pi, math.pi
    if drive.range is None:
        decisions.add("no actuator: a slide without limits has no range of positions", f"joint {drive.name}")
    return drive.range


def _pair(values: tuple[float, float]) -> str:
    return f"{values[0]!r} {values[1]!r}"


def add_ground(root: ET.Element, decisions: Decisions) -> None:
    """Put a plane at z = 0, before everything else in the world."""
    worldbody = root.find("worldbody")
    if worldbody is None:
        worldbody = ET.SubElement(root, "worldbody")
    taken = {geom.get("name") for geom in root.iter("geom")}
    name = next(name for name in (FLOOR, *(f"{FLOOR}_{number}" for number in range(2, 1000))) if name not in taken)
    worldbody.insert(0, ET.Element("geom", name=name, type="plane", size="0 0 1", contype="1", conaffinity="1"))
    decisions.add("a plane at z = 0 is the ground", name)


def lowest_point(model: mujoco.MjModel) -> float:
    """Height of the lowest point of what moves and can touch something, at `qpos0`, m; 0 where nothing can."""
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    heights = [
        data.geom_xpos[geom, 2] - _extent(model, geom, data.geom_xmat[geom].reshape(3, 3)[2])
        for geom in range(model.ngeom)
        if model.body_weldid[model.geom_bodyid[geom]] and (model.geom_contype[geom] or model.geom_conaffinity[geom])
    ]
    return float(min(heights, default=0.0))


def _extent(model: mujoco.MjModel, geom: int, down: np.ndarray) -> float:
    """How far a geom reaches downwards from its centre, given the world's z in its axes: its support function."""
    kind, size = mujoco.mjtGeom(model.geom_type[geom]), model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return float(size[0] + size[1] * abs(down[2]))
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return float(size[0] * math.hypot(down[0], down[1]) + size[1] * abs(down[2]))
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        return float(np.linalg.norm(size * down))
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        return float(-(model.mesh_vert[start : start + model.mesh_vertnum[mesh]] @ down).min())
    return float(np.abs(size * down).sum())


def report_start(model: mujoco.MjModel, decisions: Decisions) -> None:
    """Note what is odd when all joints are at 0: joints out of their range, and links that overlap."""
    for joint in range(model.njnt):
        low, high = model.jnt_range[joint]
        start = model.qpos0[model.jnt_qposadr[joint]]
        scalar = model.jnt_type[joint] in (int(mujoco.mjtJoint.mjJNT_SLIDE), int(mujoco.mjtJoint.mjJNT_HINGE))
        if scalar and model.jnt_limited[joint] and not low <= start <= high:
            decisions.add("0 is out of its range: a task must begin elsewhere", f"joint {model.joint(joint).name}")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_collision(model, data)
    bodies = model.geom_bodyid[data.contact.geom] if data.ncon else np.zeros((0, 2), int)
    for first, second in np.unique(bodies[(data.contact.dist < -1e-6)], axis=0) if data.ncon else ():
        if first and second:
            names = f"{model.body(first).name} and {model.body(second).name}"
            decisions.add("they overlap when all joints are at 0; self_collision=False lets links pass", names)
