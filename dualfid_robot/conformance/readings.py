"""What an engine may tell besides its state, and forces from outside that it may take."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
import torch

from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import BENCH, CROOKED, SLED
from dualfid_robot.conformance.worlds import put, random_states, run, step, velocities
from dualfid_robot.simulators.base import Simulator


@measured("states of bodies")
def states_of_bodies(build: Build) -> float:
    """Poses and velocities of all bodies of tumbling robots against MuJoCo's own functions of the same state."""
    simulator = build(CROOKED, 4)
    put(simulator, *random_states(CROOKED, 4))
    states, worst = simulator.body_states().cpu().double().numpy(), 0.0
    for world, data in _mujoco_worlds(simulator):
        for body in range(1, CROOKED.model.nbody):
            velocity = np.zeros(6)
            mujoco.mj_objectVelocity(CROOKED.model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            found = states[world, body - 1]
            turned = min(np.abs(sign * found[3:7] - data.xquat[body]).max() for sign in (1, -1))
            moving = np.abs(found[7:] - np.concatenate([velocity[3:], velocity[:3]])).max()
            worst = max(worst, np.abs(found[:3] - data.xpos[body]).max(), turned, moving)
    return worst


@measured("Jacobians")
def jacobians(build: Build) -> float:
    """Jacobians of all bodies' frames of tumbling robots against MuJoCo's own."""
    simulator = build(CROOKED, 4)
    put(simulator, *random_states(CROOKED, 4))
    found, worst = simulator.jacobians().cpu().double().numpy(), 0.0
    for world, data in _mujoco_worlds(simulator):
        for body in range(1, CROOKED.model.nbody):
            expected = np.zeros((6, CROOKED.model.nv))
            mujoco.mj_jacBody(CROOKED.model, data, expected[:3], expected[3:], body)
            worst = max(worst, np.abs(found[world, body - 1] - expected).max())
    return worst


@measured("mass matrices")
def mass_matrices(build: Build) -> float:
    """Joint-space inertia of tumbling robots against MuJoCo's own."""
    simulator = build(CROOKED, 4)
    put(simulator, *random_states(CROOKED, 4))
    found, worst = simulator.mass_matrices().cpu().double().numpy(), 0.0
    for world, data in _mujoco_worlds(simulator):
        expected = np.zeros((CROOKED.model.nv, CROOKED.model.nv))
        mujoco.mj_fullM(CROOKED.model, data, expected)
        worst = max(worst, np.abs(found[world] - expected).max())
    return worst


@measured("external forces")
def external_forces(build: Build) -> float:
    """A sled in free fall is under a force and a torque for one step, then under none. Velocities after a second step
    against the impulses over mass and inertia, relative to the largest."""
    simulator = build(SLED, 2)
    qpos = torch.zeros(2, 7)
    qpos[:, 2], qpos[:, 3] = 5.0, 1.0
    put(simulator, qpos, torch.zeros(2, 6))
    wrenches = torch.zeros(2, 1, 6)
    wrenches[1, 0] = torch.tensor([4.0, -2.0, 1.0, 0.0, 0.3, 0.0])
    simulator.apply_wrenches(wrenches.to(simulator.device))
    for _ in range(2):
        step(simulator, torch.zeros(2, 0))
    found = velocities(simulator)
    expected = wrenches[1, 0].numpy() / [2, 2, 2, 0.02, 0.03, 0.04] * simulator.control_dt
    return float(np.abs(found[1] - found[0] - expected).max() / np.abs(expected).max())


@measured("forces of actuators")
def forces_of_actuators(build: Build) -> float:
    """Motors within and beyond their range: what they pull with, against their controls."""
    simulator = build(BENCH, 2)
    run(simulator, simulator.control_dt, torch.tensor([[0.5, -0.25], [3.0, -7.0]]))
    expected = np.array([[0.5, -0.25], [1.0, -1.0]])
    return float(np.abs(simulator.actuator_forces().cpu().numpy() - expected).max())


def _mujoco_worlds(simulator: Simulator) -> Iterator[tuple[int, mujoco.MjData]]:
    """MuJoCo's own evaluation of each world's state."""
    model = simulator.robot.model
    data = mujoco.MjData(model)
    for world in range(simulator.num_worlds):
        data.qpos[:] = simulator.qpos[world].cpu().numpy()
        data.qvel[:] = simulator.qvel[world].cpu().numpy()
        mujoco.mj_forward(model, data)
        yield world, data
