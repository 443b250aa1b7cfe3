"""A simulated robot speaks the policy's layout, whatever the order of the model; another robot is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robot_files import metadata_of, permuted

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import make_simulator

MUJOCO = {"engine": "mujoco", "threads": 1}
ASSETS = ASSETS

ARM = """<mujoco><compiler angle="radian" autolimits="true"/><worldbody>
  <body name="base"><joint name="slide" type="slide" axis="1 0 0" damping="2"/><geom size=".1" mass="1"/>
    <body name="left" pos=".3 0 0"><joint name="left" range="-1 1" armature=".01" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 .3 0 0" size=".03" mass=".3"/></body>
    <body name="right" pos="-.3 0 0"><joint name="right" axis="0 1 0" damping=".1"/>
      <geom type="capsule" fromto="0 0 0 0 .3 0" size=".03" mass=".4"/></body>
  </body></worldbody>
  <actuator><motor name="push" joint="slide" gear="5" ctrlrange="-1 1"/>
    <position name="hold" joint="left" kp="3" kv=".2" forcerange="-4 4"/>
    <motor name="turn" joint="right" gear="2" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.fixture
def arm(tmp_path: Path) -> Callable[..., RobotModel]:
    """The arm, with replacements in its text: arm(("old", "new"), ...)."""

    def build(*replacements: tuple[str, str]) -> RobotModel:
        text = ARM
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"arm_{len(list(tmp_path.iterdir()))}.xml"
        path.write_text(text)
        return RobotModel(path)

    return build


def trajectory(
    metadata: Metadata, robot: RobotModel, settings: dict[str, object], controls: np.ndarray, qvel: np.ndarray
) -> list[np.ndarray]:
    """qpos, qvel and contact wrench (steps, n, ·) in the policy's layout, from default positions within the limits."""
    simulated = SimulatedRobot.build(metadata, robot, settings, len(qvel))
    default = np.concatenate([joint.default_position for joint in metadata.joints]).astype(np.float32)
    for joint in metadata.joints:
        if joint.low is not None and joint.high is not None:
            default[joint.qpos] = np.clip(default[joint.qpos], joint.low + 0.3, joint.high - 0.3)
    simulated.reset(np.tile(default, (len(qvel), 1)), qvel)
    states = []
    for control in controls:
        simulated.step(control)
        states.append(simulated.measure())
        assert not simulated.failed.any()
    simulated.close()
    return [np.array([getattr(state, name) for state in states]) for name in ("qpos", "qvel", "contact_wrench")]


def random_controls(metadata: Metadata, steps: int, n: int) -> np.ndarray:
    low = np.array([-1.0 if a.control_low is None else a.control_low for a in metadata.actuators])
    high = np.array([1.0 if a.control_high is None else a.control_high for a in metadata.actuators])
    return np.random.default_rng(1).uniform(low, high, (steps, n, len(low))).astype(np.float32)


@pytest.mark.parametrize(
    ("asset", "bodies"),
    [("ant", ("foot_3", "foot_1")), ("ball_balance", ("ball", "tray")), ("quadcopter", ()), ("cartpole", ())],
)
@pytest.mark.parametrize("seed", [2, 3])
def test_another_order_in_the_model_moves_alike(asset: str, bodies: Sequence[str], seed: int, tmp_path: Path) -> None:
    robot = RobotModel(ASSETS / f"{asset}.xml")
    other = RobotModel(permuted(robot.path, tmp_path, seed))
    metadata = metadata_of(robot, bodies)
    controls = random_controls(metadata, 60, 3)
    qvel = np.random.default_rng(2).normal(0.0, 0.2, (3, robot.model.nv)).astype(np.float32)
    expected = trajectory(metadata, robot, MUJOCO, controls, qvel)
    for ours, theirs in zip(expected, trajectory(metadata, other, MUJOCO, controls, qvel), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert asset not in ("ant", "ball_balance") or np.abs(expected[2]).max() > 1.0  # the feet or the tray were touched


def test_the_permuted_files_are_permuted(tmp_path: Path) -> None:
    """Otherwise the test above shows nothing."""
    for asset in ("ant", "ball_balance", "quadcopter"):
        robot = RobotModel(ASSETS / f"{asset}.xml")
        for seed in (2, 3):
            other = RobotModel(permuted(robot.path, tmp_path, seed))
            assert other.joint_names != robot.joint_names, asset
    assert other.actuator_names != robot.actuator_names
    roots = {RobotModel(permuted(ASSETS / "ball_balance.xml", tmp_path, seed)).model.joint(0).name for seed in (2, 3)}
    assert roots == {"tray", "ball"}  # torques are about the first one's origin


@pytest.mark.parametrize("engine", ["pybullet", "physx"])
def test_another_order_in_other_engines(engine: str, tmp_path: Path) -> None:
    """In flight: their solvers go through contacts in the order of links, so that the order matters to them. PhysX's
    does so with the joints' damping, too, which leaves some thousandths of a radian even at 128 iterations."""
    pytest.importorskip({"pybullet": "pybullet", "physx": "sapien"}[engine])
    feet = ("foot_1", "foot_2", "foot_3", "foot_4")
    robot = RobotModel(ASSETS / "ant.xml", feet)
    metadata = metadata_of(robot, feet)
    controls = 0.3 * random_controls(metadata, 10, 2)
    qvel = np.random.default_rng(2).normal(0.0, 0.2, (2, robot.model.nv)).astype(np.float32)
    qvel[:, 2] = 3.0
    other = RobotModel(permuted(robot.path, tmp_path, 2), feet)
    settings = {"engine": engine, "workers": 1}
    tolerance = 1e-4
    if engine == "physx":
        settings["position_iterations"], tolerance = 128, 0.02
    expected = trajectory(metadata, robot, settings, controls, qvel)[0]
    assert np.abs(expected[-1] - expected[0])[:, 7:].max() > 0.2
    np.testing.assert_allclose(trajectory(metadata, other, settings, controls, qvel)[0], expected, atol=tolerance)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), asset=st.sampled_from(["ant", "humanoid", "ball_balance", "quadcopter"]))
def test_states_go_to_joints_of_the_same_name(seed: int, asset: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Against MuJoCo's own addresses of the names in the permuted model."""
    robot = RobotModel(ASSETS / f"{asset}.xml")
    other = RobotModel(permuted(robot.path, tmp_path_factory.mktemp("permuted"), seed))
    metadata = metadata_of(robot)
    simulated = SimulatedRobot.build(metadata, other, MUJOCO, 2)
    generator = np.random.default_rng(seed)
    qpos = np.tile(robot.model.qpos0, (2, 1)).astype(np.float32)
    qpos[:, 7:] += generator.normal(size=(2, robot.model.nq - 7)).astype(np.float32)
    qvel = generator.normal(size=(2, robot.model.nv)).astype(np.float32)
    simulated.reset(qpos, qvel)
    state = simulated.measure()
    np.testing.assert_array_equal(state.qpos, qpos)
    np.testing.assert_array_equal(state.qvel, qvel)
    simulator = simulated.simulator
    for joint in metadata.joints:
        theirs, ours = other.model.joint(joint.name), robot.model.joint(joint.name)
        width, velocities = len(ours.qpos0), {7: 6, 4: 3, 1: 1}[len(ours.qpos0)]
        there, here = theirs.qposadr[0], ours.qposadr[0]
        np.testing.assert_array_equal(simulator.qpos[:, there : there + width], qpos[:, here : here + width])
        there, here = theirs.dofadr[0], ours.dofadr[0]
        np.testing.assert_array_equal(simulator.qvel[:, there : there + velocities], qvel[:, here : here + velocities])
    simulated.close()


def test_controls_go_to_actuators_of_the_same_name(arm: Callable[..., RobotModel]) -> None:
    """A push of the base, of which the model has the actuator last: only the base accelerates that way."""
    metadata = metadata_of(arm())
    line = '<motor name="push" joint="slide" gear="5" ctrlrange="-1 1"/>'
    other = arm((line, ""), ("</actuator>", f"{line}</actuator>"))
    assert other.actuator_names == ("hold", "turn", "push")
    simulated = SimulatedRobot.build(metadata, other, MUJOCO, 2)
    simulated.step(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32))
    velocity = simulated.measure().qvel[:, 0]
    assert velocity[0] > 0.02 and abs(velocity[1]) < 0.01
    simulated.close()


def test_what_changes_no_meaning_is_allowed_and_said(
    arm: Callable[..., RobotModel], caplog: pytest.LogCaptureFixture
) -> None:
    metadata = metadata_of(arm())
    tool = '<body name="tool" pos="0 0 .2"><joint name="tool"/><geom size=".05" mass=".1"/></body></body></worldbody>'
    other = arm(
        ('mass=".4"', 'mass=".5"'),
        ('range="-1 1" armature=".01"', 'range="-2 1" armature=".02"'),
        ("</body></worldbody>", tool),
    )
    with caplog.at_level(logging.WARNING):
        simulated = SimulatedRobot.build(metadata, other, MUJOCO, 1)
    assert len(caplog.records) == 1
    assert (
        caplog.records[0]
        .getMessage()
        .endswith("additional joints ['tool']; left low -2 instead of -1; left armature 0.02 instead of 0.01")
    )
    simulated.reset(np.full((1, 3), 0.1, np.float32), np.zeros((1, 3), np.float32))
    np.testing.assert_allclose(simulated.simulator.qpos.numpy(), [[0.1, 0.1, 0.1, 0.0]], atol=1e-7)
    assert simulated.measure().qpos.shape == (1, 3)
    simulated.close()


def test_the_same_robot_says_nothing(arm: Callable[..., RobotModel], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        SimulatedRobot.build(metadata_of(arm()), arm(), MUJOCO, 1).close()
    assert not caplog.records


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ((('joint name="left"', 'joint name="links"'), ('joint="left"', 'joint="links"')), "has no joint left, which"),
        ((('<position name="hold"', '<position name="grip"'),), "has no actuator hold, which"),
        ((('<body name="right"', '<body name="rechts"'),), "has no body right, which"),
        ((('name="right" axis="0 1 0"', 'name="right" type="slide" axis="0 1 0"'),), "joint right: type slide, but"),
        ((('name="right" axis="0 1 0"', 'name="right" axis="0 -1 0"'),),
         r"joint right: axis \[0.0, -1.0, 0.0\], but the policy's robot has \[0.0, 1.0, 0.0\]"),
        ((('name="right" axis="0 1 0"', 'name="right" axis="0 1 0" ref=".2"'),),
         r"joint right: default_position \[0.2\], but the policy's robot has \[0.0\]"),
        ((('name="turn" joint="right"', 'name="turn" joint="left"'),), "actuator turn: joint left, but .* has right"),
        ((('<position name="hold" joint="left" kp="3" kv=".2"', '<velocity name="hold" joint="left" kv=".2"'),),
         "actuator hold: kind velocity, but the policy's robot has position"),
        ((('gear="2"', 'gear="3"'),), "actuator turn: gear 3, but the policy's robot has 2"),
        ((('kp="3"', 'kp="4"'),), "actuator hold: kp 4, but the policy's robot has 3"),
        ((('kv=".2"', 'kv=".3"'),), "actuator hold: kd 0.3, but the policy's robot has 0.2"),
        ((('gear="5" ctrlrange="-1 1"', 'gear="5" ctrlrange="-2 1"'),), "actuator push: control_low -2, but"),
        ((('gear="5" ctrlrange="-1 1"', 'gear="5"'),), "actuator push: control_low no bound, but"),
        ((('forcerange="-4 4"', 'forcerange="-5 5"'),), "actuator hold: effort_limit 5, but the policy's robot has 4"),
        ((("</actuator>", '<motor name="more" joint="left"/></actuator>'),), "actuator more: the policy does not know"),
    ],
)  # fmt: skip
def test_another_robot_is_refused_in_one_line(
    arm: Callable[..., RobotModel], replacements: Sequence[tuple[str, str]], message: str
) -> None:
    metadata = metadata_of(arm(), ("right",))
    other = arm(*replacements)
    with pytest.raises(ConfigError, match=f"^robot={other.path.name}: {message}") as error:
        SimulatedRobot.build(metadata, other, MUJOCO, 1)
    assert "\n" not in str(error.value)


def test_another_control_period_is_refused(arm: Callable[..., RobotModel]) -> None:
    robot = arm()
    simulator = make_simulator(MUJOCO, robot, 1, 0.02)
    with pytest.raises(ConfigError, match=r"control_dt=0\.02: this policy acts every 0\.01 s"):
        SimulatedRobot(metadata_of(robot, control_dt=0.01), robot, simulator)
    simulator.close()


def test_contact_bodies_must_be_measured(arm: Callable[..., RobotModel]) -> None:
    robot = arm()
    simulator = make_simulator(MUJOCO, robot, 1, 1 / 60)
    with pytest.raises(ConfigError, match=r"contact_bodies=\['left'\]: the engine was not asked to measure them"):
        SimulatedRobot(metadata_of(robot, ("left",)), robot, simulator)
    simulator.close()


def test_a_robot_that_fails_is_marked_and_put_back(arm: Callable[..., RobotModel]) -> None:
    robot = arm()
    simulated = SimulatedRobot.build(metadata_of(robot), robot, MUJOCO, 3)
    qvel = np.zeros((3, 3), np.float32)
    qvel[1, 1] = 1e9
    simulated.reset(np.zeros((3, 3), np.float32), qvel)
    simulated.step(np.zeros((3, 3), np.float32))
    np.testing.assert_array_equal(simulated.failed, [False, True, False])
    assert np.isfinite(simulated.measure().qpos).all()
    simulated.close()


def test_what_was_measured_stays(arm: Callable[..., RobotModel]) -> None:
    """A state is compared with the one before it: it must not change under the reader."""
    robot = arm()
    simulated = SimulatedRobot.build(metadata_of(robot), robot, MUJOCO, 1)
    before = simulated.measure()
    copy = dataclasses.replace(before, qpos=before.qpos.copy())
    simulated.step(np.ones((1, 3), np.float32))
    assert not np.array_equal(simulated.measure().qpos, before.qpos)
    np.testing.assert_array_equal(before.qpos, copy.qpos)
    simulated.close()
