"""The links of a robot as Bullet must be told them. There is one above each joint, with the mass of bodies and rotors.

Every link but the root has exactly one joint. Bodies without a joint are merged into the body that carries them. A body
with several joints gets a nearly massless link for each but the last. A link's frame has its origin at the joint's
anchor and its axes along the link's principal axes of inertia.

Bullet knows no armature, the inertia a of a rotor that the joint feels and its links do not. Its energy is
a (w_below - w_above)^2 / 2 with the links' angular velocities about the joint's axis. Two factors f and g replace it by
inertia of the two links about that axis. Its energy is a (f w_below^2 + g w_above^2) / 2. With f = g = 1 that is exact
wherever one of the links does not turn. A larger g stands for the reaction that a rotor spares a light base.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from dualfid_robot.robots.model import RobotModel

_JOINT = mujoco.mjtJoint

_LIGHT = 1e-6
"""Mass and inertia of the links between the joints of one body, relative to the body's."""


@dataclass(frozen=True)
class Link:
    """A body with all that is welded to it, or what stands between two joints of one body.

    Attributes:
        name: in the URDF.
        body: its topmost body, whose frame the vectors below are in.
        joint: the joint above it, the free one of a floating base included.
        parent: the link above that joint. It is None for the root and for the world.
        whole: whether it has the body's mass.
        anchor: (3,) origin of the link's frame: the joint's anchor.
        axes: (3, 3) the link's axes, as columns: principal axes of inertia.
        mass, com, moments: mass, centre of mass (3,), and moments of inertia (3,) about it along the axes.
        rotors: (3, 3) the rotors' part of the inertia, along the axes.
        geoms: those that collide.
    """

    name: str
    body: int
    joint: int
    parent: Link | None
    whole: bool
    anchor: np.ndarray
    axes: np.ndarray
    mass: float
    com: np.ndarray
    moments: np.ndarray
    rotors: np.ndarray
    geoms: tuple[int, ...]


def make_links(model: mujoco.MjModel, feet: list[int], child_armature: float, parent_armature: float) -> list[Link]:
    """The links, parents first; those below hinges and slides are in the order of `RobotModel.joint_names`."""
    links: list[Link] = []
    last: dict[int, Link] = {}  # of each topmost body, the link that has its mass
    for body in np.flatnonzero(model.body_weldid[1:] == np.arange(1, model.nbody)) + 1:
        parent = last.get(int(model.body_weldid[model.body_parentid[body]]))
        first = int(model.body_jntadr[body])
        for joint in range(first, first + int(model.body_jntnum[body])):
            whole = joint == first + model.body_jntnum[body] - 1
            rotors = _armature(model, joint, whole, child_armature, parent_armature)
            parent = _link(model, joint, parent, whole, rotors, feet)
            links.append(parent)
        assert parent is not None
        last[int(body)] = parent
    return links


def _link(
    model: mujoco.MjModel, joint: int, parent: Link | None, whole: bool, rotors: np.ndarray, feet: list[int]
) -> Link:
    body, share = int(model.jnt_bodyid[joint]), 1.0 if whole else _LIGHT
    parts, inertia = [], rotors.copy()
    for part in np.flatnonzero(model.body_weldid == body):
        position, rotation = pose_in(model, int(part), body)
        parts.append((share * model.body_mass[part], position + rotation @ model.body_ipos[part]))
        axes = rotation @ rotation_of(model.body_iquat[part])
        inertia += share * axes @ np.diag(model.body_inertia[part]) @ axes.T
    mass = sum(m for m, _ in parts)
    com = sum((m * p for m, p in parts), np.zeros(3)) / mass
    for m, p in parts:
        d = p - com
        inertia += m * (d @ d * np.eye(3) - np.outer(d, d))
    geoms = tuple(geom for geom in feet if whole and model.body_weldid[model.geom_bodyid[geom]] == body)
    axes = np.linalg.eigh(inertia)[1]
    if geoms:
        # Bullet collides faster with a geom whose frame is the link's inertial frame: let the z axes agree if they can.
        pole = (pose_in(model, int(model.geom_bodyid[geoms[0]]), body)[1] @ rotation_of(model.geom_quat[geoms[0]]))[
            :, 2
        ]
        axes = np.stack(sorted(axes.T, key=lambda axis: abs(axis @ pole)), 1)
    axes[:, 0] *= np.linalg.det(axes)
    name = model.body(body).name
    return Link(
        name=name if whole else f"{name}/{model.joint(joint).name}",
        body=body,
        joint=joint,
        parent=parent,
        whole=whole,
        anchor=model.jnt_pos[joint].copy(),
        axes=axes,
        mass=float(mass),
        com=com,
        moments=np.diag(axes.T @ inertia @ axes),
        rotors=axes.T @ rotors @ axes,
        geoms=geoms,
    )


def _armature(model: mujoco.MjModel, joint: int, whole: bool, child: float, parent: float) -> np.ndarray:
    """Inertia (3, 3) that a link has for rotors, in the body's axes. The rotors are those of its own hinge and of the
    hinges that it carries.

    Args:
        whole: whether the joint is its body's last.
    """
    body = int(model.jnt_bodyid[joint])
    inertia = np.zeros((3, 3))
    if model.jnt_type[joint] == _JOINT.mjJNT_HINGE:
        axis = model.jnt_axis[joint]
        inertia += child * model.dof_armature[model.jnt_dofadr[joint]] * np.outer(axis, axis)
    if not whole:
        carried = [(joint + 1, np.eye(3))]
    else:
        carried = [
            (int(model.body_jntadr[other]), pose_in(model, above, body)[1] @ rotation_of(model.body_quat[other]))
            for other in range(1, model.nbody)
            if model.body_jntnum[other]
            and (above := int(model.body_parentid[other]))
            and model.body_weldid[above] == body
        ]
    for other, rotation in carried:
        if model.jnt_type[other] == _JOINT.mjJNT_HINGE:
            axis = rotation @ model.jnt_axis[other]
            inertia += parent * model.dof_armature[model.jnt_dofadr[other]] * np.outer(axis, axis)
    return inertia


def joint_inertia(robot: RobotModel, links: list[Link], child_armature: float) -> np.ndarray:
    """Inverse of the diagonal of the inverse joint-space inertia of the links, by MuJoCo.

    In its model, which has no links between the joints of a body, the rotors of these remain armature.
    """
    spec = robot.spec()
    for body in spec.bodies:
        body.simple = 0  # MuJoCo would keep the frames in which it compiled a lone body
    model = spec.compile()
    model.body_sameframe[:] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
    model.body_mass[1:] = model.body_inertia[1:] = 0.0
    for link in links:
        dof = model.jnt_dofadr[link.joint]
        if not link.whole:
            model.dof_armature[dof] *= child_armature
            continue
        model.dof_armature[dof] = 0.0
        model.body_mass[link.body], model.body_inertia[link.body] = link.mass, link.moments
        model.body_ipos[link.body], model.body_iquat[link.body] = link.com, quaternion_of(link.axes)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    dofs = [model.jnt_dofadr[model.joint(name).id] for name in robot.joint_names]
    return 1.0 / model.dof_invweight0[dofs]


def pose_in(model: mujoco.MjModel, body: int, ancestor: int) -> tuple[np.ndarray, np.ndarray]:
    """Position and rotation matrix of a body in the frame of the ancestor to which it is welded."""
    position, rotation = np.zeros(3), np.eye(3)
    while body != ancestor:
        step = rotation_of(model.body_quat[body])
        position, rotation = model.body_pos[body] + step @ position, step @ rotation
        body = int(model.body_parentid[body])
    return position, rotation


def rotation_of(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion (w, x, y, z)."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix.reshape(3, 3)


def quaternion_of(matrix: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a rotation matrix (3, 3)."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, matrix.ravel())
    return quat
