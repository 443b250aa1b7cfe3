"""What the PhysX engine and its worker processes agree on. It imports neither torch, MuJoCo nor SAPIEN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dualfid_robot.simulators.workers import shared_memory
from dualfid_robot.simulators.workers.joint_drives import JointDrives


@dataclass(frozen=True)
class Pose:
    """A frame in another.

    Attributes:
        position: (3,) m.
        quaternion: (4,) w, x, y, z.
    """

    position: np.ndarray
    quaternion: np.ndarray


@dataclass(frozen=True)
class Part:
    """What one body of the asset adds to a link's mass.

    Attributes:
        body: its place in `RobotModel.body_names`. It is None for mass that no body has.
        mass: kg.
        centre: (3,) centre of mass in the link's frame, m.
        inertia: (3, 3) about that centre, in the link's axes, kg m^2.
        axes: (3, 3) the body's axes in the link's, as columns.
    """

    body: int | None
    mass: float
    centre: np.ndarray
    inertia: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True)
class Shape:
    """A collision shape.

    Attributes:
        body: MuJoCo's number of the body that it belongs to.
        kind, size: a plane (nothing), a sphere (radius), a capsule (radius, half length) or a box (half sizes).
        pose: in its link, or in the world. PhysX's planes look and its capsules lie along x.
        friction: of its material; PhysX averages the two of a pair.
        rest_offset: distance that the shape keeps from others, m. PhysX adds the two of a pair.
        contact_offset: distance at which contacts are made, m; likewise.
        groups: SAPIEN's four words of a collision filter.
    """

    body: int
    kind: Literal["plane", "sphere", "capsule", "box"]
    size: tuple[float, ...]
    pose: Pose
    friction: float
    rest_offset: float
    contact_offset: float
    groups: tuple[int, int, int, int]


@dataclass(frozen=True)
class Joint:
    """The joint above a link.

    Attributes:
        kind: PhysX's name. It turns about or slides along the x axis of the two poses.
        in_parent, in_child: its frame in the two links.
        limits: of PhysX's joint position, infinite where there is none.
        armature, damping, stiffness: kg m^2 or kg; N m s/rad or N s/m; N m/rad or N/m.
        rest: PhysX's joint position at which the spring rests.
    """

    kind: Literal["revolute_unwrapped", "prismatic"]
    in_parent: Pose
    in_child: Pose
    limits: tuple[float, float]
    armature: float
    damping: float
    stiffness: float
    rest: float


@dataclass(frozen=True)
class Link:
    """A link of the articulation: a body with all that is welded to it.

    Attributes:
        body: MuJoCo's number of its topmost body, 0 for the world.
        parent: the number of the link above, None for the root.
        joint: the joint above. It is None for the root.
        parts, shapes: its mass and its collision shapes.
    """

    body: int
    parent: int | None
    joint: Joint | None
    parts: tuple[Part, ...]
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Articulation:
    """A robot and its scene as PhysX is told them.

    Attributes:
        links: parents first; those with joints are in the order of `RobotModel.joint_names`.
        floating: whether the root link is the floating base; else it stands for the world.
        ground: the shapes that do not move.
    """

    links: tuple[Link, ...]
    floating: bool
    ground: tuple[Shape, ...]


@dataclass(frozen=True)
class Spec:
    """What a worker must know.

    Attributes:
        articulation: the robot.
        drives: what acts on its joints besides PhysX's own springs and dampers, which its drives are.
        joint_zero: MuJoCo's positions of the joints where PhysX's are zero.
        contact_table: link and body of each column of the table of contacts. The bodies whose contact wrench is
            measured come first, then the others welded to them.
        contact_links: the links in that table, each once.
        bound: largest magnitude of a state that PhysX may see.
        initial: state (qpos, qvel) that stands in for one that PhysX must not see.
        control_dt, substeps, solver, position_iterations, velocity_iterations, max_depenetration_velocity:
            as the engine's.
        workers, worker: world i belongs to worker i % workers.
        layout: of the shared arrays.
    """

    articulation: Articulation
    drives: JointDrives
    joint_zero: np.ndarray
    contact_table: tuple[tuple[int, int], ...]
    contact_links: tuple[int, ...]
    bound: float
    initial: tuple[np.ndarray, np.ndarray]
    control_dt: float
    substeps: int
    solver: Literal["tgs", "pgs"]
    position_iterations: int
    velocity_iterations: int
    max_depenetration_velocity: float
    workers: int
    worker: int
    layout: shared_memory.Layout
