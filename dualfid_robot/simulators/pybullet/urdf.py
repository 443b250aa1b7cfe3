"""A URDF of a robot, written from the model that MuJoCo compiled, for engines that cannot read MJCF well enough.

Links are those of `pybullet.links`. A joint of the URDF is at zero where MuJoCo's is at `qpos0`. Only the feet carry
collision geoms.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.pybullet.links import Link, joint_inertia, make_links, pose_in, quaternion_of, rotation_of

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
        text: the file. Joints bear MuJoCo's names; a link bears the name of its topmost body, and one between the
            joints of a body the names of both, as in "thigh/hip_x".
        inertia: principal moments of each link, armature included, kg m^2. They are in the text too, but a reader may
            refuse them: with a rotor's part, the largest can exceed the sum of the others.
        rotor_inertia: the part of each link's inertia that stands for rotors, (3, 3) along the link's axes, kg m^2.
        mass: of each link, kg.
        bodies: the bodies that each link consists of; none between the joints of a body.
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
    links = make_links(model, feet, child_armature, parent_armature)
    root = ElementTree.Element("robot", name="robot")
    if not robot.floating_base:
        ElementTree.SubElement(root, "link", name="world")
    for link in links:
        _add_link(root, model, link)
        if not _is_free(model, link):
            _add_joint(root, model, link)
    ElementTree.indent(root)
    base = links[0] if robot.floating_base else None
    foot_links = [link for link in links if link.geoms]
    return Urdf(
        text=ElementTree.tostring(root, encoding="unicode"),
        inertia={link.name: tuple(link.moments.tolist()) for link in links},
        rotor_inertia={link.name: link.rotors for link in links},
        mass={link.name: link.mass for link in links},
        bodies={link.name: _bodies(model, link) for link in links},
        joint_inertia=joint_inertia(robot, links, child_armature),
        root_offset=base.com if base else np.zeros(3),
        root_rotation=quaternion_of(base.axes if base else np.eye(3)),
        foot_links=tuple(link.name for link in foot_links),
        friction=tuple(_friction(model, link, planes) for link in foot_links),
        planes=tuple(_plane(model, geom, feet) for geom in planes),
    )


def _bodies(model: mujoco.MjModel, link: Link) -> tuple[str, ...]:
    if not link.whole:
        return ()
    return tuple(model.body(i).name for i in np.flatnonzero(model.body_weldid == link.body))


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
        if model.jnt_stiffnesspoly[i].any() or model.dof_dampingpoly[dof].any():
            refuse("joint", name, "a nonlinear spring or damper")
        if model.jnt_type[i] == _JOINT.mjJNT_SLIDE and model.dof_armature[dof]:
            refuse("joint", name, "armature of a slide joint")
        if model.jnt_limited[i] and model.jnt_margin[i]:
            refuse("joint", name, "a margin of the limits")
    Actuators.from_robot(robot)


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
    trees = model.body_rootid[model.geom_bodyid]
    for a, b in itertools.combinations(feet, 2):
        if trees[a] != trees[b] and _touch(model, a, b):
            names = f"{model.geom(a).name}, {model.geom(b).name}"
            raise ConfigError(f"{robot.path.name}: geoms {names}: feet can only touch planes, not one another")
    feet = [i for i in feet if any(_touch(model, i, other) for other in static)]
    ground = [i for i in static if any(_touch(model, i, foot) for foot in feet)]
    for geom in ground:
        if model.geom_type[geom] != _GEOM.mjGEOM_PLANE:
            raise ConfigError(f"{robot.path.name}: geom {model.geom(geom).name}: feet can only touch planes")
    return feet, ground


def _add_link(root: ElementTree.Element, model: mujoco.MjModel, link: Link) -> None:
    element = ElementTree.SubElement(root, "link", name=link.name)
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
        position, rotation = pose_in(model, int(model.geom_bodyid[geom]), link.body)
        position = link.axes.T @ (position + rotation @ model.geom_pos[geom] - link.anchor)
        rotation = link.axes.T @ rotation @ rotation_of(model.geom_quat[geom])
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


def _add_joint(root: ElementTree.Element, model: mujoco.MjModel, link: Link) -> None:
    """Add the joint above a link; no parent means the world."""
    joint, parent = link.joint, link.parent
    position, rotation = np.zeros(3), np.eye(3)  # of the link's body in the parent's
    if parent is None or parent.body != link.body:
        above = int(model.body_parentid[link.body])
        position, rotation = pose_in(model, above, parent.body if parent else 0)
        position = position + rotation @ model.body_pos[link.body]
        rotation = rotation @ rotation_of(model.body_quat[link.body])
    anchor, axes = (parent.anchor, parent.axes) if parent else (np.zeros(3), np.eye(3))

    slide, limited = model.jnt_type[joint] == _JOINT.mjJNT_SLIDE, bool(model.jnt_limited[joint])
    kind = "prismatic" if slide else "revolute" if limited else "continuous"
    element = ElementTree.SubElement(root, "joint", name=model.joint(joint).name, type=kind)
    ElementTree.SubElement(element, "parent", link=parent.name if parent else "world")
    ElementTree.SubElement(element, "child", link=link.name)
    _add_origin(element, axes.T @ (position + rotation @ link.anchor - anchor), axes.T @ rotation @ link.axes)
    ElementTree.SubElement(element, "axis", xyz=_numbers(link.axes.T @ model.jnt_axis[joint]))
    if limited or slide:
        # A lower limit above the upper one is Bullet's way to say that there is none.
        lower, upper = model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]] if limited else (1.0, -1.0)
        values = {"lower": lower, "upper": upper, "effort": 0.0, "velocity": 0.0}
        ElementTree.SubElement(element, "limit", {key: repr(float(value)) for key, value in values.items()})


def _friction(model: mujoco.MjModel, link: Link, planes: list[int]) -> float:
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


def _is_free(model: mujoco.MjModel, link: Link) -> bool:
    return bool(model.jnt_type[link.joint] == _JOINT.mjJNT_FREE)


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
