"""A robot in the metadata's words: what one control does, against MuJoCo's own forces."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from dualfid_robot.export.robot_description import describe_actuators, describe_joints, describe_robot
from dualfid_robot.onboard.metadata import Actuator
from dualfid_robot.robots.model import RobotModel

DRIVES = """<mujoco model="drives"><compiler angle="degree" autolimits="true"/><worldbody>
  <body name="base" pos="0 0 1"><freejoint name="root"/><geom size=".1" mass="2"/><site name="thruster" pos="0 0 .1"/>
    <body name="a"><joint name="a" range="-90 45" armature=".02" damping=".3" actuatorfrcrange="-7 7"/>
      <geom size=".1" mass="1"/>
      <body name="b" pos=".3 0 0"><joint name="b" type="slide"/><geom size=".1" mass="1"/>
        <body name="c" pos=".3 0 0"><joint name="c" type="ball"/><geom size=".1" mass="1"/></body></body></body>
  </body></worldbody>
  <actuator>
    <general name="motor" joint="a" gear="-3" gainprm="2" ctrlrange="-1 1.5"/>
    <position name="position" joint="b" gear="2" kp="5" kv=".5" forcerange="-4 6" ctrlrange="-2 3"/>
    <velocity name="velocity" joint="b" kv="1.5"/>
    <general name="thrust" site="thruster" gear="0 0 2 0 0 0" gainprm="3" ctrlrange="0 1"/>
  </actuator></mujoco>"""


@pytest.fixture
def drives(tmp_path: Path) -> RobotModel:
    path = tmp_path / "drives.xml"
    path.write_text(DRIVES)
    return RobotModel(path)


def test_joints(drives: RobotModel) -> None:
    assert describe_robot(drives, ("a",), "robot.xml").name == "drives"
    root, a, b, c = describe_joints(drives)
    assert (root.type, root.qpos, root.qvel, root.default_position) == ("free", 0, 0, (0, 0, 1, 1, 0, 0, 0))
    assert (a.type, a.qpos, a.qvel, a.armature, a.damping) == ("hinge", 7, 6, 0.02, 0.3)
    assert a.low == pytest.approx(-np.pi / 2) and a.high == pytest.approx(np.pi / 4)
    assert (b.type, b.low, b.high, b.default_position) == ("slide", None, None, (0.0,))
    assert (c.type, c.qpos, c.qvel, c.default_position) == ("ball", 9, 8, (1, 0, 0, 0))


def test_a_control_means_the_force_that_mujoco_applies(drives: RobotModel) -> None:
    """torque = gear * control of a motor, gear * clip(kp (control - gear q) - kd gear v) of a position servo, ..."""
    actuators = {actuator.name: actuator for actuator in describe_actuators(drives)}
    generator = np.random.default_rng(0)
    data = mujoco.MjData(drives.model)
    for _ in range(20):
        data.qpos[7:9], data.qvel[6:8] = generator.normal(0, 0.3, 2), generator.normal(0, 0.3, 2)
        for name, joint in (("motor", 0), ("position", 1), ("velocity", 1)):
            data.ctrl[:] = 0.0
            mujoco.mj_forward(drives.model, data)
            idle = data.qfrc_actuator[6 + joint]
            control = data.ctrl[drives.actuator_names.index(name)] = generator.uniform(-0.5, 0.5)
            mujoco.mj_forward(drives.model, data)
            q, v = data.qpos[7 + joint], data.qvel[6 + joint]
            actual = data.qfrc_actuator[6 + joint] - idle
            expected = law(actuators[name], control, q, v) - law(actuators[name], 0.0, q, v)
            assert actual == pytest.approx(expected, abs=1e-9)


def law(actuator: Actuator, control: float, q: float, v: float) -> float:
    if actuator.kind == "motor":
        torque = actuator.gear * control
    elif actuator.kind == "position":
        torque = actuator.gear * (actuator.kp * (control - actuator.gear * q) - actuator.kd * actuator.gear * v)
    else:
        torque = actuator.gear * actuator.kd * (control - actuator.gear * v)
    limit = np.inf if actuator.effort_limit is None else actuator.effort_limit
    return float(np.clip(torque, -limit, limit))


def test_bounds(drives: RobotModel) -> None:
    motor, position, velocity, thrust = describe_actuators(drives)
    assert (motor.kind, motor.joint, motor.gear) == ("motor", "a", -6.0)
    assert (motor.control_low, motor.control_high) == (-1.0, 1.5)
    assert motor.effort_limit == 7.0  # of its joint; control alone would give 9
    assert (position.kp, position.kd, position.effort_limit) == (5.0, 0.5, 12.0)
    assert (velocity.kind, velocity.kp, velocity.kd, velocity.effort_limit) == ("velocity", 0.0, 1.5, None)
    assert (thrust.kind, thrust.joint, thrust.gear, thrust.effort_limit) == ("other", "", 6.0, 6.0)


def test_a_dc_motor_has_a_speed_without_torque(tmp_path: Path) -> None:
    """V = K w: at 12 V and K = 0.05 N m/A the shaft stops pulling at 240 rad/s; geared by 20, the joint at 12 rad/s."""
    path = tmp_path / "dc.xml"
    path.write_text(
        '<mujoco><compiler autolimits="true"/><worldbody><body name="a"><joint name="a"/><geom size=".1" mass="1"/>'
        '</body></worldbody><actuator><dcmotor name="m" joint="a" gear="20" motorconst="0.05" resistance="2" '
        'ctrlrange="-12 12"/></actuator></mujoco>'
    )
    (motor,) = describe_actuators(RobotModel(path))
    assert motor.kind == "dc motor" and motor.velocity_limit == pytest.approx(12.0)
