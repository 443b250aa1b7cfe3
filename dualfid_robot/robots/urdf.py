"""A URDF of a robot, written from the model that MuJoCo compiled, for engines that cannot read MJCF well enough.

Bodies without a joint are merged into the body that carries them, so that every link but the root has exactly one
joint. A link's frame is its joint's frame: the body's axes with their origin at the joint's anchor. A joint of the URDF
is at zero where MuJoCo's is at `qpos0`. Only the feet carry collision geoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

_JOINT, _GEOM, _OBJ = mujoco.mjtJoint, mujoco.mjtGeom, mujoco.mjtObj


@dataclass(frozen=True)
class Plane:
    """A plane of the scene that feet touch.

    Attributes:
        normal: unit normal, world frame.
        offset: distance of the plane from the origin along its normal, m.
    """

    normal: tuple[float, float, float]
    offset: float


@dataclass(frozen=True)
class Urdf:
    """A robot's URDF, and what URDF cannot say.

    Attributes:
        text: the file. Joints bear MuJoCo's names; a link bears the name of its topmost body.
        root_offset: (3,) centre of mass of the root link from the root body's origin, in the body's axes, m.
        root_rotation: (4,) quaternion (w, x, y, z) of the root link's principal axes in the body's axes.
        foot_links: the links with collision geoms.
        friction: sliding friction coefficient between each of them and the ground.
        planes: the ground.
    """

    text: str
    inertia: dict[str, np.ndarray]
    root_offset: np.ndarray
    root_rotation: np.ndarray
    foot_links: tuple[str, ...]
    friction: tuple[float, ...]
    planes: tuple[Plane, ...]


def make_urdf(robot: RobotModel, child_armature: float = 0.0, parent_armature: float = 0.0) -> Urdf:
    """Write the URDF of a robot with one tree of hinge and slide joints, on a floating or a fixed base.

    Raises:
        ConfigError: names an element of the model that URDF, or an engine that is built from it, cannot express.
    """
    _check(robot)
    model = robot.model
    links = [i for i in range(1, model.nbody) if model.body_weldid[i] == i]
    feet, planes = _colliding(robot)
    root = ElementTree.Element("robot", name="robot")
    if not robot.floating_base:
        ElementTree.SubElement(root, "link", name="world")
    root_offset, root_rotation = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    inertia = {}
    for body in links:
        geoms = [geom for geom in feet if model.body_weldid[model.geom_bodyid[geom]] == body]
        com, axes, inertia[model.body(body).name] = _add_link(root, model, body, geoms, _armature(model, body, child_armature, parent_armature))
        if model.jnt_type[model.body_jntadr[body]] == _JOINT.mjJNT_FREE:
            root_offset, root_rotation = com, axes
        else:
            _add_joint(root, model, body)
    foot_links = sorted({int(model.body_weldid[model.geom_bodyid[geom]]) for geom in feet})
    ElementTree.indent(root)
    return Urdf(
        text=ElementTree.tostring(root, encoding="unicode"),
        inertia=inertia,
        root_offset=root_offset,
        root_rotation=root_rotation,
        foot_links=tuple(model.body(body).name for body in foot_links),
        friction=tuple(_friction(model, body, feet, planes) for body in foot_links),
        planes=tuple(_plane(model, geom) for geom in planes),
    )


def _check(robot: RobotModel) -> None:
    """Refuse what the conversion would lose."""
    model = robot.model

    def refuse(kind: str, name: str, problem: str) -> None:
        raise ConfigError(f"{robot.path.name}: {kind} {name}: {problem} cannot be expressed for this engine")

    for kind, count, type_ in (
        ("tendon", model.ntendon, _OBJ.mjOBJ_TENDON),
        ("equality", model.neq, _OBJ.mjOBJ_EQUALITY),
        ("contact pair", model.npair, _OBJ.mjOBJ_PAIR),
        ("flex", model.nflex, _OBJ.mjOBJ_FLEX),
    ):
        if count:
            refuse(kind, mujoco.mj_id2name(model, type_, 0) or "0", f"a {kind}")
    if model.opt.density or model.opt.viscosity:
        refuse("option", "density, viscosity", "a fluid")
    for i in range(1, model.nbody):
        body = model.body(i)
        moves = model.body_weldid[i] != 0
        if moves and model.body_jntnum[i] > 1:
            refuse("body", body.name, "several joints in one body")
        if moves and model.body_gravcomp[i]:
            refuse("body", body.name, "gravity compensation")
        if model.body_mocapid[i] >= 0:
            refuse("body", body.name, "a mocap body")
        if robot.floating_base and moves and model.body_rootid[i] != model.jnt_bodyid[0]:
            refuse("body", body.name, "a second tree of moving bodies beside a floating base")
    for i in range(model.njnt):
        name, dof = model.joint(i).name, model.jnt_dofadr[i]
        if model.jnt_type[i] == _JOINT.mjJNT_BALL:
            refuse("joint", name, "a ball joint")
        if model.jnt_type[i] == _JOINT.mjJNT_FREE and (i > 0 or model.dof_damping[dof : dof + 6].any()):
            refuse("joint", name, "a second or damped free joint")
        if model.jnt_stiffness[i].any():
            refuse("joint", name, "a joint spring")
        if model.dof_frictionloss[dof]:
            refuse("joint", name, "dry friction in a joint")
        if model.jnt_actfrclimited[i]:
            refuse("joint", name, "actuatorfrcrange")
    for i in range(model.nu):
        if (
            model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT
            or model.actuator_dyntype[i] != mujoco.mjtDyn.mjDYN_NONE
            or model.actuator_gaintype[i] != mujoco.mjtGain.mjGAIN_FIXED
            or model.actuator_biastype[i] != mujoco.mjtBias.mjBIAS_NONE
            or model.jnt_type[model.actuator_trnid[i, 0]] == _JOINT.mjJNT_FREE
            or model.actuator_forcelimited[i]
        ):
            refuse("actuator", model.actuator(i).name, "an actuator other than a plain motor on a hinge or slide joint")


def _touch(model: mujoco.MjModel, a: int, b: int) -> bool:
    types, masks = model.geom_contype, model.geom_conaffinity
    return bool(types[a] & masks[b] or types[b] & masks[a])


def _colliding(robot: RobotModel) -> tuple[list[int], list[int]]:
    """Geoms of feet that touch a static geom of the scene, and those static geoms, which must be planes."""
    model = robot.model
    static = [i for i in range(model.ngeom) if model.body_weldid[model.geom_bodyid[i]] == 0]
    moving = [i for i in range(model.ngeom) if model.body_weldid[model.geom_bodyid[i]] != 0]
    if not robot.feet and any(_touch(model, a, b) for a in moving for b in static):
        raise ConfigError(f"contacts=feet: {robot.path.name} has no feet; name them in the task's asset.feet")
    feet = [i for i in moving if model.body(model.geom_bodyid[i]).name in robot.feet]
    feet = [i for i in feet if any(_touch(model, i, other) for other in static)]
    ground = [i for i in static if any(_touch(model, i, foot) for foot in feet)]
    for geom in ground:
        if model.geom_type[geom] != _GEOM.mjGEOM_PLANE:
            raise ConfigError(f"{robot.path.name}: geom {model.geom(geom).name}: feet can only touch planes")
    return feet, ground


def _add_link(
    root: ElementTree.Element, model: mujoco.MjModel, body: int, geoms: list[int], extra: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add a link of all bodies welded to `body`; its centre of mass and principal axes in the link's frame."""
    anchor = _anchor(model, body)
    inertia = extra.copy()
    parts = []
    for part in np.flatnonzero(model.body_weldid == body):
        position, rotation = _pose_in(model, int(part), body)
        parts.append((model.body_mass[part], position + rotation @ model.body_ipos[part] - anchor))
        axes = rotation @ _matrix(model.body_iquat[part])
        inertia += axes @ np.diag(model.body_inertia[part]) @ axes.T
    mass = sum(m for m, _ in parts)
    com = sum((m * p for m, p in parts), np.zeros(3)) / mass
    for m, p in parts:
        d = p - com
        inertia += m * (d @ d * np.eye(3) - np.outer(d, d))
    quat = model.body_iquat[body].copy()
    if len(parts) > 1 or extra.any():
        principal = np.linalg.eigh(inertia)[1]
        principal[:, 2] *= np.linalg.det(principal)
        mujoco.mju_mat2Quat(quat, principal.ravel())
    moments = np.diag(_matrix(quat).T @ inertia @ _matrix(quat))

    link = ElementTree.SubElement(root, "link", name=model.body(body).name)
    inertial = ElementTree.SubElement(link, "inertial")
    _add_origin(inertial, com, quat)
    ElementTree.SubElement(inertial, "mass", value=repr(float(mass)))
    values = {"ixx": moments[0], "iyy": moments[1], "izz": moments[2], "ixy": 0.0, "ixz": 0.0, "iyz": 0.0}
    if extra.any():
        values["ixx"] = values["iyy"] = values["izz"] = 1.0
    ElementTree.SubElement(inertial, "inertia", {key: repr(float(value)) for key, value in values.items()})
    for geom in geoms:
        _add_collision(link, model, geom, body)
    return com, quat, moments


def _armature(model: mujoco.MjModel, body: int, child: float, parent: float) -> np.ndarray:
    """Inertia about the axes of a link's own hinge and of the hinges of its children that stands for their rotors."""
    inertia = np.zeros((3, 3))
    for joint in range(model.njnt):
        if model.jnt_type[joint] != _JOINT.mjJNT_HINGE:
            continue
        below = int(model.jnt_bodyid[joint])
        armature = model.dof_armature[model.jnt_dofadr[joint]]
        axis = model.jnt_axis[joint]
        if below == body:
            inertia += child * armature * np.outer(axis, axis)
        above = int(model.body_parentid[below])
        if above and model.body_weldid[above] == body:
            axis = _pose_in(model, above, body)[1] @ _matrix(model.body_quat[below]) @ axis
            inertia += parent * armature * np.outer(axis, axis)
    return inertia


def _add_joint(root: ElementTree.Element, model: mujoco.MjModel, body: int) -> None:
    joint = int(model.body_jntadr[body])
    parent = int(model.body_weldid[model.body_parentid[body]])
    position, rotation = _pose_in(model, int(model.body_parentid[body]), parent)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (rotation @ _matrix(model.body_quat[body])).ravel())
    origin = position + rotation @ model.body_pos[body] + _matrix(quat) @ model.jnt_pos[joint] - _anchor(model, parent)

    slide, limited = model.jnt_type[joint] == _JOINT.mjJNT_SLIDE, bool(model.jnt_limited[joint])
    kind = "prismatic" if slide else "revolute" if limited else "continuous"
    element = ElementTree.SubElement(root, "joint", name=model.joint(joint).name, type=kind)
    ElementTree.SubElement(element, "parent", link=model.body(parent).name)
    ElementTree.SubElement(element, "child", link=model.body(body).name)
    _add_origin(element, origin, quat)
    ElementTree.SubElement(element, "axis", xyz=_numbers(model.jnt_axis[joint]))
    if limited or slide:
        # Bullet reads a lower limit above the upper one as no limit.
        lower, upper = model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]] if limited else (1.0, -1.0)
        values = {"lower": lower, "upper": upper, "effort": 0.0, "velocity": 0.0}
        ElementTree.SubElement(element, "limit", {key: repr(float(value)) for key, value in values.items()})


def _add_collision(link: ElementTree.Element, model: mujoco.MjModel, geom: int, body: int) -> None:
    position, rotation = _pose_in(model, int(model.geom_bodyid[geom]), body)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (rotation @ _matrix(model.geom_quat[geom])).ravel())
    collision = ElementTree.SubElement(link, "collision")
    _add_origin(collision, position + rotation @ model.geom_pos[geom] - _anchor(model, body), quat)
    shape = ElementTree.SubElement(collision, "geometry")
    size = [float(value) for value in model.geom_size[geom]]
    kind = model.geom_type[geom]
    if kind == _GEOM.mjGEOM_SPHERE:
        ElementTree.SubElement(shape, "sphere", radius=repr(size[0]))
    elif kind == _GEOM.mjGEOM_CAPSULE:
        ElementTree.SubElement(shape, "capsule", radius=repr(size[0]), length=repr(2 * size[1]))
    elif kind == _GEOM.mjGEOM_CYLINDER:
        ElementTree.SubElement(shape, "cylinder", radius=repr(size[0]), length=repr(2 * size[1]))
    elif kind == _GEOM.mjGEOM_BOX:
        ElementTree.SubElement(shape, "box", size=_numbers(2 * model.geom_size[geom]))
    else:
        name = _GEOM(kind).name.removeprefix("mjGEOM_").lower()
        raise ConfigError(
            f"geom {model.geom(geom).name} of foot {model.body(model.geom_bodyid[geom]).name}: type {name} "
            "cannot be expressed for this engine; allowed are sphere, capsule, cylinder, box"
        )


def _friction(model: mujoco.MjModel, link: int, feet: list[int], planes: list[int]) -> float:
    """Sliding friction between a link's geoms and the ground, by MuJoCo's rules for a pair of geoms."""
    found = set()
    for geom in (geom for geom in feet if model.body_weldid[model.geom_bodyid[geom]] == link):
        for plane in (plane for plane in planes if _touch(model, geom, plane)):
            first, second = model.geom_priority[geom], model.geom_priority[plane]
            deciding = [geom] if first > second else [plane] if second > first else [geom, plane]
            condim = max(model.geom_condim[i] for i in deciding)
            if condim > 3:
                name = model.geom(geom).name
                raise ConfigError(f"geom {name}: condim {condim} cannot be expressed for this engine; allowed are 1, 3")
            found.add(max(float(model.geom_friction[i, 0]) for i in deciding) if condim == 3 else 0.0)
    if len(found) > 1:
        raise ConfigError(f"body {model.body(link).name}: geoms of one foot with different friction {sorted(found)}")
    return found.pop()


def _plane(model: mujoco.MjModel, geom: int) -> Plane:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    normal = data.geom_xmat[geom].reshape(3, 3)[:, 2]
    return Plane(tuple(float(x) for x in normal), float(normal @ data.geom_xpos[geom]))


def _pose_in(model: mujoco.MjModel, body: int, ancestor: int) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation matrix of a body in the frame of the ancestor to which it is welded."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        step = _matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + step @ position, step @ rotation
        body = int(model.body_parentid[body])
    return position, rotation


def _anchor(model: mujoco.MjModel, body: int) -> np.ndarray:
    """Origin of a link's frame in the body's frame; the world and a floating base have no anchor."""
    if body == 0 or model.jnt_type[model.body_jntadr[body]] == _JOINT.mjJNT_FREE:
        return np.zeros(3)
    return model.jnt_pos[model.body_jntadr[body]]


def _matrix(quat: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def _add_origin(parent: ElementTree.Element, position: np.ndarray, quat: np.ndarray) -> None:
    m = _matrix(quat)
    cosine = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], cosine)
    if cosine > 1e-9:
        roll, yaw = math.atan2(m[2, 1], m[2, 2]), math.atan2(m[1, 0], m[0, 0])
    else:  # gimbal lock: only the sum or difference of roll and yaw counts
        roll, yaw = 0.0, math.atan2(-m[0, 1], m[1, 1])
    ElementTree.SubElement(parent, "origin", xyz=_numbers(position), rpy=_numbers(np.array([roll, pitch, yaw])))


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
