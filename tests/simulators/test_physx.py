"""What is special to PhysX: armature, its settings, its way to contact forces, refusals, worker processes."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace

import mujoco
import numpy as np
import pytest
import torch
from engines_under_test import Make

from dualfid_robot.conformance.worlds import everyone, random_states, run, standing
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.physx.model import make_articulation
from dualfid_robot.simulators.physx.protocol import Articulation, Spec
from dualfid_robot.simulators.physx.simulator import PhysxSimulator

RobotOf = Callable[..., RobotModel]

FLOOR = '<geom name="floor" type="plane" size="0 0 1"/>'
BALL = '<body name="ball" pos="0 0 1"><freejoint name="free"/><geom name="skin" size="0.1" mass="2"/></body>'


@pytest.fixture
def installed() -> None:
    """Skip where SAPIEN is not installed."""
    pytest.importorskip("sapien", reason="SAPIEN is not installed")


def accelerations(robot: RobotModel, qpos: torch.Tensor, qvel: torch.Tensor, ctrl: torch.Tensor) -> np.ndarray:
    """MuJoCo's generalized accelerations in these states."""
    data = mujoco.MjData(robot.model)
    found = []
    for q, v, u in zip(qpos, qvel, ctrl, strict=True):
        data.qpos[:], data.qvel[:], data.ctrl[:] = q.double().numpy(), v.double().numpy(), u.double().numpy()
        mujoco.mj_forward(robot.model, data)
        found.append(data.qacc.copy())
    return np.array(found)


# Dynamics -----------------------------------------------------------------------------------------------------------


def test_armature_resists_as_inertia_does(installed: None, make: Make, robot_of: RobotOf) -> None:
    wheels = "".join(
        f'<body name="w{i}" pos="{i} 0 0"><joint name="j{i}" axis="0 0 1" armature="{armature}"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia="0.5 0.5 0.5"/></body>'
        for i, armature in enumerate((0.0, 0.1, 2.0))
    )
    motors = "".join(f'<motor joint="j{i}" gear="3"/>' for i in range(3))
    simulator = make("physx", robot_of(wheels, f"<actuator>{motors}</actuator>"), 1)
    run(simulator, 0.5, torch.full((1, 3), 0.7))
    expected = 3 * 0.7 * 0.5 / (0.5 + torch.tensor([[0.0, 0.1, 2.0]]))
    torch.testing.assert_close(simulator.qvel, expected, rtol=1e-5, atol=0)


def test_accelerations_of_a_flying_ant_are_mujocos(installed: None, make: Make, ant: RobotModel) -> None:
    """Armature on a floating base, spinning bodies, damping, motors: a short step against MuJoCo's own equations."""
    n, dt = 32, 1e-3
    qpos, qvel = random_states(ant, n)
    qpos[:, 2] += 20.0
    qpos[:, 7:] = torch.from_numpy(ant.joint_limits.mean(1)).float() + 0.2 * (qpos[:, 7:] - qpos[:, 7:].mean(1, True))
    ctrl = torch.rand(n, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    simulator = make("physx", ant, n, dt=dt, substeps=1)
    simulator.set_state(everyone(simulator), qpos, qvel)
    simulator.step(ctrl, n)
    found = ((simulator.qvel - qvel) / dt).double().numpy()
    expected = accelerations(ant, qpos, qvel, ctrl)
    assert np.abs(expected).max() > 100  # rad/s²
    # Damping is implicit: the light legs lose a per cent of their acceleration to it within the step.
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_free_flight_follows_mujoco(installed: None, make: Make, ant: RobotModel) -> None:
    """Five control periods with torques at a tenth of their range, at the default of 120 Hz."""
    n = 64
    generator = torch.Generator().manual_seed(0)
    qpos, _ = standing(ant, n)
    qpos[:, 2] = 50.0
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    qpos[:, 7:] += 0.1 * torch.randn(n, 8, generator=generator)
    qvel = torch.randn(n, 14, generator=generator)
    ctrl = 0.1 * (2 * torch.rand(5, n, 8, generator=generator) - 1)
    simulator, reference = make("physx", ant, n), make("mujoco", ant, n, substeps=64)
    for each in (simulator, reference):
        each.set_state(everyone(each), qpos, qvel)
        for row in ctrl:
            each.step(row, n)
    error = (simulator.qvel - reference.qvel)[:, 6:].abs().mean()
    assert (reference.qvel - qvel)[:, 6:].abs().mean() > 0.8  # rad/s
    assert error < 0.04


def test_several_joints_in_one_body(installed: None, make: Make, robot_of: RobotOf) -> None:
    """Nearly massless links stand between them; with anchors, a slide and a spring, against MuJoCo."""
    robot = robot_of(
        """<body name="cart" pos="0 0 2" euler="0.2 0.3 0.1">
        <joint name="x" type="slide" axis="1 0 0" armature="0.1"/><joint name="z" type="slide" axis="0 0.6 0.8"/>
        <joint name="pitch" axis="0 1 0" pos="0.05 0 0.1" stiffness="3" springref="0.3" damping="0.2"/>
        <geom type="capsule" size="0.05 0.2" pos="0.1 0 0" mass="2"/>
        <body name="leg" pos="0.1 0 -0.3"><joint name="a" axis="1 0 0" ref="0.1"/><joint name="b" axis="0 1 0.2"/>
        <joint name="c" axis="0 0 1" pos="0 0.02 0"/><geom type="box" size="0.05 0.1 0.2" pos="0 0.1 -0.1" mass="1"/>
        </body></body>""",
        '<default><geom contype="0" conaffinity="0"/></default>',
    )
    qpos, qvel = random_states(robot, 16)
    simulator, reference = make("physx", robot, 16, substeps=32), make("mujoco", robot, 16, substeps=32)
    for each in (simulator, reference):
        each.set_state(everyone(each), qpos, qvel)
        run(each, 0.2)
    assert (reference.qpos - qpos).abs().max() > 0.3
    torch.testing.assert_close(simulator.qpos, reference.qpos, rtol=0, atol=5e-3)
    torch.testing.assert_close(simulator.qvel, reference.qvel, rtol=0.02, atol=0.05)


ACTUATORS = {
    "servo with gear": '<position joint="hinge" kp="40" kv="3" gear="-2"/>',
    "limited servo": '<position joint="hinge" kp="400" kv="3" forcerange="-2 2"/>',
    "general": '<general joint="hinge" gainprm="3" biastype="affine" biasprm="0.4 -2 -1" ctrlrange="-1 0.5"/>',
    "two on one joint": '<motor joint="hinge" gear="2"/><motor joint="hinge" gear="-0.5" forcerange="-0.2 0.2"/>',
}


@pytest.mark.parametrize("name", ACTUATORS)
@pytest.mark.parametrize("joint", ["", 'actuatorfrcrange="-1 1.5"', 'damping="0.5"'])
def test_actuators_follow_mujocos_law(name: str, joint: str, installed: None, make: Make, robot_of: RobotOf) -> None:
    robot = robot_of(
        f"""<body name="arm" pos="0 0 2"><joint name="hinge" axis="0 1 0" ref="0.3" {joint}/>
        <inertial pos="0 0 -0.1" mass="1" diaginertia="0.2 0.2 0.2"/></body>""",
        f"<actuator>{ACTUATORS[name]}</actuator>",
    )
    n = 8
    qpos, qvel = random_states(robot, n)
    ctrl = 2 * torch.randn(n, robot.model.nu, generator=torch.Generator().manual_seed(1))
    simulator, reference = make("physx", robot, n, substeps=16), make("mujoco", robot, n, substeps=16)
    for each in (simulator, reference):
        each.set_state(everyone(each), qpos, qvel)
        run(each, 0.25, ctrl)
    assert (reference.qpos - qpos).abs().max() > 0.1
    torch.testing.assert_close(simulator.qpos, reference.qpos, rtol=0, atol=3e-3)
    torch.testing.assert_close(simulator.qvel, reference.qvel, rtol=0, atol=0.02)


@pytest.mark.parametrize("bound", ["", 'forcerange="-8 12"'])
def test_strength_scales_the_whole_actuator(bound: str, installed: None, make: Make, robot_of: RobotOf) -> None:
    """Its velocity feedback, too, which PhysX's drive takes where no bound cuts it; not the bound itself."""
    slide = '<body name="load"><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1" mass="2"/></body>'
    robot = robot_of(slide, f'<actuator><position joint="slide" kp="30" kv="9" gear="2" {bound}/></actuator>')
    strength = torch.tensor([[0.0], [0.5], [2.0]])
    simulator, reference = make("physx", robot, 3, substeps=16), make("mujoco", robot, 3, substeps=16)
    for each in (simulator, reference):
        each.set_parameters(everyone(each), {"motor_strength": strength})
        each.set_state(everyone(each), torch.zeros(3, 1), torch.full((3, 1), 1.5))
        run(each, 0.2, torch.full((3, 1), 0.7))
    torch.testing.assert_close(simulator.qpos, reference.qpos, rtol=0, atol=2e-3)
    torch.testing.assert_close(simulator.qvel, reference.qvel, rtol=0, atol=0.02)
    assert reference.qvel.diff(dim=0).abs().min() > 0.1


def test_a_stiff_servo_on_a_light_joint_stays_stable(installed: None, make: Make, robot_of: RobotOf) -> None:
    """Velocity feedback of twelve times what an explicit one could bear at this step."""
    robot = robot_of(
        """<body name="arm"><joint name="hinge" axis="0 0 1"/>
        <inertial pos="0 0 0" mass="1" diaginertia="0.01 0.01 0.01"/></body>""",
        '<actuator><position joint="hinge" kp="100" kv="30"/></actuator>',
    )
    simulator = make("physx", robot, 1)
    run(simulator, 2.0, torch.ones(1, 1))
    assert float(simulator.qpos[0, 0]) == pytest.approx(1.0, abs=2e-3)


def test_nothing_bounds_a_speed(installed: None, make: Make, robot_of: RobotOf) -> None:
    """PhysX does by default: a free body's at 10 m/s and 50 rad/s, and a joint's."""
    wheel = '<body name="wheel" pos="2 0 0"><joint axis="0 0 1"/><geom size="0.1" mass="1"/></body>'
    ball = make("physx", robot_of(BALL), 1)
    qvel = torch.tensor([[300.0, 0.0, 0.0, 0.0, 0.0, 400.0]])
    ball.set_state(everyone(ball), torch.tensor([[0.0, 0, 1, 1, 0, 0, 0]]), qvel)
    run(ball, 0.1)
    torch.testing.assert_close(ball.qvel[:, [0, 5]], qvel[:, [0, 5]], rtol=1e-4, atol=0)
    spinner = make("physx", robot_of(wheel), 1)
    spinner.set_state(everyone(spinner), torch.zeros(1, 1), torch.full((1, 1), 500.0))
    run(spinner, 0.1)
    torch.testing.assert_close(spinner.qvel, torch.full((1, 1), 500.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(spinner.qpos, torch.full((1, 1), 50.0), rtol=1e-4, atol=0)  # many turns


# Settings -----------------------------------------------------------------------------------------------------------


def test_rest_offsets_and_margins_add_up(installed: None, make: Make, robot_of: RobotOf) -> None:
    robot = robot_of(FLOOR.replace("/>", ' margin="0.003"/>') + BALL.replace('size="0.1"', 'size="0.1" margin="0.004"'))
    simulator = make("physx", robot, 1, rest_offset=0.01, contact_offset=0.03)
    simulator.set_state(everyone(simulator), torch.tensor([[0.0, 0, 0.15, 1, 0, 0, 0]]), torch.zeros(1, 6))
    run(simulator, 1.0)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.1 + 0.003 + 0.004 + 2 * 0.01, abs=5e-4)


@pytest.mark.parametrize("bound", [0.5, 2.0])
def test_penetration_is_undone_at_a_bounded_speed(bound: float, installed: None, make: Make, robot_of: RobotOf) -> None:
    robot = robot_of(FLOOR + BALL, '<option gravity="0 0 0"/>')
    simulator = make("physx", robot, 1, max_depenetration_velocity=bound)
    simulator.set_state(everyone(simulator), torch.tensor([[0.0, 0, 0.04, 1, 0, 0, 0]]), torch.zeros(1, 6))
    simulator.step(torch.zeros(1, 0), 1)
    risen = float(simulator.qpos[0, 2]) - 0.04
    assert risen == pytest.approx(bound / 60, rel=0.2)


def test_contacts_are_made_within_the_contact_offset(installed: None, make: Make, robot_of: RobotOf) -> None:
    """Without velocity bounds nothing else can stop a fast ball before a thin plate."""
    plate = '<geom name="plate" type="box" size="1 1 0.005"/>'
    robot = robot_of(plate + BALL.replace('size="0.1"', 'size="0.02"'), '<option gravity="0 0 0"/>')
    passed = []
    for offset in (0.001, 0.2):
        simulator = make("physx", robot, 1, contact_offset=offset)
        qvel = torch.zeros(1, 6)
        qvel[0, 2] = -20.0  # 17 cm a physics step
        simulator.set_state(everyone(simulator), torch.tensor([[0.0, 0, 0.3, 1, 0, 0, 0]]), qvel)
        run(simulator, 0.2)
        passed.append(bool(simulator.qpos[0, 2] < 0))
    assert passed == [True, False]


def test_solver_settings_reach_physx(installed: None, make: Make, ant: RobotModel) -> None:
    from dualfid_robot.simulators.physx.scene import JointChanges, World, combine

    simulator = make("physx", ant, 1, solver="pgs", position_iterations=7, velocity_iterations=3)
    assert isinstance(simulator, PhysxSimulator)
    spec = simulator._specs[0]
    assert isinstance(spec, Spec)
    bodies = ant.model.nbody - 1
    masses = [combine(link.parts, np.ones(bodies), np.zeros((bodies, 3))) for link in spec.articulation.links]
    nominal = JointChanges(np.ones(8), np.ones(8), np.zeros((8, 2)))
    each = (spec, replace(spec, solver="tgs"))
    world, tgs = (World(own, masses, 1.0, nominal, ant.model.opt.gravity) for own in each)
    assert not world.system.config.enable_tgs
    assert tgs.system.config.enable_tgs
    assert (world.robot.solver_position_iterations, world.robot.solver_velocity_iterations) == (7, 3)
    assert world.system.timestep == pytest.approx(1 / 120)


def test_more_iterations_hold_limits_better(installed: None, make: Make, ant: RobotModel) -> None:
    """Full torque presses all joints to their limits."""
    upper = torch.from_numpy(ant.joint_limits[:, 1]).float()
    errors = []
    for iterations in (1, 4, 16):
        simulator = make("physx", ant, 1, position_iterations=iterations)
        qpos, qvel = standing(ant, 1)
        qpos[:, 2] = 5.0
        simulator.set_state(everyone(simulator), qpos, qvel)
        run(simulator, 0.5, torch.ones(1, 8))
        errors.append(float((simulator.qpos[0, 7:] - upper).abs().max()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_only_feet_touch_if_asked(installed: None, make: Make, robot_of: RobotOf) -> None:
    block = '<body name="{0}" pos="{0} 0 0.2"><joint type="slide" axis="0 0 1"/><geom size="0.1"/></body>'
    robot = robot_of(FLOOR + block.format(1) + block.format(2), feet=("2",))
    for contacts, fallen in (("full", [False, False]), ("feet", [True, False])):
        simulator = make("physx", robot, 1, contacts=contacts)
        run(simulator, 1.0)
        assert (simulator.qpos[0] < -0.2).tolist() == fallen


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("substeps", 0),
        ("solver", "cg"),
        ("position_iterations", 0),
        ("position_iterations", 256),
        ("velocity_iterations", -1),
        ("contact_offset", 0.0),
        ("rest_offset", -0.1),
        ("rest_offset", 0.05),
        ("max_depenetration_velocity", 0.0),
        ("friction", float("nan")),
        ("contacts", "hands"),
        ("workers", -1),
        ("bounce_threshold", 0.2),
    ],
)
def test_wrong_settings_are_named(setting: str, value: object, installed: None, make: Make, ant: RobotModel) -> None:
    with pytest.raises(ConfigError, match=rf"^physx\..*{setting}"):
        make("physx", ant, 1, **{setting: value})


# Contacts -----------------------------------------------------------------------------------------------------------


def test_a_box_on_a_slope_is_held_by_friction(installed: None, make: Make, robot_of: RobotOf) -> None:
    """Four contact points on one body: force against weight, and no torque about its centre."""
    box = '<body name="box" pos="0 0 0.1"><freejoint/><geom type="box" size="0.2 0.1 0.1" mass="3"/></body>'
    simulator = make("physx", robot_of(FLOOR + box), 1, bodies=("box",), position_iterations=32)
    gravity = torch.tensor([[2.0, 1.0, -9.0]])
    simulator.set_parameters(everyone(simulator), {"gravity": gravity})
    run(simulator, 1.0)
    assert simulator.qvel.abs().max() < 1e-2
    wrench = simulator.contact_wrench[0, 0]
    torch.testing.assert_close(wrench[:3], -3 * gravity[0], rtol=0, atol=0.1)
    torch.testing.assert_close(wrench[3:], torch.zeros(3), rtol=0, atol=0.1)


def test_bodies_that_are_welded_share_what_their_link_bears(installed: None, make: Make, robot_of: RobotOf) -> None:
    """Two pairs of feet in one link, three quarters of the load over the one of them, on a slope."""
    feet = "".join(
        f'<body name="{name}" pos="{x} 0 0"><geom size="0.1" pos="0 -0.2 0" mass="{mass / 2}"/>'
        f'<geom size="0.1" pos="0 0.2 0" mass="{mass / 2}"/></body>'
        for name, x, mass in (("heavy", -0.3, 3), ("light", 0.3, 1))
    )
    robot = robot_of(FLOOR + f'<body name="table" pos="0 0 0.1"><freejoint/>{feet}</body>')
    simulator = make("physx", robot, 1, bodies=("light", "heavy"), position_iterations=32)
    alone = make("physx", robot, 1, bodies=("light",), position_iterations=32)
    gravity = torch.tensor([[0.0, 2.0, -9.0]])
    for each in (simulator, alone):
        each.set_parameters(everyone(each), {"gravity": gravity})
        run(each, 1.0)
    forces = simulator.contact_wrench[0, :, :3]
    torch.testing.assert_close(forces, -torch.tensor([[1.0], [3.0]]) * gravity, rtol=0, atol=0.3)
    torch.testing.assert_close(forces.sum(0), -4 * gravity[0], rtol=0, atol=0.1)
    torch.testing.assert_close(alone.contact_wrench[0, 0], simulator.contact_wrench[0, 0], rtol=0, atol=1e-5)


def test_forces_between_links_are_counted(installed: None, make: Make, robot_of: RobotOf) -> None:
    """A slider lies on another, which lies on the floor. The net force on each is against its own weight."""
    robot = robot_of(
        FLOOR
        + "".join(
            f'<body name="{name}" pos="0 0 {z}"><joint type="slide" axis="0 0 1"/><geom type="box" size="{s} {s} 0.1" '
            f'mass="{mass}"/></body>'
            for name, z, s, mass in (("lower", 0.1, 0.3, 2), ("upper", 0.3, 0.2, 5))
        )
    )
    simulator = make("physx", robot, 1, bodies=("lower", "upper"), position_iterations=32)
    run(simulator, 1.0)
    assert simulator.qvel.abs().max() < 1e-2
    forces = simulator.contact_wrench[0, :, 2] / 9.81
    torch.testing.assert_close(forces, torch.tensor([2.0, 5.0]), rtol=0.02, atol=0)


def make_of(robot: RobotModel) -> Articulation:
    return make_articulation(robot.model, robot.path.name, 1.0, 0.0, 0.02)


def test_friction_of_a_pair_is_mujocos(robot_of: RobotOf) -> None:
    """Its larger coefficient, from PhysX's mean of two; and none where no geom of the pair has any."""
    balls = "".join(
        f'<body name="b{i}" pos="{i} 0 1"><freejoint/><geom name="g{i}" size="0.1" friction="{mu}" contype="0"/></body>'
        for i, mu in enumerate((0.2, 0.9))
    )
    with pytest.raises(ConfigError, match="second"):
        PhysxSimulator.check_robot(robot_of(balls))
    sliders = balls.replace("<freejoint/>", '<joint type="slide"/>')
    robot = make_of(robot_of(FLOOR.replace("/>", ' friction="0.5"/>') + sliders))
    floor = robot.ground[0].friction
    found = [(floor + shape.friction) / 2 for link in robot.links for shape in link.shapes]
    assert found == pytest.approx([0.5, 0.9])


def test_frictions_that_no_materials_give_are_refused(robot_of: RobotOf) -> None:
    """Pairs of three that all touch each other with 1, 0.1, 0.1 would need a negative one."""
    balls = "".join(
        f'<body name="b{i}" pos="{i} 0 1"><joint type="slide"/><geom name="g{i}" size="0.1" friction="{mu}" '
        f'priority="{priority}"/></body>'
        for i, mu, priority in ((0, 1.0, 0), (1, 0.7, 0), (2, 0.1, 1))
    )
    with pytest.raises(ConfigError, match="geoms g0, g2: their friction"):
        make_of(robot_of(balls))


def test_excluded_bodies_pass_through_each_other(installed: None, make: Make, robot_of: RobotOf) -> None:
    """By name, and parent and child where massless links stand between them and PhysX would not know."""
    bodies = """<body name="a" pos="0 0 1"><joint name="a" type="slide" axis="1 0 0"/><geom size="0.1"/>
      <body name="b" pos="0.05 0 0"><joint name="bx" type="slide" axis="1 0 0"/><joint name="by" type="slide"
       axis="0 1 0"/><geom size="0.1"/></body></body>
    <body name="c" pos="0.5 0 1"><joint name="c" type="slide" axis="1 0 0"/><geom size="0.1"/></body>"""
    for rest, touches in (('<contact><exclude body1="a" body2="c"/></contact>', False), ("", True)):
        simulator = make("physx", robot_of(bodies, rest + '<option gravity="0 0 0"/>'), 1)
        qpos = torch.tensor([[0.0, 0.0, 1.0, -0.45]])  # b is out of the way of c, which begins inside of a
        simulator.set_state(everyone(simulator), qpos, torch.zeros(1, 4))
        run(simulator, 0.1)
        assert bool((simulator.qpos - qpos).abs().max() > 1e-2) == touches
    simulator.set_state(everyone(simulator), torch.zeros(1, 4), torch.zeros(1, 4))
    run(simulator, 0.1)
    assert not simulator.qpos.any()  # a and b overlap, and nothing pushes them apart


ARM = """<body name="arm"><joint name="hinge" {joint}/><geom name="bar" type="capsule" size="0.1 0.2" {geom}/>
<body name="tip" pos="1 0 0">{tip}<geom name="end" size="0.1" {end}/></body></body>"""


CABLE = '<fixed name="cable" stiffness="1"><joint joint="hinge" coef="1"/></fixed>'


def arm(joint: str = "", geom: str = "", tip: str = '<joint name="wrist"/>', end: str = "") -> str:
    return ARM.format(joint=joint, geom=geom, tip=tip, end=end)


@pytest.mark.parametrize(
    ("worldbody", "rest", "named"),
    [
        (arm(tip='<joint name="ball" type="ball"/>'), "", "joint ball: a ball joint"),
        (BALL.replace("<freejoint", '<joint type="free" damping="1"'), "", "joint free: a damped"),
        (BALL + '<body name="other"><joint/><geom size="0.1"/></body>', "", "body other: a second tree"),
        (BALL + '<body name="other" pos="2 0 1"><freejoint/><geom size="0.1"/></body>', "", "second"),
        ('<body name="hand" mocap="true"/>' + arm(), "", "body hand: a mocap"),
        (arm().replace('name="tip"', 'name="tip" gravcomp="1"'), "", "body tip: gravity compensation"),
        (arm(), f"<tendon>{CABLE}</tendon>", "tendon cable: a tendon that acts"),
        (arm(), '<equality><joint name="gear" joint1="hinge" joint2="wrist"/></equality>', "equality gear"),
        (arm(), '<contact><pair name="p" geom1="bar" geom2="end"/></contact>', "contact pair p"),
        (arm(), '<actuator><intvelocity name="v" joint="hinge" actrange="-1 1"/></actuator>', "actuator v"),
        (BALL, '<actuator><motor name="jet" joint="free" gear="0 0 1 0 0 0"/></actuator>', "actuator jet"),
        (FLOOR + BALL.replace('size="0.1"', 'type="ellipsoid" size=".1 .2 .3"'), "", "geom skin: a ellipsoid"),
        (FLOOR + BALL.replace('size="0.1"', 'type="cylinder" size=".1 .2"'), "", "geom skin: a cylinder"),
        (FLOOR + BALL.replace('size="0.1"', 'size="0.1" condim="6"'), "", "geom skin: condim 6"),
        (BALL, '<option density="1.2"/>', "a fluid"),
        (arm(), '<option><flag filterparent="disable"/></option>', "option flag filterparent"),
    ],
)
def test_what_it_cannot_express_is_refused_by_name(worldbody: str, rest: str, named: str, robot_of: RobotOf) -> None:
    with pytest.raises(ConfigError, match=named):
        PhysxSimulator.check_robot(robot_of(worldbody, rest))


def test_contacts_of_the_world_are_refused(make: Make, robot_of: RobotOf) -> None:
    with pytest.raises(ConfigError, match="contact_bodies=post: it does not move"):
        make("physx", robot_of('<body name="post"><geom size="0.1"/></body>' + BALL), 1, bodies=("post",))


# Processes ----------------------------------------------------------------------------------------------------------


def test_the_number_of_workers_does_not_matter(installed: None, make: Make, ant: RobotModel) -> None:
    n = 7
    ctrl = torch.rand(10, n, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    simulators = [make("physx", ant, n, bodies=ant.feet, workers=workers) for workers in (1, 2, 3)]
    for simulator in simulators:
        simulator.set_state(everyone(simulator), *standing(ant, n))
        for row in ctrl:
            simulator.step(row, n)
    for other in simulators[1:]:
        assert torch.equal(other.qpos, simulators[0].qpos)
        assert torch.equal(other.contact_wrench, simulators[0].contact_wrench)
    saved = simulators[0].snapshot()
    simulators[1].restore(saved)  # of another number of workers
    for simulator in simulators[:2]:
        simulator.step(ctrl[0], n)
    assert torch.equal(simulators[1].qvel, simulators[0].qvel)


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_killed_worker_is_replaced(
    installed: None, make: Make, ant: RobotModel, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    n, active = 8, 5
    simulator, twin = (make("physx", ant, n, bodies=ant.feet, workers=2) for _ in range(2))
    assert isinstance(simulator, PhysxSimulator)
    ctrl = torch.rand(n, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for each in (simulator, twin):
        each.set_state(everyone(each), *standing(ant, n))
        each.step(ctrl, n)
    before = simulator.qpos.clone()
    victim = simulator._workers[1].pid  # worlds 1, 3, 5, 7
    if moment == "during":
        os.kill(victim, signal.SIGSTOP)  # so that it cannot be done before it is killed
        simulator.start_step(ctrl[:active], active)
        os.kill(victim, signal.SIGKILL)
    else:
        os.kill(victim, signal.SIGKILL)
        simulator.start_step(ctrl[:active], active)
    with caplog.at_level(logging.WARNING):
        simulator.finish_step()
    twin.step(ctrl[:active], active)
    assert "worker 1 of engine physx died" in caplog.text
    assert simulator.worker_restarts == 1
    lost, kept = torch.tensor([1, 3]), torch.tensor([0, 2, 4])
    assert torch.equal(simulator.failed.nonzero().squeeze(1), lost)
    assert torch.equal(simulator.qpos[lost], torch.from_numpy(ant.model.qpos0).float().expand(2, -1))
    assert torch.equal(simulator.qpos[kept], twin.qpos[kept])
    assert torch.equal(simulator.qpos[active:], before[active:])
    for each in (simulator, twin):
        each.step(ctrl, n)
    assert not simulator.failed.any()
    # Those that waited go on, without the contact caches that died with the worker.
    torch.testing.assert_close(simulator.qpos[active:], twin.qpos[active:], rtol=0, atol=1e-3)


def test_a_worker_that_fails_by_itself_is_not_started_again(
    installed: None, monkeypatch: pytest.MonkeyPatch, make: Make, ant: RobotModel
) -> None:
    whole = PhysxSimulator._spec

    def broken(self: PhysxSimulator, workers: int) -> Spec:
        return replace(whole(self, workers), control_dt="soon")  # type: ignore[arg-type]

    monkeypatch.setattr(PhysxSimulator, "_spec", broken)
    with pytest.raises(RuntimeError, match="ended at its start, status 1"):
        make("physx", ant, 1)


def test_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, make: Make, ant: RobotModel) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'^engine=physx: not installed; pip install "dualfid_robot\[physx\]"$'):
        make("physx", ant, 1)
