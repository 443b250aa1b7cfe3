"""The actuators' law in torch against MuJoCo's own forces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.actuation import JointTorques
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.robots.model import RobotModel

CHAIN = """<body name="base" pos="0 0 1"><freejoint/><geom size="0.1"/>
<body name="a"><joint name="hinge" axis="0 1 0"/><geom size="0.1" pos="0.3 0 0"/>
<body name="b" pos="0.5 0 0"><joint name="slide" type="slide" axis="1 0 0"/><joint name="roll" axis="1 0 0"/>
<geom size="0.1" pos="0 0.2 0"/></body></body></body>"""
FREE = '<body name="base"><freejoint name="free"/><geom size="0.1"/><site name="jet"/>{}</body>'
ARM = '<body name="arm"><joint name="{}" {}/><geom size="0.1" pos="0.3 0 0"/></body>'

LAWS = {
    "motor": '<motor name="m" joint="slide" gear="-3" ctrlrange="-1 1"/>',
    "motor with bounded force": '<motor name="m" joint="hinge" gear="2" forcerange="-0.3 0.5"/>',
    "position": '<position name="m" joint="roll" kp="85" kv="2" gear="2" forcerange="-80 80"/>',
    "velocity": '<velocity name="m" joint="slide" kv="3" ctrlrange="-2 2"/>',
    "general": '<general name="m" joint="hinge" gainprm="3" biastype="affine" biasprm="1 -2 -0.5" forcerange="-9 9"/>',
    "dc motor, voltage": '<dcmotor name="m" joint="hinge" nominal="24 30 21" saturation="9 0 0" gear="2"/>',
    "dc motor, position": """<dcmotor name="m" joint="hinge" nominal="24 30 21" saturation="20 0 0" input="pos"
                             controller="9 0 2 0 0 10" gear="-2"/>""",
    "dc motor, velocity": '<dcmotor name="m" joint="roll" nominal="24 3 5" input="vel" controller="0 0 2 0 0 24"/>',
    "dc motor, torque": '<dcmotor name="m" joint="roll" nominal="24 3 5" input="ff" controller="0 0 0 0 0 24"/>',
}
KINDS = {law: law.partition(",")[0] for law in LAWS} | {"motor with bounded force": "motor", "general": "position"}

RobotOf = Callable[[str, str], RobotModel]


@pytest.fixture
def robot_of(tmp_path: Path) -> RobotOf:
    """A robot of a worldbody and actuators."""

    def build(worldbody: str, actuators: str) -> RobotModel:
        path = tmp_path / "robot.xml"
        path.write_text(f"<mujoco><worldbody>{worldbody}</worldbody><actuator>{actuators}</actuator></mujoco>")
        return RobotModel(path)

    return build


def compare(robot: RobotModel, n: int = 64) -> np.ndarray:
    """Assert that all forces are MuJoCo's in random states; its joint forces (n, nv)."""
    rng, model = np.random.default_rng(0), robot.model
    data = mujoco.MjData(model)
    qpos, qvel = rng.normal(size=(n, model.nq)), 3 * rng.normal(size=(n, model.nv))
    control = 3 * rng.normal(size=(n, model.nu))
    force, total = np.zeros((n, model.nu)), np.zeros((n, model.nv))
    for i in range(n):
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos[i], qvel[i], control[i]
        mujoco.mj_forward(model, data)
        force[i], total[i] = data.actuator_force, data.qfrc_actuator
    found = JointTorques(robot, "cpu")(*(torch.from_numpy(x).float() for x in (control, qpos, qvel)))
    assert found.shape == (n, model.nu)
    np.testing.assert_allclose(found, force * model.actuator_gear[:, 0], rtol=1e-4, atol=1e-4)
    summed = np.zeros((n, model.nv))
    np.add.at(summed.T, Actuators.from_robot(robot).qvel_column, found.numpy().T)
    np.testing.assert_allclose(summed, total, rtol=1e-4, atol=1e-4)
    return force


@pytest.mark.parametrize("law", LAWS)
def test_forces_are_mujocos(law: str, robot_of: RobotOf) -> None:
    robot = robot_of(CHAIN, LAWS[law])
    force = compare(robot)
    actuators = Actuators.from_robot(robot)
    assert actuators.kinds == (KINDS[law],)
    # Bounds, where there are any, hold in some of the states, not in all.
    lower, upper = actuators.force_range[0]
    if np.isfinite(upper):
        assert 0.02 < ((force <= lower) | (force >= upper)).mean() < 0.98


def test_actuators_of_one_robot_find_their_joints(robot_of: RobotOf) -> None:
    named = [law.replace('name="m"', f'name="m{i}"') for i, law in enumerate(LAWS.values())]
    robot = robot_of(CHAIN, "".join(named))
    compare(robot)
    actuators = Actuators.from_robot(robot)
    places = [robot.joint_names.index(robot.model.joint(i).name) for i in robot.model.actuator_trnid[:, 0]]
    assert actuators.joint.tolist() == places
    assert actuators.names == robot.actuator_names


def test_forces_of_the_ant_are_gear_times_control(ant: RobotModel) -> None:
    control = torch.linspace(-2.0, 2.0, 8)[None]
    found = JointTorques(ant, "cpu")(control, torch.zeros(1, 15), torch.zeros(1, 14))
    torch.testing.assert_close(found, 15 * control.clamp(-1, 1))


def test_delays_are_counted_in_whole_physics_steps(robot_of: RobotOf) -> None:
    late = "".join(
        f'<motor name="m{i}" joint="hinge" delay="{delay}" nsample="9"/>' for i, delay in enumerate((0.0, 0.004, 0.005))
    )
    actuators = Actuators.from_robot(robot_of(CHAIN, late))
    assert actuators.delay_steps(0.002).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("worldbody", "actuator", "problem"),
    [
        (FREE.format(""), '<motor name="m" site="jet" gear="0 0 1 0 0 0"/>', "a transmission to a site"),
        (FREE.format(""), '<motor name="m" joint="free" gear="0 0 1 0 0 0"/>', "ball or free joint"),
        (ARM.format("hinge", ""), '<muscle name="m" joint="hinge" lengthrange="0 1"/>', "a state of its own"),
        (ARM.format("hinge", ""), '<damper name="m" joint="hinge" kv="1" ctrlrange="0 1"/>', "type affine"),
        (ARM.format("hinge", ""), '<position name="m" joint="hinge" kp="9" timeconst="0.1"/>', "a state of its own"),
        (ARM.format("hinge", ""), '<dcmotor name="m" joint="hinge" nominal="9 9 9" cogging="1 2 3"/>', "cogging"),
        (ARM.format("hinge", ""), '<motor name="m" joint="hinge" armature="0.1"/>', "armature of an actuator"),
        (
            ARM.format("hinge", ""),
            '<motor name="m" joint="hinge" delay="0.01" nsample="9" interp="linear"/>',
            "interpolation",
        ),
    ],
)
def test_what_has_no_such_law_is_refused_by_name(
    worldbody: str, actuator: str, problem: str, robot_of: RobotOf
) -> None:
    with pytest.raises(ConfigError, match=rf"robot\.xml: actuator m: .*{problem}.*motor, position, velocity, dc motor"):
        JointTorques(robot_of(worldbody, actuator), "cpu")


def test_the_asset_of_the_ant_has_only_motors() -> None:
    actuators = Actuators.from_robot(RobotModel(ASSETS / "ant.xml"))
    assert set(actuators.kinds) == {"motor"}
    assert not actuators.bias.any()
    assert not actuators.delay.any()
