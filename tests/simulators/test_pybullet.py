"""What only PyBullet's processes have: crashes, left-overs, the free-flight twin, refusals."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engines_under_test import Make, skip_missing

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.conformance.parameters import change_parameters
from dualfid_robot.conformance.robots import CROOKED
from dualfid_robot.conformance.worlds import everyone, random_states, run, standing
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.pybullet.protocol import Spec
from dualfid_robot.simulators.pybullet.simulator import PybulletSimulator

ROOT = Path(__file__).parents[2]

RobotOf = Callable[..., RobotModel]


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_killed_worker_is_replaced(
    pybullet: None, make: Make, ant: RobotModel, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    n, active = 24, 20  # clients of 4: worlds 0-3, 8-11, 16-19 belong to worker 0, and so do none of the idle ones
    simulator, twin = (make("pybullet", ant, n, bodies=ant.feet) for _ in range(2))
    assert isinstance(simulator, PybulletSimulator)
    ctrl = torch.rand(n, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for each in (simulator, twin):
        each.set_state(everyone(each), *standing(ant, n))
        each.step(ctrl, n)
    before = simulator.qpos.clone()
    victim = simulator._workers[1].pid  # worlds 4-7, 12-15, 20-23
    if moment == "before":
        os.kill(victim, signal.SIGKILL)
        time.sleep(0.2)
        simulator.start_step(ctrl[:active], active)
    else:
        os.kill(victim, signal.SIGSTOP)  # so that it cannot be done before it is killed
        simulator.start_step(ctrl[:active], active)
        os.kill(victim, signal.SIGKILL)
    with caplog.at_level(logging.WARNING):
        simulator.finish_step()
    twin.step(ctrl[:active], active)
    assert "worker 1 of engine pybullet died" in caplog.text
    assert simulator.worker_restarts == 1
    lost = torch.tensor([4, 5, 6, 7, 12, 13, 14, 15])
    kept = torch.tensor([0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19])
    assert torch.equal(simulator.failed.nonzero().squeeze(1), lost)
    assert torch.equal(simulator.qpos[lost], torch.from_numpy(ant.model.qpos0).float().expand(len(lost), -1))
    assert torch.equal(simulator.qpos[kept], twin.qpos[kept])
    assert torch.equal(simulator.qpos[active:], before[active:])
    simulator.step(ctrl, n)
    twin.step(ctrl, n)
    assert not simulator.failed.any()
    torch.testing.assert_close(simulator.qpos[active:], twin.qpos[active:], rtol=0, atol=1e-5)


def test_a_worker_that_fails_by_itself_is_not_started_again(
    pybullet: None, monkeypatch: pytest.MonkeyPatch, make: Make, ant: RobotModel
) -> None:
    whole = PybulletSimulator._make_spec

    def broken(self: PybulletSimulator, workers: int, robots_per_client: int) -> Spec:
        return replace(whole(self, workers, robots_per_client), urdf="<robot")

    monkeypatch.setattr(PybulletSimulator, "_make_spec", broken)
    with pytest.raises(RuntimeError, match="worker process ended at its start, status 1"):
        make("pybullet", ant, 1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_close_leaves_nothing(pybullet: None, make: Make, ant: RobotModel) -> None:
    before = set(os.listdir("/proc/self/fd"))
    simulator = make("pybullet", ant, 8)
    assert isinstance(simulator, PybulletSimulator)
    workers = [worker.pid for worker in simulator._workers]
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    simulator.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert set(os.listdir("/proc/self/fd")) <= before


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import make_simulator
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
robot = RobotModel(Path(sys.argv[1]), ("foot_1",))
simulator = make_simulator({"engine": "pybullet", "workers": 2}, robot, 8, 0.01)
print(*[worker.pid for worker in simulator._workers], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_workers_end_with_their_parent(pybullet: None, ant: RobotModel, sent: signal.Signals) -> None:
    command = [sys.executable, "-c", SCRIPT, str(ant.path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(alive(pid) for pid in workers)
        os.killpg(parent.pid, sent)
        parent.wait(10)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def test_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, make: Make, ant: RobotModel) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "dualfid_robot\[pybullet\]".*simulator/low=mujoco_reduced'):
        make("pybullet", ant, 1)


def test_contacts_of_a_body_that_is_no_foot_are_refused(pybullet: None, make: Make, ant: RobotModel) -> None:
    with pytest.raises(ConfigError, match="torso"):
        make("pybullet", ant, 1, bodies=("torso", "foot_1"))


def test_free_flight_follows_mujoco(pybullet: None, make: Make, ant: RobotModel) -> None:
    """The substitute for armature: without contacts, with torques at a tenth of their range."""
    n = 64
    generator = torch.Generator().manual_seed(0)
    qpos, _ = standing(ant, n)
    qpos[:, 2] = 50.0
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    qpos[:, 7:] += 0.1 * torch.randn(n, 8, generator=generator)
    qvel = torch.randn(n, 14, generator=generator)
    ctrl = [0.1 * (2 * torch.rand(n, 8, generator=generator) - 1) for _ in range(5)]
    reference = make("mujoco", ant, n)
    twin = make("pybullet", ant, n, child_armature=1.2, parent_armature=2.5)
    for simulator in (reference, twin):
        simulator.set_state(everyone(simulator), qpos, qvel)
    for step, bound in enumerate((0.13, 0.16, 0.19, 0.22, 0.25)):
        for simulator in (reference, twin):
            simulator.step(ctrl[step], n)
        error = (twin.qvel - reference.qvel)[:, 6:].abs().mean()
        assert error < bound  # rad/s; the joints' mean speed is about 1
    assert (reference.qvel - qvel)[:, 6:].abs().mean() > 0.8


CRANE = """<body name="cart" pos="0 0 2" euler="0.2 0.3 0.1">
<joint name="x" type="slide" axis="1 0 0"/><joint name="z" type="slide" axis="0 0.6 0.8"/>
<joint name="pitch" axis="0 1 0" pos="0.05 0 0.1" stiffness="3" springref="0.3" damping="0.2"/>
<geom type="capsule" size="0.05 0.2" pos="0.1 0 0" mass="2"/>
<body name="leg" pos="0.1 0 -0.3"><joint name="a" axis="1 0 0" ref="0.1"/><joint name="b" axis="0 1 0.2"/>
<joint name="c" axis="0 0 1" pos="0 0.02 0"/><geom type="box" size="0.05 0.1 0.2" pos="0 0.1 -0.1" mass="1"/>
</body></body>"""
FLYER = """<body name="root" pos="0 0 9"><freejoint/><geom type="box" size="0.2 0.1 0.1" mass="2"/>
<body name="leg" pos="0.1 0 -0.2"><joint name="a" axis="1 0 0"/><joint name="b" axis="0 1 0.2" pos="0 0 0.05"/>
<joint name="c" axis="0 0 1" pos="0 0.02 0"/><geom type="box" size="0.05 0.1 0.2" pos="0 0.1 -0.1" mass="1"/>
</body></body>"""


@pytest.mark.parametrize("worldbody", [CRANE, FLYER], ids=["fixed", "floating"])
def test_several_joints_in_one_body(pybullet: None, make: Make, robot_of: RobotOf, worldbody: str) -> None:
    """Links of a millionth of the body's mass stand between them: 0.2 s of free motion against MuJoCo, in steps of a
    millisecond, of which both engines' own errors are larger than 1e-3."""
    robot = robot_of(worldbody)
    n, joints = 16, len(robot.joint_names)
    qpos, qvel = random_states(robot, n)
    found = []
    for name in ("mujoco", "pybullet"):
        simulator = make(name, robot, n, dt=0.02, substeps=20)
        simulator.set_state(everyone(simulator), qpos, qvel)
        for _ in range(10):
            simulator.step(torch.zeros(n, 0), n)
        found.append(simulator.qvel[:, -joints:].clone())
    assert (found[0] - qvel[:, -joints:]).abs().mean() > 0.3
    assert (found[1] - found[0]).abs().mean() < 0.015
    assert robot.joint_names[-3:] == ("a", "b", "c")


def test_flight_of_a_humanoid_follows_mujoco(pybullet: None, make: Make) -> None:
    """Several joints in one body, springs and stiff dampers, with torques at a fifth of their range, at 240 Hz."""
    robot = RobotModel(ASSETS / "humanoid.xml", ("right_foot", "left_foot"))
    n, generator = 32, torch.Generator().manual_seed(0)
    qpos = torch.from_numpy(robot.model.qpos0).float().repeat(n, 1)
    qpos[:, 2] = 10.0
    qpos[:, 7:] += 0.1 * torch.randn(n, 21, generator=generator)
    ctrl = 0.2 * (2 * torch.rand(n, 21, generator=generator) - 1)
    simulators = [make("mujoco", robot, n, substeps=32), make("pybullet", robot, n, substeps=4)]
    for simulator in simulators:
        simulator.set_state(everyone(simulator), qpos, torch.zeros(n, robot.model.nv))
        for _ in range(10):
            simulator.step(ctrl, n)
    reference, twin = simulators
    assert reference.qvel[:, 6:].abs().mean() > 0.8  # rad/s
    assert (twin.qpos - reference.qpos)[:, 7:].abs().mean() < 0.03  # rad
    assert (twin.qvel - reference.qvel)[:, 6:].abs().mean() < 0.15


def test_a_humanoid_survives_full_torques(pybullet: None, make: Make) -> None:
    """In flight, where joints of one body come near alignment at their limits, and hit these at full speed."""
    robot = RobotModel(ASSETS / "humanoid.xml", ("right_foot", "left_foot"))
    n, generator = 32, torch.Generator().manual_seed(0)
    qpos = torch.from_numpy(robot.model.qpos0).float().repeat(n, 1)
    qpos[:, 2] = 50.0
    simulator = make("pybullet", robot, n)
    simulator.set_state(everyone(simulator), qpos, torch.zeros(n, robot.model.nv))
    for _ in range(90):
        simulator.step(2 * torch.rand(n, 21, generator=generator) - 1, n)
        assert not simulator.failed.any()
    lower, upper = torch.from_numpy(robot.joint_limits).float().T
    joints = simulator.qpos[:, 7:]
    assert max(float((joints - upper).max()), float((lower - joints).max())) < 0.3  # rad


@pytest.mark.parametrize("substeps", [3, 4])
def test_servos_of_a_leg_follow_mujoco(pybullet: None, make: Make, robot_of: RobotOf, substeps: int) -> None:
    """Strongly damped servos on light joints that move each other, under gravity: kv h / inertia is up to 1.5."""
    leg = """<body name="hip" pos="0 0 1"><joint name="hip" axis="0 1 0"/>
    <geom type="capsule" size="0.04" fromto="0 0 0 0 0 -0.3" mass="3"/>
    <body name="knee" pos="0 0 -0.3"><joint name="knee" axis="0 1 0"/>
    <geom type="capsule" size="0.02" fromto="0 0 0 0 0 -0.3" mass="0.5"/></body></body>"""
    servo = '<position name="{0}" joint="{0}" kp="85" kv="{1}" forcerange="-40 40"/>'
    robot = robot_of(leg, f"<actuator>{servo.format('hip', 8)}{servo.format('knee', 2)}</actuator>")
    n, generator = 16, torch.Generator().manual_seed(0)
    targets = torch.rand(4, n, 2, generator=generator) - 0.5
    simulators = [
        make("mujoco", robot, n, dt=0.02, substeps=40),
        make("pybullet", robot, n, dt=0.02, substeps=substeps),
    ]
    errors = []
    for target in targets:
        for _ in range(25):
            for simulator in simulators:
                simulator.step(target, n)
            errors.append((simulators[1].qpos - simulators[0].qpos).abs().mean())
    assert simulators[0].qvel.abs().mean() < 0.02  # they have come to rest
    assert torch.stack(errors).mean() < 0.012 / substeps  # rad
    assert errors[-1] < 1e-3  # a load does not make them sag further than MuJoCo's


@pytest.mark.parametrize("engine", ["pybullet", "physx"])
def test_dry_friction_holds_and_brakes(make: Make, robot_of: RobotOf, engine: str) -> None:
    """Blocks of 2 kg on slides: one is pulled by less than the friction of 3 N, one by more, one glides to a stop."""
    skip_missing(engine)
    block = (
        '<body pos="{0} 0 0"><joint name="s{0}" type="slide" axis="1 0 0" frictionloss="3"/>'
        '<geom size="0.1" mass="2"/></body>'
    )
    motors = "".join(f'<motor joint="s{i}"/>' for i in (1, 2, 3))
    robot = robot_of("".join(block.format(i) for i in (1, 2, 3)), f"<actuator>{motors}</actuator>")
    simulator = make(engine, robot, 1)
    simulator.set_state(everyone(simulator), torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 0.5]]))
    for _ in range(60):
        simulator.step(torch.tensor([[2.9, 5.0, 0.0]]), 1)
    expected = torch.tensor([[0.0, (5.0 - 3.0) / 2.0, 0.0]])
    torch.testing.assert_close(simulator.qvel, expected, rtol=1e-3, atol=1e-4)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.5**2 / 2 / 1.5, rel=0.06)  # h v / 2 of 0.083 m


@pytest.mark.parametrize("engine", ["pybullet", "physx"])
def test_dry_friction_holds_a_weight(make: Make, robot_of: RobotOf, engine: str) -> None:
    """An arm whose weight pulls with 1.96 N m. Friction of 3 N m holds it, with a servo or without."""
    skip_missing(engine)
    arm = (
        '<body pos="0 {0} 1"><joint name="h{0}" axis="0 1 0" frictionloss="3"/>'
        '<geom size=".05" pos=".2 0 0" mass="1"/></body>'
    )
    robot = robot_of(arm.format(1) + arm.format(2), '<actuator><position joint="h2" kp="1" kv="0.1"/></actuator>')
    simulator = make(engine, robot, 1)
    run(simulator, 1.0)
    torch.testing.assert_close(simulator.qpos, torch.zeros(1, 2), rtol=0.0, atol=0.005)


def test_a_worker_that_replaces_a_dead_one_knows_the_parameters(pybullet: None, make: Make, ant: RobotModel) -> None:
    n = 8
    simulator, twin = (make("pybullet", ant, n, bodies=ant.feet) for _ in range(2))
    assert isinstance(simulator, PybulletSimulator)
    ctrl = torch.rand(n, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for each in (simulator, twin):
        change_parameters(each, torch.tensor([2, 5, 7]))
        each.step(ctrl, n)
    for worker in simulator._workers:
        os.kill(worker.pid, signal.SIGKILL)
    simulator.step(ctrl, n)
    assert simulator.failed.all()
    for each in (simulator, twin):
        each.set_state(everyone(each), *standing(ant, n))
        for _ in range(3):
            each.step(ctrl, n)
    assert torch.equal(simulator.qpos, twin.qpos)


def test_a_robot_that_spoiled_bullet_is_replaced_with_its_parameters(
    pybullet: None, make: Make, ant: RobotModel
) -> None:
    simulator, twin = (make("pybullet", ant, 4, bodies=ant.feet) for _ in range(2))
    ctrl = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for each in (simulator, twin):
        change_parameters(each, torch.tensor([0, 1, 2, 3]))
        each.set_state(everyone(each), *standing(ant, 4))
    qpos, qvel = standing(ant, 1)
    qvel[:] = 9e5  # finite, and Bullet takes it, but what it makes of it is not
    simulator.set_state(torch.tensor([1]), qpos, qvel)
    simulator.step(ctrl, 4)
    assert simulator.failed.tolist() == [False, True, False, False]
    for each in (simulator, twin):
        each.set_state(everyone(each), *standing(ant, 4))
        for _ in range(3):
            each.step(ctrl, 4)
    assert torch.equal(simulator.qpos, twin.qpos)


def test_welded_bodies_need_one_factor_of_mass(pybullet: None, make: Make) -> None:
    simulator = make("pybullet", CROOKED, 2)
    factors = torch.ones(2, 4)
    factors[1, 1:3] = 2.0  # arm and welded
    simulator.set_parameters(everyone(simulator), {"mass": factors})
    factors[1, 2] = 3.0
    with pytest.raises(ConfigError, match=r"^parameter=mass: bodies \['arm', 'welded'\] are one link"):
        simulator.set_parameters(everyone(simulator), {"mass": factors})


def test_mass_is_refused_where_a_rotor_would_turn_the_axes_of_inertia(
    pybullet: None, make: Make, robot_of: RobotOf
) -> None:
    skew = """<body name="arm"><joint name="hinge" axis="1 1 0" armature="0.1"/>
    <inertial pos="0 0 0" mass="1" diaginertia="0.1 0.2 0.3"/></body>"""
    simulator = make("pybullet", robot_of(skew), 1)
    simulator.set_parameters(everyone(simulator), {"mass": torch.ones(1, 1)})
    with pytest.raises(ConfigError, match=r"^parameter=mass: body arm"):
        simulator.set_parameters(everyone(simulator), {"mass": torch.full((1, 1), 2.0)})


def test_margins_raise_the_ground(pybullet: None, make: Make, robot_of: RobotOf) -> None:
    ball = BALL.replace('size="0.1"', 'size="0.1" margin="0.02"')
    robot = robot_of('<geom name="floor" type="plane" size="0 0 1" margin="0.01"/>' + ball, feet=("ball",))
    heights = []
    for name, settings in (("mujoco", {}), ("pybullet", {"contact_stiffness": 1e5, "contact_damping": 1e3})):
        simulator = make(name, robot, 1, **settings)
        qpos = torch.tensor([[0.0, 0.0, 0.14, 1.0, 0.0, 0.0, 0.0]])
        simulator.set_state(everyone(simulator), qpos, torch.zeros(1, 6))
        for _ in range(120):
            simulator.step(torch.zeros(1, 0), 1)
        heights.append(float(simulator.qpos[0, 2]))
    assert heights == pytest.approx([0.13, 0.13], abs=2e-3)


BALL = '<body name="ball" pos="0 0 1"><freejoint name="free"/><geom name="skin" size="0.1"/></body>'
ARM = """<body name="arm"><joint name="hinge" {joint}/><geom name="bar" type="capsule" size="0.1 0.2" {geom}/>
<body name="tip" pos="1 0 0">{tip}<geom name="end" size="0.1"/></body></body>"""


def arm(joint: str = "", geom: str = "", tip: str = '<joint name="wrist"/>') -> str:
    return ARM.format(joint=joint, geom=geom, tip=tip)


TWO_SOLES = BALL.replace("</body>", '<geom size="0.1" margin="0.01"/></body>')
HAND = '<body name="hand"><joint name="lift" type="slide"/><geom name="palm" size="0.1"/></body>'
FLOOR = '<geom name="floor" type="plane" size="0 0 1"/>'


@pytest.mark.parametrize(
    ("worldbody", "rest", "feet", "named"),
    [
        (arm(tip='<joint name="ball" type="ball"/>'), "", (), "joint ball"),
        (arm('stiffness="3 1 0"'), "", (), "joint hinge: a nonlinear spring"),
        (arm('type="slide" armature="0.1"'), "", (), "joint hinge: armature"),
        (arm('range="-1 1" margin="0.1"'), "", (), "joint hinge: a margin"),
        (BALL + '<body name="other"><joint/><geom size="0.1"/></body>', "", (), "body other: a second tree"),
        (BALL + '<body name="other" pos="2 0 1"><freejoint/><geom size="0.1"/></body>', "", (), "second"),
        ('<body name="hand" mocap="true"/>' + arm(), "", (), "body hand: a mocap"),
        (
            arm(),
            '<tendon><fixed name="cable" stiffness="1"><joint joint="hinge" coef="1"/></fixed></tendon>',
            (),
            "tendon cable",
        ),
        (arm(), '<equality><joint name="gear" joint1="hinge" joint2="wrist"/></equality>', (), "equality gear"),
        (arm(), '<actuator><intvelocity name="v" joint="hinge" actrange="-1 1"/></actuator>', (), "actuator v"),
        (BALL, '<actuator><motor name="jet" joint="free" gear="0 0 1 0 0 0"/></actuator>', (), "actuator jet"),
        (FLOOR + BALL, "", (), "only feet keep contacts"),
        (FLOOR + BALL.replace('size="0.1"', 'type="ellipsoid" size=".1 .2 .3"'), "", ("ball",), "geom skin of foot"),
        (FLOOR + BALL.replace('size="0.1"', 'size="0.1" condim="6"'), "", ("ball",), "geom skin: condim 6"),
        (FLOOR + TWO_SOLES, "", ("ball",), "geom floor: feet have different margins"),
        ('<geom name="step" type="box" size="1 1 .1"/>' + BALL, "", ("ball",), "geom step: feet can only touch planes"),
        (arm() + HAND, "", ("arm", "hand"), "geoms bar, palm: feet can only touch planes, not one another"),
        (BALL, '<option density="1.2"/>', (), "a fluid"),
    ],
)
def test_what_it_cannot_express_is_refused_by_name(
    worldbody: str, rest: str, feet: tuple[str, ...], named: str, robot_of: RobotOf
) -> None:
    with pytest.raises(ConfigError, match=named):
        PybulletSimulator.check_robot(robot_of(worldbody, rest, feet))


@pytest.mark.alone
def test_the_parent_is_free_while_workers_step(pybullet: None, make: Make, ant: RobotModel) -> None:
    simulator = make("pybullet", ant, 64, substeps=20)
    simulator.set_state(everyone(simulator), *standing(ant, 64))
    simulator.step(torch.zeros(64, 8), 64)
    started = time.perf_counter()
    simulator.start_step(torch.zeros(64, 8), 64)
    handed_over = time.perf_counter() - started
    simulator.finish_step()
    assert handed_over < 0.5 * (time.perf_counter() - started)


# Ground ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planes", "start", "speed"),
    [
        ('<geom type="plane" size="0 0 1" euler="0 0.35 0"/>', [0.0, 0.0, 0.12], [0.0, 0.0, 0.0]),
        (FLOOR + '<geom type="plane" size="0 0 1" pos="1 0 0" euler="0 -1.5708 0"/>', [0.5, 0.0, 0.1], [1.0, 0.5, 0.0]),
        (
            FLOOR
            + '<geom type="plane" size="0 0 1" pos="1 0 0" euler="0 -1.5708 0"/>'
            + '<geom type="plane" size="0 0 1" pos="0 1 0" euler="1.5708 0 0"/>',
            [0.5, 0.5, 0.1],
            [1.0, 1.0, 0.0],
        ),
    ],
    ids=["slope", "wall", "corner"],
)
def test_slopes_and_walls_are_alike_in_all_worlds(
    pybullet: None, make: Make, robot_of: RobotOf, planes: str, start: list[float], speed: list[float]
) -> None:
    """Robots of one Bullet world stand apart, and the planes are the same for each."""
    n, robot = 9, robot_of(planes + BALL, feet=("ball",))
    ends = []
    for engine in ("pybullet", "mujoco"):
        simulator = make(engine, robot, n)
        qpos, qvel = simulator.qpos.clone(), simulator.qvel.clone()
        qpos[:, :3], qvel[:, :3] = torch.tensor(start), torch.tensor(speed)
        simulator.set_state(everyone(simulator), qpos, qvel)
        run(simulator, 0.4)
        ends.append(simulator.qpos[:, :3].clone())
    torch.testing.assert_close(ends[0], ends[0][:1].expand(n, -1), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(ends[0], ends[1], rtol=0.0, atol=0.06)


def test_a_lone_body_whose_axes_are_turned_is_taken(pybullet: None, make: Make, robot_of: RobotOf) -> None:
    """MuJoCo compiles such a body as a simple one, in its own axes, and the link's are others."""
    can = '<body name="can" pos="0 0 .1"><freejoint/><geom type="cylinder" size=".1 .1" mass="1"/></body>'
    simulator = make("pybullet", robot_of(FLOOR + can, feet=("can",)), 1)
    run(simulator, 0.5)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.1, abs=0.01)


# Limits ---------------------------------------------------------------------------------------------------------------


def chain(hinges: int) -> str:
    link = '<body name="b{0}" pos="0 0 -.05"><joint name="j{0}" axis="0 1 0"/><geom size=".01" mass=".1" contype="0"/>'
    return "".join(link.format(i) for i in range(hinges)) + "</body>" * hinges


def test_more_joints_than_bullet_holds_are_refused(robot_of: RobotOf) -> None:
    PybulletSimulator.check_robot(robot_of(chain(122)))
    with pytest.raises(
        ConfigError, match=r"^robot\.xml: 123 hinge and slide joints: engine pybullet takes at most 122$"
    ):
        PybulletSimulator.check_robot(robot_of(chain(123)))


def test_a_worker_that_dies_again_at_once_ends_the_run(pybullet: None, make: Make, ant: RobotModel) -> None:
    simulator = make("pybullet", ant, 2, workers=1)
    assert isinstance(simulator, PybulletSimulator)
    ctrl = torch.zeros(2, 8)

    def step_and_kill() -> None:
        victim = simulator._workers[0].pid
        os.kill(victim, signal.SIGSTOP)
        simulator.start_step(ctrl, 2)
        os.kill(victim, signal.SIGKILL)
        simulator.finish_step()

    step_and_kill()
    simulator.step(ctrl, 2)  # a step that succeeds makes up for it
    step_and_kill()
    with pytest.raises(
        ConfigError, match=r"^engine=pybullet: a worker process died of signal 9 again in its first step"
    ):
        step_and_kill()
    assert simulator.worker_restarts == 2
