"""What the PyBullet engine and its worker processes agree on. It imports neither torch nor PyBullet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualfid_robot.simulators.workers import shared_memory
from dualfid_robot.simulators.workers.joint_drives import JointDrives

IN_BULLET = ("friction", "mass", "damping", "dof_damping", "joint_range")
"""Shared arrays, one row a world, that Bullet must be told: where the shared array `changed` is true."""
PARAMETERS = (*IN_BULLET, "joint_stiffness", "motor_strength", "servo_stiffness", "servo_damping")
"""These and those that the worker itself applies."""


@dataclass(frozen=True)
class Spec:
    """What a worker must know.

    Attributes:
        urdf: the robot's URDF.
        planes: normal and offset of each plane of the ground.
        gravity: m/s^2, world frame.
        floating: whether the base floats.
        mass: of each link, kg. The columns of the shared array `mass` are its keys.
        inertia: principal moments of each link, kg m^2.
        rotor_inertia: the part of them that does not grow with the link's mass.
        root_offset, root_rotation: pose of the root link's principal frame in the root body's frame.
        joint_names: the joints in MuJoCo's order.
        joint_zero: MuJoCo's positions of the joints where the URDF's are zero.
        joint_limits: (joints, 2) MuJoCo's positions of the limits, infinite where there is none.
        joint_inertia: inertia by which a joint's torque is bounded at its limits.
        drives: what acts on the joints. Where it does not change between physics steps, Bullet applies the dampers. It
            then takes all physics steps of a control period at once.
        foot_links, friction: links with collision geoms and the friction coefficient of each.
        contact_links: links whose contact wrench is measured.
        initial: state (qpos, qvel) that stands in for one that Bullet must not see.
        bound: largest magnitude of a state that Bullet may see.
        control_dt, substeps, solver_iterations, contact_stiffness, contact_damping: as the engine's.
        num_worlds, robots_per_client, workers, worker: the division of the worlds.
        layout: of the shared arrays.
    """

    urdf: str
    planes: tuple[tuple[tuple[float, float, float], float], ...]
    gravity: tuple[float, float, float]
    floating: bool
    mass: dict[str, float]
    inertia: dict[str, tuple[float, float, float]]
    rotor_inertia: dict[str, tuple[float, float, float]]
    root_offset: np.ndarray
    root_rotation: np.ndarray
    joint_names: tuple[str, ...]
    joint_zero: np.ndarray
    joint_limits: np.ndarray
    joint_inertia: np.ndarray
    drives: JointDrives
    foot_links: tuple[str, ...]
    friction: tuple[float, ...]
    contact_links: tuple[str, ...]
    initial: tuple[np.ndarray, np.ndarray]
    bound: float
    control_dt: float
    substeps: int
    solver_iterations: int
    contact_stiffness: float
    contact_damping: float
    num_worlds: int
    robots_per_client: int
    workers: int
    worker: int
    layout: shared_memory.Layout
