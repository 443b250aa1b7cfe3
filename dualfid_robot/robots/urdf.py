"""A URDF of a robot, written from the model that MuJoCo compiled, for engines that cannot read MJCF well enough.

Bodies without a joint are merged into the body that carries them, so that every link but the root has exactly one
joint. A link's frame has its origin at the joint's anchor and its axes along the link's principal axes of inertia. A
joint of the URDF is at zero where MuJoCo's is at `qpos0`. Only the feet carry collision geoms.

URDF knows no armature: rotor inertia a that the joint feels and its links do not, of energy a (w_below - w_above)^2 / 2
with the links' angular velocities about the joint's axis. Two factors replace it by inertia of the two links about that
axis, of energy a (f w_below^2 + g w_above^2) / 2. With f = g = 1 that is exact wherever one of the links does not turn;
a larger g stands for the reaction that a rotor spares a light base.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

_JOINT, _GEOM, _OBJ = mujoco.mjtJoint, mujoco.mjtGeom, mujoco.mjtObj
_ROUND = {int(_GEOM.mjGEOM_SPHERE), int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_CYLINDER)}


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
        inertia: principal moments of each link, armature included, kg m^2. They are in the text too, but a reader may
            refuse them: with a rotor's part, the largest can exceed the sum of the others.
        rotor_inertia: the part of each link's inertia that stands for rotors, (3, 3) along the link's axes, kg m^2.
        mass: of each link, kg.
        bodies: the bodies that each link consists of.
        joint_inertia: effective inertia of each joint of `RobotModel.joint_names` at `qpos0`, all others free, armature
            included, kg m^2 or kg.
        root_offset: (3,) centre of mass of a floating root link from the root body's origin, in the body's axes, m.
        root_rotation: (4,) quaternion (w, x, y, z) of the root link's axes in the body's axes.
        foot_links: the links with collision geoms.
        friction: sliding friction coefficient between each of them and the ground.
        planes: the ground.
    """

    text: str
    inertia: dict[str, tuple[float, float, float]]
    rotor_inertia: dict[str, np.ndarray]
    mass: dict[str, float]
    bodies: dict[str, tuple[str, ...]]
    joint_inertia: np.ndarray
    root_offset: np.ndarray
    root_rotation: np.ndarray
    foot_links: tuple[str, ...]
    friction: tuple[float, ...]
    planes: tuple[Plane, ...]


@dataclass(frozen=True)
class _Link:
    """A body with all that is welded to it.

    Attributes:
        body: its topmost body, whose frame the vectors below are in.
        anchor: (3,) origin of the link's frame: the joint's anchor.
        axes: (3, 3) the link's axes, as columns: principal axes of inertia.
        mass, com, moments: mass, centre of mass (3,), and moments of inertia (3,) about it along the axes.
        rotors: (3, 3) the rotors' part of the inertia, along the axes.
        geoms: those that collide.
    """

    body: int
    anchor: np.ndarray
    axes: np.ndarray
    mass: float
    com: np.ndarray
    moments: np.ndarray
    rotors: np.ndarray
    geoms: tuple[int, ...]


def make_urdf(robot: RobotModel, child_armature: float = 1.0, parent_armature: float = 1.0) -> Urdf:
    """Write the URDF of a robot with one tree of hinge and slide joints, on a floating or a fixed base.

    Args:
        child_armature: factor on each hinge's armature, added to the inertia of the link below about the hinge's axis.
        parent_armature: the same for the link above.

    Raises:
        ConfigError: names an element of the model that URDF, or an engine that is built from it, cannot express.
    """
    _check(robot)
    model = robot.model
    feet, planes = _colliding(robot)
    links = {
        body: _link(model, body, feet, child_armature, parent_armature)
        for body in range(1, model.nbody)
        if model.body_weldid[body] == body
    }
    root = ElementTree.Element("robot", name="robot")
    if not robot.floating_base:
        ElementTree.SubElement(root, "link", name="world")
    for link in links.values():
        _add_link(root, model, link)
        if not _is_free(model, link.body):
            _add_joint(root, model, link, links.get(int(model.body_weldid[model.body_parentid[link.body]])))
    ElementTree.indent(root)
    base = links[int(model.jnt_bodyid[0])] if robot.floating_base else None
    foot_links = [link for link in links.values() if link.geoms]
    names = {model.body(body).name: link for body, link in links.items()}
    return Urdf(
        text=ElementTree.tostring(root, encoding="unicode"),
        inertia={name: tuple(link.moments.tolist()) for name, link in names.items()},
        rotor_inertia={name: link.rotors for name, link in names.items()},
        mass={name: link.mass for name, link in names.items()},
        bodies={
            name: tuple(model.body(i).name for i in np.flatnonzero(model.body_weldid == link.body))
            for name, link in names.items()
        },
        joint_inertia=_joint_inertia(robot, list(links.values())),
        root_offset=base.com if base else np.zeros(3),
        root_rotation=_quaternion(base.axes if base else np.eye(3)),
        foot_links=tuple(model.body(link.body).name for link in foot_links),
        friction=tuple(_friction(model, link, planes) for link in foot_links),
        planes=tuple(_plane(model, geom, feet) for geom in planes),
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
        if model.jnt_type[i] == _JOINT.mjJNT_SLIDE and model.dof_armature[dof]:
            refuse("joint", name, "armature of a slide joint")
        if model.jnt_actfrclimited[i]:
            refuse("joint", name, "actuatorfrcrange")
        if model.jnt_limited[i] and model.jnt_margin[i]:
            refuse("joint", name, "a margin of the limits")
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


def _link(model: mujoco.MjModel, body: int, feet: list[int], child_armature: float, parent_armature: float) -> _Link:
    rotors = _armature(model, body, child_armature, parent_armature)
    parts, inertia = [], rotors.copy()
    for part in np.flatnonzero(model.body_weldid == body):
        position, rotation = _pose_in(model, int(part), body)
        parts.append((model.body_mass[part], position + rotation @ model.body_ipos[part]))
        axes = rotation @ _matrix(model.body_iquat[part])
        inertia += axes @ np.diag(model.body_inertia[part]) @ axes.T
    mass = sum(m for m, _ in parts)
    com = sum((m * p for m, p in parts), np.zeros(3)) / mass
    for m, p in parts:
        d = p - com
        inertia += m * (d @ d * np.eye(3) - np.outer(d, d))
    geoms = tuple(geom for geom in feet if model.body_weldid[model.geom_bodyid[geom]] == body)
    axes = np.linalg.eigh(inertia)[1]
    if geoms:
        # Bullet collides faster with a geom whose frame is the link's inertial frame: let the z axes agree if they can.
        pole = (_pose_in(model, int(model.geom_bodyid[geoms[0]]), body)[1] @ _matrix(model.geom_quat[geoms[0]]))[:, 2]
        axes = np.stack(sorted(axes.T, key=lambda axis: abs(axis @ pole)), 1)
    axes[:, 0] *= np.linalg.det(axes)
    return _Link(
        body=body,
        anchor=np.zeros(3) if _is_free(model, body) else model.jnt_pos[model.body_jntadr[body]].copy(),
        axes=axes,
        mass=float(mass),
        com=com,
        moments=np.diag(axes.T @ inertia @ axes),
        rotors=axes.T @ rotors @ axes,
        geoms=geoms,
    )


def _armature(model: mujoco.MjModel, body: int, child: float, parent: float) -> np.ndarray:
    """Inertia (3, 3) of a body that stands for the rotors of its own hinge and of the hinges that it carries."""
    inertia = np.zeros((3, 3))
    for joint in range(model.njnt):
        below = int(model.jnt_bodyid[joint])
        above = int(model.body_parentid[below])
        armature = model.dof_armature[model.jnt_dofadr[joint]]
        if model.jnt_type[joint] != _JOINT.mjJNT_HINGE:
            continue
        if below == body:
            inertia += child * armature * np.outer(model.jnt_axis[joint], model.jnt_axis[joint])
        if above and model.body_weldid[above] == body:
            axis = _pose_in(model, above, body)[1] @ _matrix(model.body_quat[below]) @ model.jnt_axis[joint]
            inertia += parent * armature * np.outer(axis, axis)
    return inertia


def _joint_inertia(robot: RobotModel, links: list[_Link]) -> np.ndarray:
    """Inverse of the diagonal of the inverse joint-space inertia of the links, by MuJoCo."""
    model = copy.deepcopy(robot.model)
    model.body_mass[1:] = model.body_inertia[1:] = model.dof_armature[:] = 0.0
    for link in links:
        model.body_mass[link.body], model.body_inertia[link.body] = link.mass, link.moments
        model.body_ipos[link.body], model.body_iquat[link.body] = link.com, _quaternion(link.axes)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    dofs = [model.jnt_dofadr[model.joint(name).id] for name in robot.joint_names]
    return 1.0 / model.dof_invweight0[dofs]


def _add_link(root: ElementTree.Element, model: mujoco.MjModel, link: _Link) -> None:
    element = ElementTree.SubElement(root, "link", name=model.body(link.body).name)
    inertial = ElementTree.SubElement(element, "inertial")
    centre = link.axes.T @ (link.com - link.anchor)
    _add_origin(inertial, centre, np.eye(3))
    ElementTree.SubElement(inertial, "mass", value=repr(link.mass))
    moments = dict(zip(("ixx", "iyy", "izz"), link.moments.tolist(), strict=True)) | {
        "ixy": 0.0,
        "ixz": 0.0,
        "iyz": 0.0,
    }
    ElementTree.SubElement(inertial, "inertia", {key: repr(value) for key, value in moments.items()})
    for geom in link.geoms:
        position, rotation = _pose_in(model, int(model.geom_bodyid[geom]), link.body)
        position = link.axes.T @ (position + rotation @ model.geom_pos[geom] - link.anchor)
        rotation = link.axes.T @ rotation @ _matrix(model.geom_quat[geom])
        if int(model.geom_type[geom]) in _ROUND and abs(rotation[2, 2]) > 1 - 1e-9:
            rotation = np.eye(3)
        if np.allclose(position, centre, rtol=0, atol=1e-9):
            position = centre
        collision = ElementTree.SubElement(element, "collision")
        _add_origin(collision, position, rotation)
        _add_shape(ElementTree.SubElement(collision, "geometry"), model, geom)


def _add_shape(geometry: ElementTree.Element, model: mujoco.MjModel, geom: int) -> None:
    size = [float(value) for value in model.geom_size[geom]]
    kind = model.geom_type[geom]
    if kind == _GEOM.mjGEOM_SPHERE:
        ElementTree.SubElement(geometry, "sphere", radius=repr(size[0]))
    elif kind == _GEOM.mjGEOM_CAPSULE:
        ElementTree.SubElement(geometry, "capsule", radius=repr(size[0]), length=repr(2 * size[1]))
    elif kind == _GEOM.mjGEOM_CYLINDER:
        ElementTree.SubElement(geometry, "cylinder", radius=repr(size[0]), length=repr(2 * size[1]))
    elif kind == _GEOM.mjGEOM_BOX:
        ElementTree.SubElement(geometry, "box", size=_numbers(2 * model.geom_size[geom]))
    else:
        name = _GEOM(kind).name.removeprefix("mjGEOM_").lower()
        raise ConfigError(
            f"geom {model.geom(geom).name} of foot {model.body(model.geom_bodyid[geom]).name}: type {name} "
            "cannot be expressed for this engine; allowed are sphere, capsule, cylinder, box"
        )


def _add_joint(root: ElementTree.Element, model: mujoco.MjModel, link: _Link, parent: _Link | None) -> None:
    """Add the joint above a link; no parent means the world."""
    above, body, joint = int(model.body_parentid[link.body]), link.body, int(model.body_jntadr[link.body])
    position, rotation = _pose_in(model, above, parent.body if parent else 0)
    position = position + rotation @ model.body_pos[body]
    rotation = rotation @ _matrix(model.body_quat[body])
    anchor, axes = (parent.anchor, parent.axes) if parent else (np.zeros(3), np.eye(3))

    slide, limited = model.jnt_type[joint] == _JOINT.mjJNT_SLIDE, bool(model.jnt_limited[joint])
    kind = "prismatic" if slide else "revolute" if limited else "continuous"
    element = ElementTree.SubElement(root, "joint", name=model.joint(joint).name, type=kind)
    ElementTree.SubElement(element, "parent", link=model.body(parent.body).name if parent else "world")
    ElementTree.SubElement(element, "child", link=model.body(body).name)
    _add_origin(element, axes.T @ (position + rotation @ link.anchor - anchor), axes.T @ rotation @ link.axes)
    ElementTree.SubElement(element, "axis", xyz=_numbers(link.axes.T @ model.jnt_axis[joint]))
    if limited or slide:
        # A lower limit above the upper one is Bullet's way to say that there is none.
        lower, upper = model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]] if limited else (1.0, -1.0)
        values = {"lower": lower, "upper": upper, "effort": 0.0, "velocity": 0.0}
        ElementTree.SubElement(element, "limit", {key: repr(float(value)) for key, value in values.items()})


def _friction(model: mujoco.MjModel, link: _Link, planes: list[int]) -> float:
    """Sliding friction between a link's geoms and the ground, by MuJoCo's rules for a pair of geoms."""
    found = set()
    for geom in link.geoms:
        for plane in (plane for plane in planes if _touch(model, geom, plane)):
            first, second = model.geom_priority[geom], model.geom_priority[plane]
            deciding = [geom] if first > second else [plane] if second > first else [geom, plane]
            condim = max(model.geom_condim[i] for i in deciding)
            if condim > 3:
                name = model.geom(geom).name
                raise ConfigError(f"geom {name}: condim {condim} cannot be expressed for this engine; allowed are 1, 3")
            found.add(max(float(model.geom_friction[i, 0]) for i in deciding) if condim == 3 else 0.0)
    if len(found) > 1:
        name = model.body(link.body).name
        raise ConfigError(f"body {name}: geoms of one foot with different friction {sorted(found)}")
    return found.pop()


def _plane(model: mujoco.MjModel, geom: int, feet: list[int]) -> Plane:
    """A plane as feet feel it: MuJoCo's contacts begin at the margin, so the plane is raised by it."""
    margins = {model.geom_margin[geom] + model.geom_margin[i] for i in feet if _touch(model, geom, i)}
    if len(margins) > 1:
        raise ConfigError(f"geom {model.geom(geom).name}: feet have different margins {sorted(margins)} to this plane")
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    normal = data.geom_xmat[geom].reshape(3, 3)[:, 2]
    offset = float(normal @ data.geom_xpos[geom]) + margins.pop()
    return Plane((float(normal[0]), float(normal[1]), float(normal[2])), offset)


def _is_free(model: mujoco.MjModel, body: int) -> bool:
    return bool(model.jnt_type[model.body_jntadr[body]] == _JOINT.mjJNT_FREE)


def _pose_in(model: mujoco.MjModel, body: int, ancestor: int) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation matrix of a body in the frame of the ancestor to which it is welded."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        step = _matrix(model.body_quat[body])
        position, rotation = model.body_pos[body] + step @ position, step @ rotation
        body = int(model.body_parentid[body])
    return position, rotation


def _matrix(quat: np.ndarray) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, matrix.ravel())
    return quat


def _add_origin(parent: ElementTree.Element, position: np.ndarray, rotation: np.ndarray) -> None:
    m = rotation
    cosine = math.hypot(m[0, 0], m[1, 0])
    pitch = math.atan2(-m[2, 0], cosine)
    if cosine > 1e-9:
        roll, yaw = math.atan2(m[2, 1], m[2, 2]), math.atan2(m[1, 0], m[0, 0])
    else:  # gimbal lock: only the sum or difference of roll and yaw counts
        roll, yaw = 0.0, math.atan2(-m[0, 1], m[1, 1])
    ElementTree.SubElement(parent, "origin", xyz=_numbers(position), rpy=_numbers(np.array([roll, pitch, yaw])))


def _numbers(values: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)
