"""Physical parameters that differ between worlds."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.conformance.actuation import approach, oscillation, press_limits
from dualfid_robot.conformance.contact import braking
from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import ANT, BENCH, CROOKED, GRAVITY, SERVO, SLED, SPRING, VELOCITY
from dualfid_robot.conformance.worlds import (
    momenta,
    positions,
    put,
    random_states,
    relative,
    run,
    set_parameter,
    velocities,
)
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator


@measured("parameter: friction", parameter="friction")
def parameter_friction(build: Build) -> float:
    """A sled's stopping distances in four worlds with 0.5, 1, 1.5 and 2 times the friction."""
    simulator = build(SLED, 4)
    factors = torch.tensor([0.5, 1.0, 1.5, 2.0])
    set_parameter(simulator, "friction", factors)
    return braking(simulator, factors)


@measured("parameter: mass", parameter="mass")
def parameter_mass(build: Build) -> float:
    """Motors on carts and wheels of 0.5 to 4 times the mass: velocity after half a second, relative. The wheels'
    armature stays."""
    simulator = build(BENCH, 3)
    factors = torch.ones(3, 5)
    factors[:, 1], factors[:, 2] = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([3.0, 2.0, 1.0])
    set_parameter(simulator, "mass", factors)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25]]).expand(3, -1))
    inertia = factors[:, 1:3].double().numpy() * [2.0, 0.5] + [0.0, 0.1]
    expected = np.array([10 * 0.25, -3 * 0.5]) * 0.5 / inertia
    return relative(velocities(simulator)[:, 1:3], expected)


@measured("parameter: damping", parameter="damping")
def parameter_damping(build: Build) -> float:
    """A wheel with 0, 0.5, 1 and 2 times its damping: velocity after a second against exponential decay, relative."""
    simulator = build(BENCH, 4)
    factors = torch.tensor([0.0, 0.5, 1.0, 2.0])
    set_parameter(simulator, "damping", factors)
    qvel = torch.zeros(4, 5)
    qvel[:, 3] = 2.0
    put(simulator, torch.zeros(4, 5), qvel)
    run(simulator, 1.0)
    expected = 2.0 * np.exp(-factors.double().numpy() * 0.5 / 0.5)
    return float(np.abs(velocities(simulator)[:, 3] - expected).max() / 2.0)


@measured("parameter: damping of each joint", parameter="dof_damping")
def parameter_dof_damping(build: Build) -> float:
    """A wheel's exponential decay with 0, 0.5, 1 and 2 times its damping, while other joints have 3 times theirs."""
    simulator = build(BENCH, 4)
    factors = torch.full((4, 5), 3.0)
    factors[:, 3] = torch.tensor([0.0, 0.5, 1.0, 2.0])
    set_parameter(simulator, "dof_damping", factors)
    qvel = torch.zeros(4, 5)
    qvel[:, 3] = 2.0
    put(simulator, torch.zeros(4, 5), qvel)
    run(simulator, 1.0)
    expected = 2.0 * np.exp(-factors[:, 3].double().numpy() * 0.5 / 0.5)
    return float(np.abs(velocities(simulator)[:, 3] - expected).max() / 2.0)


@measured("parameter: stiffness of each joint", parameter="joint_stiffness")
def parameter_joint_stiffness(build: Build) -> float:
    """Carts of 2 kg on springs of 40 N/m with 0.25, 1 and 4 times the stiffness, another on each. Position after half a
    second against its oscillation, relative to the amplitude."""
    simulator = build(SPRING, 3, dt=1e-3, substeps=1)
    factors = torch.tensor([[0.25, 1.0], [1.0, 4.0], [4.0, 0.25]])
    set_parameter(simulator, "joint_stiffness", factors)
    put(simulator, torch.full((3, 2), 0.3), torch.zeros(3, 2))
    run(simulator, 0.5)
    expected = 0.3 * np.cos(np.sqrt(40 * factors.double().numpy() / 2) * 0.5)
    return float(np.abs(positions(simulator) - expected).max() / 0.3)


@measured("parameter: limits of each joint", "rad", parameter="joint_range")
def parameter_joint_range(build: Build) -> float:
    """A floating Ant has full torque both ways, with limits that are 0.3 rad narrower in one world and 0.2 rad wider in
    another: distance of its joints from these limits after half a second."""
    return press_limits(build, torch.tensor([[0.3, -0.3], [-0.2, 0.2]])[:, None].repeat(1, ANT.model.njnt, 1))[1]


@measured("parameter: friction of each geom", parameter="geom_friction")
def parameter_geom_friction(build: Build) -> float:
    """The sled's stopping distances with 1, 1.5 and 2 times the friction of its spheres.

    The floor has half its friction. MuJoCo takes the greater of the two.
    """
    simulator = build(SLED, 3)
    factors = torch.tensor([1.0, 1.5, 2.0])
    each = factors[:, None].repeat(1, SLED.model.ngeom)
    each[:, 0] = 0.5
    set_parameter(simulator, "geom_friction", each)
    return braking(simulator, factors)


@measured("parameter: motor strength", parameter="motor_strength")
def parameter_motor_strength(build: Build) -> float:
    """Motors of 0.5 to 1.5 times the strength, within and beyond their control range: velocity after half a second,
    relative."""
    simulator = build(BENCH, 3)
    factors = torch.tensor([[0.5, 1.5], [1.0, 1.0], [1.25, 0.75]])
    set_parameter(simulator, "motor_strength", factors)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25], [0.5, -0.5], [3.0, -7.0]]))
    ctrl = np.array([[0.5, 0.25], [0.5, -0.5], [1.0, -1.0]])
    expected = (ctrl * factors.double().numpy() * [-3 / 0.6, 10 / 2] * 0.5)[:, ::-1]
    return relative(velocities(simulator)[:, 1:3], expected)


@measured("parameter: gravity", parameter="gravity")
def parameter_gravity(build: Build) -> float:
    """A sled in the air under other gravity in each world: velocity after half a second, relative to the largest."""
    simulator = build(SLED, 3)
    gravity = torch.tensor([[0.0, 0.0, -9.81], [0.0, 0.0, -1.62], [2.0, -1.0, 3.0]])
    set_parameter(simulator, "gravity", gravity)
    qpos = torch.zeros(3, 7)
    qpos[:, 2], qpos[:, 3] = 5.0, 1.0
    put(simulator, qpos, torch.zeros(3, 6))
    run(simulator, 0.5)
    expected = gravity.double().numpy() * 0.5
    return float(np.abs(velocities(simulator)[:, :3] - expected).max() / np.abs(expected).max())


@measured("parameter: com", parameter="com")
def parameter_com(build: Build) -> float:
    """A pendulum at rest whose centre of mass is moved aside, and further down. Angular velocity after a millisecond
    against m g dx over the inertia about the joint, relative."""
    dt = 1e-3
    simulator = build(BENCH, 4, dt=dt, substeps=1)
    offsets = torch.zeros(4, 5, 3)
    offsets[:, 0] = torch.tensor([[0.1, 0.0, 0.0], [-0.05, 0.0, 0.0], [0.1, 0.3, -0.25], [0.0, 0.0, 0.0]])
    set_parameter(simulator, "com", offsets)
    run(simulator, dt)
    dx, dz = offsets[:, 0, 0].double().numpy(), -0.25 + offsets[:, 0, 2].double().numpy()
    expected = 2 * GRAVITY * dx / (0.02 + 2 * (dx**2 + dz**2)) * dt
    return float(np.abs(velocities(simulator)[:, 0] - expected).max() / np.abs(expected).max())


@measured("parameter: com, free fall", "m", parameter="com")
def parameter_com_in_free_fall(build: Build) -> float:
    """In each world every body's centre of mass is moved differently.

    The figure is how far the whole robot's centre is from its parabola, after a second of tumbling.
    """
    simulator = build(CROOKED, 4)
    bodies = len(CROOKED.body_names)
    offsets = 0.05 * torch.randn(4, bodies, 3, generator=torch.Generator().manual_seed(5))
    set_parameter(simulator, "com", offsets)
    put(simulator, *random_states(CROOKED, 4))
    centre, linear, _ = momenta(simulator, offsets)
    assert np.abs(centre - momenta(simulator)[0]).max() > 0.02
    run(simulator, 1.0)
    expected = centre + linear / CROOKED.model.body_subtreemass[0] - np.array([0.0, 0.0, GRAVITY / 2])
    return float(np.abs(momenta(simulator, offsets)[0] - expected).max())


@measured("parameter: servo stiffness", parameter="servo_stiffness")
def parameter_servo_stiffness(build: Build) -> float:
    """The position actuator's load with 0.5, 1 and 2 times the stiffness, and once under a stronger motor besides.
    Distance from the damped oscillation."""
    simulator = build(SERVO, 4)
    stiffness, strength = torch.ones(4, 3), torch.ones(4, 3)
    stiffness[:, 2], strength[3, 2] = torch.tensor([0.5, 1.0, 2.0, 1.5]), 1.2
    set_parameter(simulator, "motor_strength", strength)
    set_parameter(simulator, "servo_stiffness", stiffness)
    kp = 177.65 * (stiffness * strength)[:, 2].double().numpy()
    return oscillation(simulator, kp, 11.31 * strength[:, 2].double().numpy())


@measured("parameter: servo damping", parameter="servo_damping")
def parameter_servo_damping(build: Build) -> float:
    """The loads of the position and the velocity actuator with 0.5, 1 and 2 times the damping. The larger of the
    distances from oscillation and exponential approach; once under a stronger motor besides."""
    damping, strength = torch.ones(4, 3), torch.ones(4, 3)
    damping[:, 2], strength[3, 2] = torch.tensor([0.5, 1.0, 2.0, 1.5]), 1.2
    servo, velocity = build(SERVO, 4), build(VELOCITY, 4)
    for simulator in (servo, velocity):
        set_parameter(simulator, "servo_damping", damping)
        set_parameter(simulator, "motor_strength", strength)
    stronger, factors = strength[:, 2].double().numpy(), (damping * strength)[:, 2].double().numpy()
    return max(oscillation(servo, 177.65 * stronger, 11.31 * factors), approach(velocity, 8.0 * factors))


NEW_PARAMETERS: dict[str, Callable[[RobotModel, int], Tensor]] = {
    "friction": lambda robot, k: torch.linspace(0.3, 0.8, k),
    "mass": lambda robot, k: torch.linspace(0.7, 1.3, k)[:, None].expand(k, len(robot.body_names)).contiguous(),
    "com": lambda robot, k: torch.linspace(-0.02, 0.03, k * len(robot.body_names) * 3).reshape(k, -1, 3),
    "damping": lambda robot, k: torch.linspace(0.5, 2.0, k),
    "dof_damping": lambda robot, k: torch.linspace(0.5, 2.0, k * robot.model.nv).reshape(k, robot.model.nv),
    "joint_stiffness": lambda robot, k: torch.linspace(0.5, 2.0, k * robot.model.njnt).reshape(k, robot.model.njnt),
    "joint_range": lambda robot, k: torch.linspace(-0.1, 0.1, k * robot.model.njnt * 2).reshape(k, -1, 2),
    "geom_friction": lambda robot, k: torch.linspace(0.3, 0.8, k * robot.model.ngeom).reshape(k, robot.model.ngeom),
    "motor_strength": lambda robot, k: torch.linspace(0.5, 1.2, k * robot.model.nu).reshape(k, robot.model.nu),
    "servo_stiffness": lambda robot, k: torch.linspace(0.6, 1.5, k * robot.model.nu).reshape(k, robot.model.nu),
    "servo_damping": lambda robot, k: torch.linspace(1.4, 0.7, k * robot.model.nu).reshape(k, robot.model.nu),
    "gravity": lambda robot, k: torch.tensor([0.5, 0.0, -8.0]).repeat(k, 1),
}
"""Other values of each parameter for k worlds."""


def settable(simulator: Simulator) -> list[str]:
    """The parameters that the engine can set of this robot: factors on servos need one."""
    affine = mujoco.mjtBias.mjBIAS_AFFINE
    servos = bool((simulator.robot.model.actuator_biastype == affine).any())
    return [name for name in simulator.SUPPORTED_PARAMETERS if servos or not name.startswith("servo_")]


def change_parameters(simulator: Simulator, ids: Tensor) -> None:
    """Give worlds other values of everything that the engine can set."""
    for name in settable(simulator):
        values = NEW_PARAMETERS[name](simulator.robot, max(len(ids), 1))[: len(ids)]
        set_parameter(simulator, name, values, ids)
