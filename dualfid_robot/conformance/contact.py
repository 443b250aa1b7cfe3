"""Contact and friction."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.conformance.properties import Build, measured
from dualfid_robot.conformance.robots import ANT, GRAVITY, SLED
from dualfid_robot.conformance.worlds import momenta, positions, put, relative, run, standing, step, tips, velocities
from dualfid_robot.simulators.base import Simulator


@measured("resting height", "m")
def resting_height(build: Build) -> float:
    """A sled on four spheres is dropped by 1 cm.

    The figure is the distance of its lowest points from the ground after a second.
    """
    simulator = build(SLED, 1)
    _settle(simulator)
    assert np.abs(velocities(simulator)).max() < 0.05, "the sled does not come to rest"
    return abs(float(positions(simulator)[0, 2]) - 0.05)


def _settle(simulator: Simulator) -> None:
    n = simulator.num_worlds
    qpos = torch.zeros(n, 7)
    qpos[:, 2], qpos[:, 3] = 0.06, 1.0
    put(simulator, qpos, torch.zeros(n, 6))
    run(simulator, 1.0)


@measured("penetration", "m")
def penetration(build: Build) -> float:
    """An Ant stands on bent legs for a second: largest distance of a foot's lower end from the ground."""
    simulator = _standing_ant(build)
    return float(np.abs(tips(ANT, positions(simulator)[0])[:, 2]).max())


@measured("contact force")
def contact_force(build: Build) -> float:
    """An Ant stands on bent legs for a second: sum of the feet's forces against its weight.

    Each foot's torque is compared with that of its force. Both are relative to the weight, with arms below 1 m.
    """
    simulator = _standing_ant(build)
    wrench = simulator.contact_wrench[0].double().cpu().numpy()
    weight = float(ANT.model.body_mass.sum()) * GRAVITY
    qpos = positions(simulator)[0]
    arms = tips(ANT, qpos) - qpos[:3]
    # Friction keeps the bent legs from sliding outwards, and every foot bears its part.
    assert ((arms[:, :2] * wrench[:, :2]).sum(1) < 0).all()
    assert (wrench[:, 2] > 0.15 * weight).all()
    force = wrench[:, :3].sum(0) - [0, 0, weight]
    torque = wrench[:, 3:] - np.cross(arms, wrench[:, :3])
    return float(max(np.abs(force).max(), np.abs(torque).max())) / weight


def _standing_ant(build: Build) -> Simulator:
    """An Ant after one second of standing on bent legs."""
    simulator = build(ANT, 1, bodies=ANT.feet)
    put(simulator, *standing(ANT, 1))
    run(simulator, 1.0)
    assert simulator.qvel.abs().max() < 0.3, "the Ant does not stand"
    assert 0.45 < float(simulator.qpos[0, 2]) < 0.56, "the Ant does not stand"
    return simulator


@measured("contact impulse")
def contact_impulse(build: Build) -> float:
    """Ants slide for an eighth of a second, with one physics step of 1/480 s in a control period. Contact forces and
    weight over time against the change of momentum, relative to its largest component."""
    dt, n = 1 / 480, 4
    simulator = build(ANT, n, dt=dt, bodies=ANT.feet, substeps=1)
    qpos, qvel = standing(ANT, n)
    qvel[:, 0], qvel[:, 1] = 1.0, torch.tensor([0.0, 0.5, 1.0, 1.5])
    put(simulator, qpos, qvel)
    before, weight = momenta(simulator)[1], ANT.model.body_mass.sum() * ANT.model.opt.gravity
    impulses = np.zeros((n, 3))
    for _ in range(60):
        step(simulator, torch.zeros(n, 8))
        forces = simulator.contact_wrench[:, :, :3].sum(1).double().cpu().numpy()
        impulses += (forces + weight) * dt
    change = momenta(simulator)[1] - before
    assert np.abs(change[:, :2]).max() > 0.1, "the Ants do not brake"
    return float(np.abs(impulses - change).max() / np.abs(change).max())


@measured("friction")
def friction(build: Build) -> float:
    """A sled at 2 m/s with a friction coefficient of 0.4: its stopping distance against v²/(2μg), relative."""
    return braking(build(SLED, 1), torch.ones(1))


def braking(simulator: Simulator, factors: Tensor) -> float:
    """Relative error of the stopping distance at multiples of the nominal friction."""
    _settle(simulator)
    qpos, qvel = simulator.qpos.cpu().clone(), torch.zeros(simulator.num_worlds, 6)
    qpos[:, :2], qvel[:, 0] = 0.0, 2.0
    put(simulator, qpos, qvel)
    expected = 2.0**2 / (2 * 0.4 * GRAVITY * factors.double().numpy())
    run(simulator, 2.0 / (0.4 * GRAVITY * float(factors.min())) + 0.1)
    assert np.abs(velocities(simulator)[:, 0]).max() < 0.05, "the sled does not stop"
    return relative(positions(simulator)[:, 0], expected)
