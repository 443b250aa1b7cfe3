"""Every engine against closed forms, and against MuJoCo's own kinematics and momenta."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch
from conftest import Make
from engines import DT, everyone, random_states, rotation_error, standing
from torch import Tensor

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

RobotOf = Callable[..., RobotModel]

# Nothing in it is aligned, centred or at zero: offset and turned bodies, inertia frames and joint anchors, a welded
# body, joints whose zero is elsewhere, a slide.
CROOKED = """
<body name="root" pos="1 2 3" quat="0.8 0.6 0 0">
  <freejoint/>
  <geom type="box" size="0.1 0.2 0.3" pos="0.05 0.02 -0.03" euler="0.3 0.5 0.7" density="300"/>
  <geom type="sphere" size="0.1" pos="0.3 0 0.1" density="500"/>
  <body name="arm" pos="0.1 0.2 0.3" euler="0.4 -0.2 0.9">
    <joint name="hinge" type="hinge" axis="1 2 3" pos="0.05 -0.1 0.02" ref="0.4"/>
    <geom type="capsule" size="0.05" fromto="0 0 0 0.3 0.1 0.2" density="400"/>
    <body name="welded" pos="0.3 0.1 0.2" euler="1 0.5 0.2">
      <geom type="box" size="0.05 0.1 0.02" pos="0.01 0.02 0.1" density="900"/>
      <body name="rod" pos="0.1 0 0.05" euler="0.2 0.1 -0.6">
        <joint name="slide" type="slide" axis="0 1 1" pos="0.1 0 0" ref="0.2"/>
        <geom type="cylinder" size="0.04 0.2" pos="0 0.1 0" euler="0.5 0 0" density="600"/>
      </body>
    </body>
  </body>
</body>
"""
NO_CONTACTS = '<default><geom contype="0" conaffinity="0"/></default>'


def run(simulator: Simulator, seconds: float, ctrl: Tensor | None = None) -> None:
    n = simulator.num_worlds
    if ctrl is None:
        ctrl = torch.zeros(n, simulator.robot.model.nu)
    for _ in range(round(seconds / simulator.control_dt)):
        simulator.step(ctrl, n)


def test_a_state_comes_back_as_it_was_set(engine: str, make: Make, robot_of: RobotOf) -> None:
    robot = robot_of(CROOKED, NO_CONTACTS, feet=("root",))
    simulator = make(engine, robot, 16, dt=1e-6)
    qpos, qvel = random_states(robot, 16)
    simulator.set_state(everyone(simulator), qpos, qvel)
    assert torch.equal(simulator.qpos, qpos)
    assert torch.equal(simulator.qvel, qvel)
    run(simulator, 1e-6)
    torch.testing.assert_close(simulator.qpos[:, :3], qpos[:, :3], rtol=0, atol=2e-5)
    assert rotation_error(simulator.qpos[:, 3:7], qpos[:, 3:7]).max() < 1e-3
    torch.testing.assert_close(simulator.qpos[:, 7:], qpos[:, 7:], rtol=0, atol=1e-5)
    torch.testing.assert_close(simulator.qvel, qvel, rtol=0, atol=1e-3)


def test_engines_agree_on_a_crooked_robot_in_the_air(pybullet: None, make: Make, robot_of: RobotOf) -> None:
    robot = robot_of(CROOKED, NO_CONTACTS)
    qpos, qvel = random_states(robot, 16)
    qvel *= 3
    results = []
    for name in ("mujoco", "pybullet"):
        simulator = make(name, robot, 16, substeps=50)
        simulator.set_state(everyone(simulator), qpos, qvel)
        run(simulator, 0.2)
        results.append((simulator.qpos.clone(), simulator.qvel.clone()))
    (qpos_a, qvel_a), (qpos_b, qvel_b) = results
    assert (qvel_a - qvel).abs().mean() > 0.5  # there is a motion to agree on
    torch.testing.assert_close(qpos_a[:, :3], qpos_b[:, :3], rtol=0, atol=2e-3)
    assert rotation_error(qpos_a[:, 3:7], qpos_b[:, 3:7]).max() < 5e-3
    torch.testing.assert_close(qpos_a[:, 7:], qpos_b[:, 7:], rtol=0, atol=5e-3)
    torch.testing.assert_close(qvel_a, qvel_b, rtol=0.01, atol=0.02)


def test_centre_of_mass_of_a_spinning_body_follows_a_parabola(engine: str, make: Make, robot_of: RobotOf) -> None:
    offset = torch.tensor([0.1, -0.2, 0.3])
    geom = f'<geom type="sphere" size="0.2" pos="{" ".join(map(str, offset.tolist()))}"/>'
    robot = robot_of(f'<body name="ball"><freejoint/>{geom}</body>', feet=("ball",))
    simulator = make(engine, robot, 8)
    qpos, qvel = random_states(robot, 8)
    simulator.set_state(everyone(simulator), qpos, qvel)

    def centre() -> tuple[Tensor, Tensor]:
        """Position and velocity of the centre of mass."""
        positions, velocities = [], []
        for q, v in zip(simulator.qpos, simulator.qvel, strict=True):
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, q[3:7].double().numpy())
            matrix = torch.from_numpy(rotation.reshape(3, 3)).float()
            positions.append(q[:3] + matrix @ offset)
            velocities.append(v[:3] + matrix @ torch.linalg.cross(v[3:6], offset))
        return torch.stack(positions), torch.stack(velocities)

    position, velocity = centre()
    time = 1.0
    run(simulator, time)
    gravity = torch.tensor([0.0, 0.0, -9.81])
    expected = position + velocity * time + gravity * time**2 / 2
    step = DT / simulator.config.substeps  # type: ignore[attr-defined]
    spin = float(qvel[:, 3:6].square().sum(1).max() * offset.norm())  # acceleration of the origin about the centre
    tolerance = (9.81 + spin) * time * step / 2 + 1e-3  # of a first-order integrator
    torch.testing.assert_close(centre()[0], expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(centre()[1], velocity + gravity * time, rtol=0, atol=spin * time * step + 1e-3)


def test_period_of_a_pendulum(engine: str, make: Make, robot_of: RobotOf) -> None:
    length, amplitude = 0.5, 0.2
    robot = robot_of(
        f"""<body name="bob" pos="0 0 2"><joint name="hinge" type="hinge" axis="0 1 0" damping="0"/>
        <inertial pos="0 0 {-length}" mass="2" diaginertia="0.1 0.1 0.1"/></body>""",
        feet=("bob",),
    )
    simulator = make(engine, robot, 1)
    simulator.set_state(everyone(simulator), torch.tensor([[amplitude]]), torch.zeros(1, 1))
    angles = []
    for _ in range(600):
        simulator.step(torch.zeros(1, 0), 1)
        angles.append(float(simulator.qpos[0, 0]))
    crossings = [i - a / (b - a) for i, (a, b) in enumerate(itertools.pairwise(angles)) if a < 0 <= b]
    period = (crossings[-1] - crossings[0]) / (len(crossings) - 1) * DT
    inertia = 0.1 + 2 * length**2
    expected = 2 * math.pi * math.sqrt(inertia / (2 * 9.81 * length)) * (1 + amplitude**2 / 16)
    assert period == pytest.approx(expected, rel=5e-3)
    assert max(angles[-200:]) == pytest.approx(amplitude, rel=0.05)


ACTUATED = """
<body name="cart"><joint name="slide" type="slide" axis="0 1 0"/><geom type="box" size=".1 .1 .1" mass="2"/></body>
<body name="wheel" pos="2 0 0"><joint name="hinge" type="hinge" axis="0 0 1"/>
  <inertial pos="0 0 0" mass="1" diaginertia="0.5 0.5 0.5"/></body>
"""
MOTORS = """<actuator><motor name="turn" joint="hinge" gear="-3" ctrlrange="-1 1"/>
<motor name="push" joint="slide" gear="10" ctrlrange="-1 1"/></actuator>"""


def test_gear_sign_and_control_range(engine: str, make: Make, robot_of: RobotOf) -> None:
    simulator = make(engine, robot_of(ACTUATED, MOTORS, feet=("cart",)), 2)
    run(simulator, 0.5, torch.tensor([[0.5, 0.25], [7.0, -9.0]]))
    # Velocity = gear * control / inertia * time; the second world's controls are clipped to 1 and -1.
    expected = torch.tensor([[10 * 0.25 / 2, -3 * 0.5 / 0.5], [10 * -1 / 2, -3 * 1 / 0.5]]) * 0.5
    torch.testing.assert_close(simulator.qvel, expected, rtol=1e-3, atol=1e-3)


def test_joint_limits_hold_under_full_torque(engine: str, make: Make, ant: RobotModel) -> None:
    simulator = make(engine, ant, 2)
    qpos, qvel = standing(ant, 2)
    qpos[:, 2] = 5.0
    simulator.set_state(everyone(simulator), qpos, qvel)
    run(simulator, 0.5, torch.stack([torch.ones(8), -torch.ones(8)]))
    lower, upper = torch.from_numpy(ant.joint_limits).float().unbind(1)
    joints = simulator.qpos[:, 7:]
    assert (joints[0] - upper).abs().max() < 0.1
    assert (joints[1] - lower).abs().max() < 0.1


@pytest.fixture
def standing_ant(engine: str, make: Make, ant: RobotModel) -> Simulator:
    """An Ant after one second of standing on bent legs."""
    simulator = make(engine, ant, 1, bodies=ant.feet)
    simulator.set_state(everyone(simulator), *standing(ant, 1))
    run(simulator, 1.0)
    return simulator


def tips(robot: RobotModel, qpos: Tensor) -> np.ndarray:
    """World positions of the lower ends of the feet's capsules, (feet, 3), by MuJoCo's kinematics."""
    data = mujoco.MjData(robot.model)
    data.qpos[:] = qpos.double().numpy()
    mujoco.mj_kinematics(robot.model, data)
    found = []
    for name in robot.feet:
        geom = robot.model.geom(name)
        axis = data.geom_xmat[geom.id].reshape(3, 3)[:, 2] * geom.size[1]
        centre = data.geom_xpos[geom.id]
        found.append(min(centre + axis, centre - axis, key=lambda end: end[2]) - [0, 0, geom.size[0]])
    return np.array(found)


def test_ant_stands_on_the_ground(standing_ant: Simulator, ant: RobotModel) -> None:
    assert standing_ant.qvel.abs().max() < 0.2
    assert 0.45 < float(standing_ant.qpos[0, 2]) < 0.56
    assert (np.abs(tips(ant, standing_ant.qpos[0])[:, 2]) < 0.006).all()


def test_contact_forces_of_a_standing_ant_balance(standing_ant: Simulator, ant: RobotModel) -> None:
    wrench = standing_ant.contact_wrench[0].double().numpy()
    weight = float(ant.model.body_mass.sum()) * 9.81
    np.testing.assert_allclose(wrench[:, :3].sum(0), [0, 0, weight], rtol=0.02, atol=0.02 * weight)
    np.testing.assert_allclose(wrench[:, 3:].sum(0), 0, atol=0.03 * weight)
    assert (wrench[:, 2] > 0.15 * weight).all()
    # Each foot's torque is that of its force at its tip, about the root's origin; friction keeps the legs from sliding
    # outwards.
    arms = tips(ant, standing_ant.qpos[0]) - standing_ant.qpos[0, :3].double().numpy()
    np.testing.assert_allclose(wrench[:, 3:], np.cross(arms, wrench[:, :3]), atol=0.03 * weight)
    assert ((arms[:, :2] * wrench[:, :2]).sum(1) < 0).all()


def test_contact_force_changes_the_momentum(engine: str, make: Make, ant: RobotModel) -> None:
    """Newton's second law, in every step of a slide over the ground: one physics step a control period."""
    dt = 1 / 480
    simulator = make(engine, ant, 4, dt=dt, bodies=ant.feet, substeps=1)
    qpos, qvel = standing(ant, 4)
    qvel[:, 0], qvel[:, 1] = 1.0, torch.tensor([0.0, 0.5, 1.0, 1.5])
    simulator.set_state(everyone(simulator), qpos, qvel)
    model, data = ant.model, mujoco.MjData(ant.model)

    def momentum() -> np.ndarray:
        rows = []
        for q, v in zip(simulator.qpos, simulator.qvel, strict=True):
            data.qpos[:], data.qvel[:] = q.double().numpy(), v.double().numpy()
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_comVel(model, data)
            mujoco.mj_subtreeVel(model, data)
            rows.append(data.subtree_linvel[0] * model.body_mass.sum())
        return np.array(rows)

    before, weight = momentum(), model.body_mass.sum() * model.opt.gravity
    impulses = np.zeros((4, 3))
    for _ in range(60):
        simulator.step(torch.zeros(4, 8), 4)
        impulses += (simulator.contact_wrench[:, :, :3].sum(1).double().numpy() + weight) * dt
    change = momentum() - before
    assert np.abs(change[:, :2]).max() > 0.1
    np.testing.assert_allclose(impulses, change, rtol=0.03, atol=0.01)


def permuted(path: Path, folder: Path) -> Path:
    """The same MJCF with sibling bodies and actuators in reverse order."""
    tree = ElementTree.parse(path)
    for parent in [*tree.iter("body"), *tree.iter("worldbody"), *tree.iter("actuator")]:
        movable = [child for child in parent if child.tag in ("body", "motor")]
        for child in movable:
            parent.remove(child)
        parent.extend(reversed(movable))
    tree.write(folder / "permuted.xml")
    return folder / "permuted.xml"


def test_order_in_the_file_does_not_matter(engine: str, make: Make, ant: RobotModel, tmp_path: Path) -> None:
    other = RobotModel(permuted(ant.path, tmp_path), ant.feet)
    assert other.joint_names != ant.joint_names
    assert other.actuator_names != ant.actuator_names
    joints = [ant.joint_names.index(name) for name in other.joint_names]
    actuators = [ant.actuator_names.index(name) for name in other.actuator_names]
    qpos, qvel = standing(ant, 4)
    qpos[:, 2] += torch.tensor([2.0, 3.0, 4.0, 5.0])
    qpos[:, 7:] += 0.1 * torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    ctrl = 0.3 * torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    first, second = make(engine, ant, 4, bodies=ant.feet), make(engine, other, 4, bodies=ant.feet)

    def set_both() -> None:
        first.set_state(everyone(first), qpos, qvel)
        second.set_state(everyone(second), torch.cat([qpos[:, :7], qpos[:, 7:][:, joints]], 1), qvel)

    set_both()
    run(first, 5 * DT, ctrl)
    run(second, 5 * DT, ctrl[:, actuators])
    assert (first.qpos[:, 7:] - qpos[:, 7:]).abs().min() > 1e-3
    torch.testing.assert_close(first.qpos[:, 7:][:, joints], second.qpos[:, 7:], rtol=0, atol=1e-4)
    torch.testing.assert_close(first.qpos[:, :3], second.qpos[:, :3], rtol=0, atol=1e-4)
    # A foot that is lifted bears nothing: its place among the wrenches tells whether they are in order.
    qpos, qvel = standing(ant, 4)
    qpos[torch.arange(4), 8 + 2 * torch.arange(4)] *= 0.6
    set_both()
    run(first, 4 * DT)
    run(second, 4 * DT)
    loads = first.contact_wrench[..., 2]
    assert (loads.diagonal() == 0).all()
    assert (loads.sum(1) > 1.0).all()
    torch.testing.assert_close(loads, second.contact_wrench[..., 2], rtol=0.05, atol=0.1)
