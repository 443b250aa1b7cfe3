"""What every engine is measured by: each property is a function that builds worlds in an engine and returns a residual.

The tests hold the residuals to the bounds in `engines.py`, and `benchmarks/engines.py` publishes them: a property's
docstring is its explanation in docs/engines.md. References are closed forms, MuJoCo's own functions of a state, or the
same engine in other circumstances. A promise that no number measures is an assertion.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

DT = 1 / 60
GRAVITY = 9.81
ROOT = Path(__file__).parents[2]
ROBOTS = Path(__file__).parent / "robots"

ANT = RobotModel(ROOT / "assets" / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
CROOKED = RobotModel(ROBOTS / "crooked.xml")
BENCH = RobotModel(ROBOTS / "bench.xml")
SERVO = RobotModel(ROBOTS / "servo.xml")
VELOCITY = RobotModel(ROBOTS / "velocity.xml")
LIMITED = RobotModel(ROBOTS / "limited.xml")
DC_MOTOR = RobotModel(ROBOTS / "dc_motor.xml")
STIFF = RobotModel(ROBOTS / "stiff.xml")
STATEFUL = RobotModel(ROBOTS / "stateful.xml")
WORKSHOP = RobotModel(ROBOTS / "workshop.xml", ("drawer", "ball", "block"))
DELAYED = RobotModel(ROBOTS / "delayed.xml")
DRONE = RobotModel(ROBOTS / "drone.xml")
SLED = RobotModel(ROBOTS / "sled.xml", ("sled",))


class Build(Protocol):
    """Makes a simulator of the engine that is measured."""

    def __call__(
        self, robot: RobotModel, n: int, dt: float = ..., bodies: tuple[str, ...] = ..., **settings: object
    ) -> Simulator: ...


@dataclass(frozen=True)
class Property:
    """Something that an engine is measured by.

    Attributes:
        unit: of the residual; empty where it is relative, or compares states with components of several units.
        measure: builds worlds and returns the residual.
        parameter: the per-world parameter without which there is nothing to measure.
        of_one_world: whether it is physics, rather than how the worlds of a batch are kept apart.
    """

    unit: str
    measure: Callable[[Build], float]
    parameter: str | None = None
    of_one_world: bool = True

    @property
    def explanation(self) -> str:
        return " ".join(inspect.getdoc(self.measure).split())  # type: ignore[union-attr]


PROPERTIES: dict[str, Property] = {}
"""By name, in the order of the table."""


def measured(
    name: str, unit: str = "", parameter: str | None = None, of_one_world: bool = True
) -> Callable[[Callable[[Build], float]], Callable[[Build], float]]:
    def register(measure: Callable[[Build], float]) -> Callable[[Build], float]:
        PROPERTIES[name] = Property(unit, measure, parameter, of_one_world)
        return measure

    return register


# --- Worlds ----------------------------------------------------------------------------------------------------------


def everyone(simulator: Simulator) -> Tensor:
    """Ids of all worlds."""
    return torch.arange(simulator.num_worlds, device=simulator.device)


def put(simulator: Simulator, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
    """Put worlds, by default all, into states that lie on the CPU."""
    device = simulator.device
    ids = everyone(simulator) if ids is None else ids.to(device)
    simulator.set_state(ids, qpos.to(device), qvel.to(device))


def set_parameter(simulator: Simulator, name: str, values: Tensor, ids: Tensor | None = None) -> None:
    device = simulator.device
    ids = everyone(simulator) if ids is None else ids.to(device)
    simulator.set_parameters(ids, {name: values.to(device)})


def step(simulator: Simulator, ctrl: Tensor, n: int | None = None) -> None:
    n = simulator.num_worlds if n is None else n
    simulator.step(ctrl[:n].to(simulator.device), n)


def run(simulator: Simulator, seconds: float, ctrl: Tensor | None = None) -> None:
    """Step all worlds under constant control, by default none."""
    if ctrl is None:
        ctrl = torch.zeros(simulator.num_worlds, simulator.robot.model.nu)
    for _ in range(round(seconds / simulator.control_dt)):
        step(simulator, ctrl)


def positions(simulator: Simulator) -> np.ndarray:
    return simulator.qpos.double().cpu().numpy()


def velocities(simulator: Simulator) -> np.ndarray:
    return simulator.qvel.double().cpu().numpy()


def state(simulator: Simulator) -> Tensor:
    """All that a task may see: (N, nq + nv + 6 bodies), on the CPU."""
    parts = [simulator.qpos, simulator.qvel, simulator.contact_wrench.flatten(1)]
    return torch.cat(parts, 1).cpu().clone()


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, infinite if one of them is not finite."""
    found = (a.double() - b.double()).abs().max()
    return float(torch.where(torch.isfinite(found), found, math.inf))


def standing(robot: RobotModel, n: int) -> tuple[Tensor, Tensor]:
    """The Ant just above the ground with its legs bent, at rest."""
    qpos = torch.zeros(n, 15)
    qpos[:, 2], qpos[:, 3] = 0.53, 1.0
    bend = {"ankle_1": 0.9, "ankle_2": -0.9, "ankle_3": -0.9, "ankle_4": 0.9}
    for name, angle in bend.items():
        qpos[:, 7 + robot.joint_names.index(name)] = angle
    return qpos, torch.zeros(n, 14)


def random_states(robot: RobotModel, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random poses and velocities around the initial state; a floating base anywhere and turned any way."""
    generator = torch.Generator().manual_seed(seed)
    qpos = torch.from_numpy(robot.model.qpos0).float().repeat(n, 1)
    qvel = torch.randn(n, robot.model.nv, generator=generator)
    joints = len(robot.joint_names)
    qpos[:, qpos.shape[1] - joints :] += 0.5 * torch.randn(n, joints, generator=generator)
    if robot.floating_base:
        qpos[:, :3] += torch.randn(n, 3, generator=generator)
        qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    return qpos, qvel


def rotation_error(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the rotations of unit quaternions (n, 4), whatever their signs, rad."""
    a, b = a.double(), b.double()
    # Of the imaginary part of a* b, not the arc cosine of its real part, which loses half of the digits at zero.
    imaginary = a[:, :1] * b[:, 1:] - b[:, :1] * a[:, 1:] - torch.linalg.cross(a[:, 1:], b[:, 1:])
    return 2 * torch.arcsin(imaginary.norm(dim=1).clamp(max=1.0))


def momenta(simulator: Simulator, com: Tensor | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of mass, linear momentum, angular momentum about that centre, (n, 3) each, by MuJoCo's functions.

    Args:
        com: (n, bodies, 3), by how much the bodies' centres of mass are away from where the robot's file has them.
    """
    model = copy.copy(simulator.robot.model)
    data = mujoco.MjData(model)
    rows = []
    for world, (qpos, qvel) in enumerate(zip(positions(simulator), velocities(simulator), strict=True)):
        if com is not None:
            model.body_ipos[1:] = simulator.robot.model.body_ipos[1:] + com[world].numpy()
            mujoco.mj_setConst(model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_subtreeVel(model, data)
        linear = data.subtree_linvel[0] * model.body_subtreemass[0]
        rows.append((data.subtree_com[0].copy(), linear, data.subtree_angmom[0].copy()))
    centre, linear, angular = (np.array(column) for column in zip(*rows, strict=True))
    return centre, linear, angular


def tips(robot: RobotModel, qpos: np.ndarray) -> np.ndarray:
    """World positions of the lower ends of the feet's capsules, (feet, 3), by MuJoCo's kinematics."""
    data = mujoco.MjData(robot.model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(robot.model, data)
    found = []
    for name in robot.feet:
        geom = robot.model.geom(name)
        axis = data.geom_xmat[geom.id].reshape(3, 3)[:, 2] * geom.size[1]
        centre = data.geom_xpos[geom.id]
        found.append(min(centre + axis, centre - axis, key=lambda end: end[2]) - [0, 0, geom.size[0]])
    return np.array(found)


# --- Mechanics -------------------------------------------------------------------------------------------------------


@measured("state round trip")
def state_round_trip(build: Build) -> float:
    """A robot with nothing aligned is put into 16 random states; after one physics step of 10 µs, positions (m, rad)
    and velocities (m/s, rad/s) are compared with those of one step of MuJoCo C."""
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
    """The same fall for half a second: largest drift of the angular momentum about the centre of mass, relative to its
    mean magnitude."""
    simulator = build(CROOKED, 8)
    put(simulator, *random_states(CROOKED, 8))
    before = momenta(simulator)[2]
    run(simulator, 0.5)
    drift = np.linalg.norm(momenta(simulator)[2] - before, axis=1).max()
    return float(drift / np.linalg.norm(before, axis=1).mean())


@measured("pendulum period")
def pendulum_period(build: Build) -> float:
    """Period of a physical pendulum at an amplitude of 0.5 rad over three swings, relative error."""
    period, _ = _swing(build)
    inertia = 0.02 + 2 * 0.25**2
    small = 2 * math.pi * math.sqrt(inertia / (2 * GRAVITY * 0.25))
    expected = small * (1 + 0.5**2 / 16 + 11 * 0.5**4 / 3072)
    return abs(period / expected - 1)


@measured("pendulum amplitude")
def pendulum_amplitude(build: Build) -> float:
    """The same pendulum: change of its amplitude over three swings, relative. Nothing damps it."""
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


@measured("actuator gear and sign")
def actuators(build: Build) -> float:
    """Motors with gears of both signs on a slide and a hinge, in another order than the joints, within and beyond their
    control range: velocity after half a second against gear · control · time / inertia, armature included; relative."""
    simulator = build(BENCH, 2)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25], [7.0, -9.0]]))
    expected = np.array([[10 * 0.25 / 2, -3 * 0.5 / 0.6], [10 * -1 / 2, -3 * 1 / 0.6]]) * 0.5
    return _relative(velocities(simulator)[:, 1:3], expected)


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found / expected - 1).max())


@measured("position actuator")
def position_actuator(build: Build) -> float:
    """A load that MJCF's `<position kp= kv=>` pulls to its target, 1.5 Hz and damping ratio 0.3, for a second: largest
    distance from the damped oscillation, relative to the first distance."""
    return _oscillation(build(SERVO, 1), np.array([177.65]), np.array([11.31]))


def _oscillation(simulator: Simulator, kp: np.ndarray, kv: np.ndarray) -> float:
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
    """A position actuator of 20.7 Hz and damping ratio 0.2, which oscillates ever more if its force is held for a
    control period of 1/60 s: distance of its load from the target after half a second, relative to the first."""
    simulator = build(STIFF, 1)
    run(simulator, 0.5, torch.tensor([[0.0, 0.0, 0.1]]))
    return abs(float(simulator.qpos[0, 4]) / 0.1 - 1)


@measured("velocity actuator")
def velocity_actuator(build: Build) -> float:
    """A load that MJCF's `<velocity kv=>` takes from -1 m/s to 2 m/s with a time constant of 0.25 s: largest distance
    of its velocity from the exponential approach within a second, relative to the first distance."""
    return _approach(build(VELOCITY, 1), np.array([8.0]))


def _approach(simulator: Simulator, kv: np.ndarray) -> float:
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
    """A position servo at its force range of -4 N to 2 N and a velocity servo beyond its control range of -1 rad/s to
    3 rad/s, both ways: velocities after half a second against constant acceleration and the exponential approach to the
    bound, relative."""
    simulator = build(LIMITED, 2)
    run(simulator, 0.5, torch.tensor([[0.0, 0.0, 1.5, 9.0], [0.0, 0.0, -1.5, -7.0]]))
    load = np.array([2.0, -4.0]) / 2.0 * 0.5
    # The spinner's own damping of 0.5 N m s/rad takes a quarter of its velocity and shortens its time constant.
    spinner = np.array([3.0, -1.0]) * 1.5 / 2.0 * (1 - math.exp(-2.0 / 0.5 * 0.5))
    return _relative(velocities(simulator)[:, [4, 3]], np.stack([load, spinner], 1))


@measured("DC motor")
def dc_motor(build: Build) -> float:
    """MJCF's `<dcmotor>` with 8 N at rest and 4 m/s without load, bounded to 6 N, at full and half voltage and beyond
    the control range: largest distance of its load's velocity from constant acceleration, then exponential approach,
    within a second, relative to the speed without load."""
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
    """A motor whose controls change every period and act two and a half periods later: velocity of its load at the end
    of each of twelve periods against the sum of the delayed impulses, relative to the largest. Delays count physics
    steps, so this is exact."""
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
    """Rotors as motors on sites, on a body that leans by 0.5 rad and flies: velocities after a millisecond against
    thrust along the body's axis, and its torque, relative to the largest linear and angular one. Of three worlds, one
    has equal thrusts, one unequal ones, one is beyond the control range."""
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
    """A floating Ant under full torque both ways for half a second: distance of its joints from their limits then."""
    return _press_limits(build)[1]


@measured("joint limits, impact", "rad")
def joint_limits_impact(build: Build) -> float:
    """The same: how far beyond a limit a joint goes when it hits it at full speed."""
    return _press_limits(build)[0]


def _press_limits(build: Build) -> tuple[float, float]:
    """Largest excess over the limits, and distance from them at the end."""
    simulator = build(ANT, 2)
    qpos, qvel = standing(ANT, 2)
    qpos[:, 2] = 5.0
    put(simulator, qpos, qvel)
    ctrl = torch.stack([torch.ones(8), -torch.ones(8)])
    lower, upper = ANT.joint_limits.T
    beyond = 0.0
    for _ in range(30):
        step(simulator, ctrl)
        joints = positions(simulator)[:, 7:]
        beyond = max(beyond, float((joints - upper).max()), float((lower - joints).max()))
    return beyond, max(float(np.abs(joints[0] - upper).max()), float(np.abs(joints[1] - lower).max()))


# --- Contact ---------------------------------------------------------------------------------------------------------


@measured("resting height", "m")
def resting_height(build: Build) -> float:
    """A sled on four spheres, dropped by 1 cm: distance of its lowest points from the ground after a second."""
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
    """An Ant after a second of standing on bent legs: largest distance of a foot's lower end from the ground."""
    simulator = _standing_ant(build)
    return float(np.abs(tips(ANT, positions(simulator)[0])[:, 2]).max())


@measured("contact force")
def contact_force(build: Build) -> float:
    """The same Ant: sum of the feet's contact forces against its weight, and each foot's torque about the root against
    that of its force at its tip (arms below 1 m), relative to the weight."""
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
    """Newton's second law: Ants slide over the ground for an eighth of a second with one physics step of 1/480 s in a
    control period; sum of contact forces and weight over time against the change of momentum, relative to its largest
    component."""
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
    """The sled at 2 m/s with a friction coefficient of 0.4: its stopping distance against v²/(2μg), relative."""
    return _braking(build(SLED, 1), torch.ones(1))


def _braking(simulator: Simulator, factors: Tensor) -> float:
    """Relative error of the stopping distance at multiples of the nominal friction."""
    _settle(simulator)
    qpos, qvel = simulator.qpos.cpu().clone(), torch.zeros(simulator.num_worlds, 6)
    qpos[:, :2], qvel[:, 0] = 0.0, 2.0
    put(simulator, qpos, qvel)
    expected = 2.0**2 / (2 * 0.4 * GRAVITY * factors.double().numpy())
    run(simulator, 2.0 / (0.4 * GRAVITY * float(factors.min())) + 0.1)
    assert np.abs(velocities(simulator)[:, 0]).max() < 0.05, "the sled does not stop"
    return _relative(positions(simulator)[:, 0], expected)


@measured("order in the file", "rad")
def order_in_the_file(build: Build) -> float:
    """The Ant's file with its legs and actuators in reverse order: flying Ants under the same controls for five control
    periods, difference of joint angles. Of standing Ants with a lifted leg each, that foot alone bears nothing."""
    with tempfile.TemporaryDirectory() as folder:
        other = RobotModel(_reversed(ANT.path, Path(folder)), ANT.feet)
        first, second = build(ANT, 4, bodies=ANT.feet), build(other, 4, bodies=ANT.feet)
    joints = [ANT.joint_names.index(name) for name in other.joint_names]
    actuators = [ANT.actuator_names.index(name) for name in other.actuator_names]
    assert joints != sorted(joints)
    assert actuators != sorted(actuators)

    def put_both(qpos: Tensor, qvel: Tensor) -> None:
        put(first, qpos, qvel)
        put(second, torch.cat([qpos[:, :7], qpos[:, 7:][:, joints]], 1), qvel)

    qpos, qvel = standing(ANT, 4)
    qpos[:, 2] += torch.tensor([2.0, 3.0, 4.0, 5.0])
    qpos[:, 7:] += 0.1 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    ctrl = 0.3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    put_both(qpos, qvel)
    run(first, 5 * DT, ctrl)
    run(second, 5 * DT, ctrl[:, actuators])
    found = positions(first)[:, 7:]
    assert np.abs(found - qpos[:, 7:].numpy()).min() > 1e-3, "a joint does not move"
    residual = float(np.abs(found[:, joints] - positions(second)[:, 7:]).max())

    qpos, qvel = standing(ANT, 4)
    qpos[torch.arange(4), 8 + 2 * torch.arange(4)] *= 0.6  # the ankle of another leg in each world
    put_both(qpos, qvel)
    for simulator in (first, second):
        run(simulator, 4 * DT)
        loads = simulator.contact_wrench[..., 2].cpu()
        assert (loads.diagonal() == 0).all(), "a lifted foot bears a load"
        assert (loads.sum(1) > 1.0).all(), "the other feet bear nothing"
    return residual


def _reversed(path: Path, folder: Path) -> Path:
    """The same MJCF with sibling bodies and actuators in reverse order."""
    tree = ElementTree.parse(path)
    for parent in [*tree.iter("body"), *tree.iter("worldbody"), *tree.iter("actuator")]:
        movable = [child for child in parent if child.tag in ("body", "motor")]
        for child in movable:
            parent.remove(child)
        parent.extend(reversed(movable))
    tree.write(folder / "reversed.xml")
    return folder / "reversed.xml"


# --- Per-world parameters --------------------------------------------------------------------------------------------


@measured("parameter: friction", parameter="friction")
def parameter_friction(build: Build) -> float:
    """The same stopping distances in four worlds with 0.5, 1, 1.5 and 2 times the friction."""
    simulator = build(SLED, 4)
    factors = torch.tensor([0.5, 1.0, 1.5, 2.0])
    set_parameter(simulator, "friction", factors)
    return _braking(simulator, factors)


@measured("parameter: mass", parameter="mass")
def parameter_mass(build: Build) -> float:
    """Motors on carts and wheels of 0.5 to 4 times the mass: velocity after half a second, relative. The wheels'
    armature stays as it is."""
    simulator = build(BENCH, 3)
    factors = torch.ones(3, 5)
    factors[:, 1], factors[:, 2] = torch.tensor([0.5, 1.0, 4.0]), torch.tensor([3.0, 2.0, 1.0])
    set_parameter(simulator, "mass", factors)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25]]).expand(3, -1))
    inertia = factors[:, 1:3].double().numpy() * [2.0, 0.5] + [0.0, 0.1]
    expected = np.array([10 * 0.25, -3 * 0.5]) * 0.5 / inertia
    return _relative(velocities(simulator)[:, 1:3], expected)


@measured("parameter: damping", parameter="damping")
def parameter_damping(build: Build) -> float:
    """A wheel of 0.5 kg m² with 0, 0.5, 1 and 2 times its damping of 0.5 N m s/rad: velocity after a second against its
    exponential decay, relative to the first velocity."""
    simulator = build(BENCH, 4)
    factors = torch.tensor([0.0, 0.5, 1.0, 2.0])
    set_parameter(simulator, "damping", factors)
    qvel = torch.zeros(4, 5)
    qvel[:, 3] = 2.0
    put(simulator, torch.zeros(4, 5), qvel)
    run(simulator, 1.0)
    expected = 2.0 * np.exp(-factors.double().numpy() * 0.5 / 0.5)
    return float(np.abs(velocities(simulator)[:, 3] - expected).max() / 2.0)


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
    return _relative(velocities(simulator)[:, 1:3], expected)


@measured("parameter: gravity", parameter="gravity")
def parameter_gravity(build: Build) -> float:
    """A sled in the air under gravity of another size and direction in each world: velocity after half a second,
    relative to the largest."""
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
    """A pendulum at rest whose centre of mass is moved aside, and further down: angular velocity after a millisecond
    against the static torque m g dx over the inertia about the joint, relative to the largest."""
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
    """The tumbling robots with every body's centre of mass moved by some centimetres, otherwise in each world: distance
    of the whole one from its parabola after a second."""
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
    """The position actuator's load with 0.5, 1 and 2 times the stiffness, and once under a motor of 1.2 times the
    strength besides: distance from the damped oscillation."""
    simulator = build(SERVO, 4)
    stiffness, strength = torch.ones(4, 3), torch.ones(4, 3)
    stiffness[:, 2], strength[3, 2] = torch.tensor([0.5, 1.0, 2.0, 1.5]), 1.2
    set_parameter(simulator, "motor_strength", strength)
    set_parameter(simulator, "servo_stiffness", stiffness)
    kp = 177.65 * (stiffness * strength)[:, 2].double().numpy()
    return _oscillation(simulator, kp, 11.31 * strength[:, 2].double().numpy())


@measured("parameter: servo damping", parameter="servo_damping")
def parameter_servo_damping(build: Build) -> float:
    """The position and the velocity actuator's loads with 0.5, 1 and 2 times the damping, and once under a motor of 1.2
    times the strength besides: the larger of the distances from the damped oscillation and the exponential approach."""
    damping, strength = torch.ones(4, 3), torch.ones(4, 3)
    damping[:, 2], strength[3, 2] = torch.tensor([0.5, 1.0, 2.0, 1.5]), 1.2
    servo, velocity = build(SERVO, 4), build(VELOCITY, 4)
    for simulator in (servo, velocity):
        set_parameter(simulator, "servo_damping", damping)
        set_parameter(simulator, "motor_strength", strength)
    stronger, factors = strength[:, 2].double().numpy(), (damping * strength)[:, 2].double().numpy()
    return max(_oscillation(servo, 177.65 * stronger, 11.31 * factors), _approach(velocity, 8.0 * factors))


NEW_PARAMETERS: dict[str, Callable[[RobotModel, int], Tensor]] = {
    "friction": lambda robot, k: torch.linspace(0.3, 0.8, k),
    "mass": lambda robot, k: torch.linspace(0.7, 1.3, k)[:, None].expand(k, len(robot.body_names)).contiguous(),
    "com": lambda robot, k: torch.linspace(-0.02, 0.03, k * len(robot.body_names) * 3).reshape(k, -1, 3),
    "damping": lambda robot, k: torch.linspace(0.5, 2.0, k),
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


# --- Worlds of a batch -----------------------------------------------------------------------------------------------

N = 12


def controls(count: int) -> list[Tensor]:
    """Random controls of 12 Ants for some periods."""
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(N, 8, generator=generator) * 2 - 1 for _ in range(count)]


def standing_ants(build: Build) -> Simulator:
    simulator = build(ANT, N, bodies=ANT.feet)
    put(simulator, *standing(ANT, N))
    return simulator


def drive(simulators: Iterable[Simulator], ctrls: Iterable[Tensor], n: int = N) -> None:
    for ctrl in ctrls:
        for simulator in simulators:
            step(simulator, ctrl, n)


def others(ids: Tensor) -> Tensor:
    """Mask of the worlds that are not among some."""
    mask = torch.ones(N, dtype=torch.bool)
    mask[ids] = False
    return mask


@measured("parameters stay in their worlds", of_one_world=False)
def parameters_stay(build: Build) -> float:
    """Ants, some of which get other values of every parameter that the engine can set, and are reset: difference of the
    other worlds from a twin without them (0: none to the last bit)."""
    ants, twin = standing_ants(build), standing_ants(build)
    ids = torch.tensor([7, 2, 3])
    change_parameters(ants, ids)
    drive((ants, twin), controls(4))
    for simulator in (ants, twin):
        put(simulator, *standing(ANT, 3), ids=ids)
    drive((ants, twin), controls(4))
    apart = (state(ants) - state(twin)).abs()[ids].amax(1)
    assert not ants.SUPPORTED_PARAMETERS or (apart > 1e-3).all(), "the parameters have no effect after a reset"
    return difference(state(ants)[others(ids)], state(twin)[others(ids)])


@measured("subset stepping", of_one_world=False)
def subset_stepping(build: Build) -> float:
    """The first five of twelve Ants step on while the others wait: change of those that wait (0: none), and difference
    of those that go on from a twin in which all step."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(2))
    frozen = state(ants)[5:]
    drive((ants,), controls(5)[2:], 5)
    drive((twin,), controls(5)[2:])
    return max(difference(state(ants)[5:], frozen), difference(state(ants)[:5], state(twin)[:5]))


@measured("waiting worlds go on", of_one_world=False)
def waiting_worlds_go_on(build: Build) -> float:
    """The Ants that have waited then step on: difference from a twin in which they did not wait."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(2))
    drive((ants,), controls(5)[2:], 5)
    drive((ants, twin), controls(7)[5:])
    return difference(state(ants)[5:], state(twin)[5:])


@measured("reset of a subset", of_one_world=False)
def subset_reset(build: Build) -> float:
    """Three of twelve Ants are put elsewhere in mid-motion: difference of the others from a twin without that."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(3))
    ids = torch.tensor([10, 1, 6])
    qpos, qvel = standing(ANT, 3)
    qpos[:, 0] = torch.tensor([1.0, 2.0, 3.0])
    put(ants, qpos, qvel, ids)
    assert torch.equal(ants.qpos.cpu()[ids], qpos)
    assert not ants.contact_wrench.cpu()[ids].any()
    drive((ants, twin), controls(4)[3:])
    assert (ants.qpos.cpu()[ids, 0] - qpos[:, 0]).abs().max() < 0.1
    return difference(state(ants)[others(ids)], state(twin)[others(ids)])


@measured("non-finite isolation", of_one_world=False)
def non_finite_isolation(build: Build) -> float:
    """Two of twelve Ants get NaN or infinite states; they are reported and put back, and this is the difference of the
    others from a twin without that."""
    worst = 0.0
    ids = torch.tensor([2, 7])
    initial = torch.from_numpy(ANT.model.qpos0).float().expand(2, -1)
    for value in (math.nan, math.inf, 1e30):
        ants, twin = standing_ants(build), standing_ants(build)
        drive((ants, twin), controls(1))
        qpos, qvel = standing(ANT, 2)
        qpos[0, 9], qvel[1, 2] = value, value
        put(ants, qpos, qvel, ids)
        drive((ants, twin), controls(2)[1:])
        assert torch.equal(ants.failed.cpu(), ~others(ids)), "the failed worlds are not reported"
        assert torch.equal(ants.qpos.cpu()[ids], initial), "the failed worlds are not put back"
        assert not ants.qvel.cpu()[ids].any(), "the failed worlds are not put back"
        drive((ants, twin), controls(3)[2:])
        assert not ants.failed.any(), "the failed worlds do not recover"
        assert torch.isfinite(state(ants)).all()
        worst = max(worst, difference(state(ants)[others(ids)], state(twin)[others(ids)]))
    return worst


@measured("snapshot", of_one_world=False)
def snapshot(build: Build) -> float:
    """A snapshot in mid-motion, with parameters that differ between worlds and some worlds waiting, is restored into
    another simulator: difference of the two after seven further control periods."""
    ants, twin = standing_ants(build), standing_ants(build)
    change_parameters(ants, torch.tensor([0, 5, 11]))
    drive((ants,), controls(4))
    drive((ants,), controls(5)[4:], 7)
    saved = ants.snapshot()
    assert all(isinstance(array, np.ndarray) for array in saved.values())
    drive((twin,), controls(1))
    twin.restore(saved)
    assert torch.equal(state(twin), state(ants))
    drive((ants, twin), controls(12)[5:])
    return difference(state(ants), state(twin))


@measured("determinism", of_one_world=False)
def determinism(build: Build) -> float:
    """Two simulators with the same Ants and controls for twelve periods: difference."""
    ants, twin = standing_ants(build), standing_ants(build)
    drive((ants, twin), controls(12))
    return difference(state(ants), state(twin))


# --- Robots of others ------------------------------------------------------------------------------------------------


def gymnasium_robots() -> dict[str, RobotModel]:
    """Gymnasium's MJCF files, and which of their bodies are feet."""
    import gymnasium

    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    ankles = tuple(f"unnamed_body_{i}" for i in (4, 7, 10, 13))
    feet = {
        "ant": ankles,
        "humanoid": ("right_foot", "left_foot"),
        "half_cheetah": ("bfoot", "ffoot"),
        "hopper": ("foot",),
        "walker2d": ("foot", "foot_left"),
    }
    return {name: RobotModel(folder / f"{name}.xml", bodies) for name, bodies in feet.items()}


def drive_for_a_second(build: Build, robot: RobotModel) -> None:
    """Step four of the robot for a second under random controls; they must move and stay finite.

    Raises:
        ConfigError: the engine refuses the robot.
    """
    n = 4
    simulator = build(robot, n)
    low, high = torch.from_numpy(robot.model.actuator_ctrlrange).float().unbind(1)
    generator = torch.Generator().manual_seed(0)
    before = state(simulator)
    for _ in range(round(1.0 / DT)):
        step(simulator, low + (high - low) * torch.rand(n, robot.model.nu, generator=generator))
        assert not simulator.failed.any(), "a world has failed"
        assert torch.isfinite(state(simulator)).all()
    moved = (state(simulator) - before).abs()[:, : robot.model.nq]
    assert (moved.amax(1) > 0.01).all(), "the robot does not move"
    assert float(simulator.qvel.abs().max()) < 200, "the robot explodes"
