"""Actuators and joint limits."""

from __future__ import annotations

import math

import numpy as np
import torch

from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import (
    ANT,
    BENCH,
    DC_MOTOR,
    DELAYED,
    DRONE,
    DT,
    GRAVITY,
    LIMITED,
    SERVO,
    STIFF,
    VELOCITY,
)
from dualfid_robot.conformance.worlds import positions, put, relative, run, set_parameter, standing, step, velocities
from dualfid_robot.simulators.base import Simulator


@measured("actuator gear and sign")
def actuators(build: Build) -> float:
    """Motors of both signs of gear, in another order than the joints, within and beyond their control range. Velocity
    after half a second against gear · control · time / inertia, armature included; relative."""
    simulator = build(BENCH, 2)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25], [7.0, -9.0]]))
    expected = np.array([[10 * 0.25 / 2, -3 * 0.5 / 0.6], [10 * -1 / 2, -3 * 1 / 0.6]]) * 0.5
    return relative(velocities(simulator)[:, 1:3], expected)


@measured("position actuator")
def position_actuator(build: Build) -> float:
    """`<position kp= kv=>` pulls a load to its target, at 1.5 Hz and damping ratio 0.3. Largest distance from the
    damped oscillation within a second, relative to the first."""
    return oscillation(build(SERVO, 1), np.array([177.65]), np.array([11.31]))


def oscillation(simulator: Simulator, kp: np.ndarray, kv: np.ndarray) -> float:
    """Relative distance of the servo's load from its damped oscillation, with a kp and kv for each world."""
    n = simulator.num_worlds
    start, target, mass = -0.2, 0.3, 2.0
    qpos = torch.zeros(n, 5)
    qpos[:, 4] = start
    put(simulator, qpos, torch.zeros(n, 5))
    decay = kv / (2 * mass)
    omega = np.sqrt(kp / mass - decay**2)
    worst = 0.0
    for period in range(1, 61):
        step(simulator, torch.tensor([0.0, 0.0, target]).expand(n, -1))
        t = period * DT
        share = np.exp(-decay * t) * (np.cos(omega * t) + decay / omega * np.sin(omega * t))
        off = positions(simulator)[:, 4] - target - (start - target) * share
        worst = max(worst, float(np.abs(off).max()))
    return worst / (target - start)


@measured("stiff servo")
def stiff_servo(build: Build) -> float:
    """A position actuator of 20.7 Hz and damping ratio 0.2, which explodes if its force is held for 1/60 s. Distance of
    its load from the target after half a second, relative to the first."""
    simulator = build(STIFF, 1)
    run(simulator, 0.5, torch.tensor([[0.0, 0.0, 0.1]]))
    return abs(float(simulator.qpos[0, 4]) / 0.1 - 1)


@measured("velocity actuator")
def velocity_actuator(build: Build) -> float:
    """`<velocity kv=>` takes a load from -1 m/s to 2 m/s with a time constant of 0.25 s. Largest distance from the
    exponential approach within a second, relative to the first."""
    return approach(build(VELOCITY, 1), np.array([8.0]))


def approach(simulator: Simulator, kv: np.ndarray) -> float:
    """Relative distance of the load's velocity from its exponential approach, with a kv for each world."""
    n = simulator.num_worlds
    start, target, mass = -1.0, 2.0, 2.0
    qvel = torch.zeros(n, 5)
    qvel[:, 4] = start
    put(simulator, torch.zeros(n, 5), qvel)
    worst = 0.0
    for period in range(1, 61):
        step(simulator, torch.tensor([0.0, 0.0, target]).expand(n, -1))
        expected = target + (start - target) * np.exp(-kv / mass * period * DT)
        worst = max(worst, float(np.abs(velocities(simulator)[:, 4] - expected).max()))
    return worst / (target - start)


@measured("actuator limits")
def actuator_limits(build: Build) -> float:
    """A position servo at its force range and a velocity servo beyond its control range, both ways. Velocities after
    half a second against constant acceleration and exponential approach, relative."""
    simulator = build(LIMITED, 2)
    run(simulator, 0.5, torch.tensor([[0.0, 0.0, 1.5, 9.0], [0.0, 0.0, -1.5, -7.0]]))
    load = np.array([2.0, -4.0]) / 2.0 * 0.5
    # The spinner's own damping of 0.5 N m s/rad takes a quarter of its velocity and shortens its time constant.
    spinner = np.array([3.0, -1.0]) * 1.5 / 2.0 * (1 - math.exp(-2.0 / 0.5 * 0.5))
    return relative(velocities(simulator)[:, [4, 3]], np.stack([load, spinner], 1))


@measured("DC motor")
def dc_motor(build: Build) -> float:
    """`<dcmotor>` with 8 N at rest, 4 m/s without load and at most 6 N, at several voltages. Largest distance of its
    velocity from the closed form within a second, relative to 4 m/s."""
    simulator = build(DC_MOTOR, 3)
    voltage = torch.tensor([12.0, -6.0, 50.0])
    ctrl = torch.cat([torch.zeros(3, 2), voltage[:, None]], 1)
    u = np.array([1.0, -0.5, 1.0])  # share of full voltage
    stall, free, bound, mass = 8.0, 4.0, 6.0, 2.0
    knee = np.maximum(np.abs(u) - bound / stall, 0.0) * free  # speed up to which the bound holds
    until = knee * mass / bound
    worst = 0.0
    for period in range(1, 61):
        step(simulator, ctrl)
        t = period * DT
        after = np.abs(u) * free - (np.abs(u) * free - knee) * np.exp(-stall / free / mass * (t - until))
        expected = np.sign(u) * np.where(t < until, bound / mass * t, after)
        worst = max(worst, float(np.abs(velocities(simulator)[:, 4] - expected).max()))
    return worst / free


@measured("actuator delay")
def actuator_delay(build: Build) -> float:
    """A motor's controls change every period and act two and a half periods later. Velocity after each of twelve
    periods against the sum of the delayed impulses, relative. Delays count physics steps, so this is exact."""
    simulator = build(DELAYED, 2)
    ctrl = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    worst, peak = 0.0, 0.0
    for period in range(12):
        step(simulator, torch.cat([torch.zeros(2, 2), ctrl[:, period : period + 1]], 1))
        acted = ctrl[:, : max(period - 1, 0)].double().numpy()
        impulses = acted.sum(1) - (acted[:, -1] / 2 if period > 1 else 0.0)  # the last for half a period
        expected = 2.0 * impulses * DT / 2.0
        worst = max(worst, float(np.abs(velocities(simulator)[:, 4] - expected).max()))
        peak = max(peak, float(np.abs(expected).max()))
    return worst / peak


@measured("thrust on sites")
def thrust_on_sites(build: Build) -> float:
    """Rotors are motors on sites of a flying body that leans by 0.5 rad.

    Their thrusts are equal, unequal and too large. Velocities after a millisecond against thrust and torque, relative
    to the largest.
    """
    dt, lean = 1e-3, 0.5
    simulator = build(DRONE, 3, dt=dt, substeps=1)
    qpos = torch.zeros(3, 7)
    qpos[:, 3], qpos[:, 4] = math.cos(lean / 2), math.sin(lean / 2)
    put(simulator, qpos, torch.zeros(3, 6))
    step(simulator, torch.tensor([[3.0, 3.0], [5.0, 2.0], [99.0, -4.0]]))
    thrust = np.array([[3.0, 3.0], [5.0, 2.0], [8.0, 0.0]])
    total, apart = thrust.sum(1), thrust[:, 0] - thrust[:, 1]
    axis = np.array([0.0, -math.sin(lean), math.cos(lean)])
    linear = (total[:, None] * axis / 0.5 - [0.0, 0.0, GRAVITY]) * dt
    zero = np.zeros(3)
    angular = np.stack([0.1 * apart / 0.004, zero, 0.01 * apart / 0.008], 1) * dt
    found = velocities(simulator)
    errors = (
        np.abs(found[:, :3] - linear).max() / np.abs(linear).max(),
        np.abs(found[:, 3:] - angular).max() / (np.abs(angular).max()),
    )
    return float(max(errors))


@measured("joint limits", "rad")
def joint_limits(build: Build) -> float:
    """A floating Ant has full torque both ways for half a second: distance of its joints from their limits then."""
    return press_limits(build)[1]


@measured("joint limits, impact", "rad")
def joint_limits_impact(build: Build) -> float:
    """A floating Ant has full torque both ways: how far a joint overshoots a limit that it hits at full speed."""
    return press_limits(build)[0]


def press_limits(build: Build, moves: torch.Tensor | None = None) -> tuple[float, float]:
    """Largest excess of an Ant's joints over their limits, and distance from them at the end.

    Args:
        moves: (2, joints, 2) of the parameter `joint_range`; none leaves the asset's limits.
    """
    simulator, limits = build(ANT, 2), np.stack([ANT.joint_limits] * 2)
    if moves is not None:
        set_parameter(simulator, "joint_range", moves)
        limits = limits + moves[:, 1:].double().numpy()  # the first joint is the free root
    qpos, qvel = standing(ANT, 2)
    qpos[:, 2] = 5.0
    put(simulator, qpos, qvel)
    ctrl = torch.stack([torch.ones(8), -torch.ones(8)])
    lower, upper = limits[..., 0], limits[..., 1]
    beyond = 0.0
    for _ in range(30):
        step(simulator, ctrl)
        joints = positions(simulator)[:, 7:]
        beyond = max(beyond, float((joints - upper).max()), float((lower - joints).max()))
    return beyond, max(float(np.abs(joints[0] - upper[0]).max()), float(np.abs(joints[1] - lower[1]).max()))
