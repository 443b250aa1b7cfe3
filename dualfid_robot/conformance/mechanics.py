"""Bodies in motion without contact or actuators."""

from __future__ import annotations

import itertools
import math

import mujoco
import numpy as np
import torch

from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import BENCH, CROOKED, DT, GRAVITY
from dualfid_robot.conformance.worlds import (
    momenta,
    positions,
    put,
    random_states,
    rotation_error,
    run,
    step,
    velocities,
)


@measured("state round trip")
def state_round_trip(build: Build) -> float:
    """A robot with nothing aligned takes one physics step of 10 µs from 16 random states. Positions and velocities (m,
    rad, s) are compared with MuJoCo C."""
    dt, n = 1e-5, 16
    simulator = build(CROOKED, n, dt=dt, substeps=1)
    qpos, qvel = random_states(CROOKED, n)
    put(simulator, qpos, qvel)
    assert torch.equal(simulator.qpos.cpu(), qpos)
    assert torch.equal(simulator.qvel.cpu(), qvel)
    run(simulator, dt)
    model = CROOKED.compile(dt)
    data = mujoco.MjData(model)
    expected_qpos, expected_qvel = qpos.double().numpy(), qvel.double().numpy()
    for i in range(n):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = expected_qpos[i], expected_qvel[i]
        mujoco.mj_step(model, data)
        expected_qpos[i], expected_qvel[i] = data.qpos, data.qvel
    found = positions(simulator)
    errors = (
        np.delete(found - expected_qpos, range(3, 7), axis=1),
        rotation_error(torch.from_numpy(found[:, 3:7]), torch.from_numpy(expected_qpos[:, 3:7])).numpy(),
        velocities(simulator) - expected_qvel,
    )
    return max(float(np.abs(error).max()) for error in errors)


@measured("free fall", "m")
def free_fall(build: Build) -> float:
    """Eight tumbling robots with joints fall for one second: distance of the centre of mass from its parabola. A
    first-order integrator with time step h is off by g·h/2 per second."""
    time = 1.0
    simulator = build(CROOKED, 8)
    put(simulator, *random_states(CROOKED, 8))
    centre, linear, _ = momenta(simulator)
    velocity = linear / CROOKED.model.body_subtreemass[0]
    run(simulator, time)
    expected = centre + velocity * time + np.array([0.0, 0.0, -GRAVITY]) * time**2 / 2
    return float(np.abs(momenta(simulator)[0] - expected).max())


@measured("angular momentum")
def angular_momentum(build: Build) -> float:
    """Tumbling robots fall for half a second: largest drift of angular momentum about the centre of mass, relative."""
    simulator = build(CROOKED, 8)
    put(simulator, *random_states(CROOKED, 8))
    before = momenta(simulator)[2]
    run(simulator, 0.5)
    drift = np.linalg.norm(momenta(simulator)[2] - before, axis=1).max()
    return float(drift / np.linalg.norm(before, axis=1).mean())


@measured("pendulum period")
def pendulum_period(build: Build) -> float:
    """A physical pendulum swings three times at 0.5 rad: relative error of its period."""
    period, _ = _swing(build)
    inertia = 0.02 + 2 * 0.25**2
    small = 2 * math.pi * math.sqrt(inertia / (2 * GRAVITY * 0.25))
    expected = small * (1 + 0.5**2 / 16 + 11 * 0.5**4 / 3072)
    return abs(period / expected - 1)


@measured("pendulum amplitude")
def pendulum_amplitude(build: Build) -> float:
    """A physical pendulum without damping: relative change of its amplitude over three swings."""
    return abs(_swing(build)[1] / 0.5 - 1)


def _swing(build: Build) -> tuple[float, float]:
    """Period and last amplitude of the bench's pendulum."""
    simulator = build(BENCH, 1)
    qpos, qvel = torch.zeros(1, 5), torch.zeros(1, 5)
    qpos[0, 0] = 0.5
    put(simulator, qpos, qvel)
    angles = [0.5]
    for _ in range(round(4.0 / DT)):
        step(simulator, torch.zeros(1, 2))
        angles.append(float(simulator.qpos[0, 0]))
    crossings = [i - a / (b - a) for i, (a, b) in enumerate(itertools.pairwise(angles)) if a < 0 <= b]
    assert len(crossings) >= 3, f"the pendulum does not swing: {angles[::10]}"
    period = (crossings[-1] - crossings[0]) / (len(crossings) - 1)
    return period * DT, max(angles[-math.ceil(period) :])
