"""A URDF of a robot, written from the model that MuJoCo compiled, for engines that cannot read MJCF well enough.

Links are those of `pybullet.links`. A joint of the URDF is at zero where MuJoCo's is at `qpos0`. Only the feet carry
collision geoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.robots.contacts import touching_pairs
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.pybullet.links import Link, joint_inertia, make_links, pose_in, quaternion_of, rotation_of

_JOINT, _GEOM = mujoco.mjtJoint, mujoco.mjtGeom
_ROUND = {int(_GEOM.mjGEOM_SPHERE), int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_CYLINDER)}


MOST_JOINTS = 122
"""Bullet's arrays of degrees of freedom hold 128, of which it keeps six for the base; what is beyond is lost."""


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
        text: the file. Joints bear MuJoCo's names. A link bears the name of its topmost body. A link between the joints
            of a body bears the names of both, as in "thigh/hip_x".
        inertia: principal moments of each link, armature included, kg m^2. They are in the text too, but a reader may
            refuse them. With a rotor's part, the largest can exceed the sum of the others.
        rotor_inertia: the part of each link's inertia that stands for rotors, (3, 3) along the link's axes, kg m^2.
        mass: of each link, kg.
        bodies: the bodies that each link consists of; none between the joints of a body.
        joint_inertia: effective inertia of each joint of `RobotModel.joint_names` at `qpos0`, all others free, armature
            included, kg m^2 or kg.
        root_offset: (3,) centre of mass of a floating root link from the root body's origin, in the body's axes, m.
        root_rotation: (4,) quaternion (w, x, y, z) of the root link's axes in the body's axes.
        foot_links: the links with collision geoms.
        contact_links: these links by the bodies whose contacts they measure: by their own names, and by the body that
            carries all geoms of a link.
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
    contact_links: dict[str, str]
    friction: tuple[float, ...]
    planes: tuple[Plane, ...]


def make_urdf(robot: RobotModel, child_armature: float = 1.0, parent_armature: float = 1.0) -> Urdf:
    """Write the URDF of a robot with one tree of hinge and slide joints. The base floats or is fixed.

    Features that the engine does not have are refused before (`Simulator.check_robot`).

    Args:
        child_armature: factor on each hinge's armature, added to the inertia of the link below about the hinge's axis.
        parent_armature: the same for the link above.

    Raises:
        ConfigError: names an element of the model that URDF, or an engine that is built from it, cannot express.
    """
    Actuators.from_robot(robot)
    model = robot.model
    if len(robot.joint_names) > MOST_JOINTS:
        joints = f"{len(robot.joint_names)} hinge and slide joints"
        raise ConfigError(f"{robot.path.name}: {joints}: engine pybullet takes at most {MOST_JOINTS}")
    contacts = _ground_contacts(robot)
    links = make_links(model, list(robot.foot_geoms), child_armature, parent_armature)
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
        contact_links={name: link.name for link in foot_links for name in (link.name, *_carrier(model, link))},
        friction=tuple(_friction(model, link, contacts) for link in foot_links),
        planes=tuple(_plane(model, geom, contacts) for geom in np.unique(contacts[:, 1]).tolist()),
    )


def _bodies(model: mujoco.MjModel, link: Link) -> tuple[str, ...]:
    if not link.whole:
        return ()
    return tuple(model.body(i).name for i in np.flatnonzero(model.body_weldid == link.body))


def _carrier(model: mujoco.MjModel, link: Link) -> tuple[str, ...]:
    """The one body that carries all collision geoms of a link, or none."""
    bodies = {str(model.body(model.geom_bodyid[geom]).name) for geom in link.geoms}
    return tuple(bodies) if len(bodies) == 1 else ()


def _ground_contacts(robot: RobotModel) -> np.ndarray:
    """The pairs (pairs, 2) of a foot's geom and the plane that it touches.

    Raises:
        ConfigError: a foot touches something else, or only other moving bodies.
    """
    model, asset, feet = robot.model, robot.path.name, robot.foot_geoms
    static = model.body_weldid[model.geom_bodyid] == 0
    trees = model.body_rootid[model.geom_bodyid]
    found = []
    for a, b in touching_pairs(model).tolist():
        foot, other = (b, a) if static[a] else (a, b)
        name = str(model.geom(other).name)
        if foot not in feet or not (static[other] or other in feet):
            continue
        if static[other]:
            if model.geom_type[other] != _GEOM.mjGEOM_PLANE:
                raise ConfigError(f"{asset}: geom {name}: feet can only touch planes in engine pybullet")
            found.append((foot, other))
        elif trees[foot] != trees[other]:
            names = f"{model.geom(foot).name}, {name}"
            raise ConfigError(
                f"{asset}: geoms {names}: feet can only touch planes, not one another, in engine pybullet"
            )
    pairs = np.array(found, np.int64).reshape(-1, 2)
    planes = np.unique(pairs[:, 1])
    for foot in feet:
        touched = (pairs[:, 0] == foot).sum()
        if touched != len(planes) or not touched:
            raise ConfigError(
                f"{asset}: geom {model.geom(foot).name}: a foot touches every plane or none in engine pybullet, "
                f"and it touches {touched} of {len(planes)}; the file's contype, conaffinity or exclude say so"
            )
    return pairs


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


def _friction(model: mujoco.MjModel, link: Link, contacts: np.ndarray) -> float:
    """Sliding friction between a link's geoms and the ground, by MuJoCo's rules for a pair of geoms."""
    found = set()
    for geom in link.geoms:
        for plane in contacts[contacts[:, 0] == geom, 1].tolist():
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


def _plane(model: mujoco.MjModel, geom: int, contacts: np.ndarray) -> Plane:
    """A plane as feet feel it: MuJoCo's contacts begin at the margin, so the plane is raised by it."""
    margins = {model.geom_margin[geom] + model.geom_margin[i] for i in contacts[contacts[:, 1] == geom, 0]}
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
