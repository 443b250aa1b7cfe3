"""Forward kinematics against MuJoCo's own."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.kinematics import ForwardKinematics
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

# Every kind of joint, several of them in one body, anchors off the origin, references off zero, slanted frames and
# axes, bodies without a joint between and behind joints, two trees, and sites.
MODEL = """
<mujoco>
  <compiler angle="radian"/>
  <worldbody>
    <site name="marker" pos="0.3 -0.2 0.9" euler="0.2 0.1 -0.4"/>
    <body name="shelf" pos="0.1 0.2 0.3" euler="0.3 0.2 0.1">
      <geom size="0.1"/>
      <body name="drawer" pos="0 0.3 0.1">
        <joint type="slide" axis="1 2 0" ref="0.2"/>
        <geom size="0.1"/>
      </body>
    </body>
    <body name="base" pos="1 2 3">
      <freejoint/>
      <geom size="0.1"/>
      <body name="hip" pos="0.1 0 0.2" quat="0.8 0.2 0.4 0.4">
        <joint type="hinge" axis="0 0 1" pos="0.1 0.2 0.3" ref="0.5"/>
        <joint type="hinge" axis="1 0 1" pos="0 0.2 0"/>
        <joint type="slide" axis="0 1 0"/>
        <geom size="0.1"/>
        <body name="bracket" pos="0 0 0.4" euler="1 0 0">
          <geom size="0.1"/>
          <body name="left" pos="0.1 0 0">
            <joint type="hinge" axis="0 1 0"/>
            <geom size="0.1"/>
            <site name="tip" pos="0 0 0.2" euler="0 0.5 0"/>
          </body>
          <body name="right" pos="-0.1 0 0">
            <joint type="slide" axis="0 1 1" ref="-0.3"/>
            <geom size="0.1"/>
          </body>
          <body name="plate" pos="0 0 -0.1" euler="0 0 1"><geom size="0.1"/></body>
        </body>
      </body>
      <body name="other" pos="0 0 -0.3">
        <joint type="hinge" axis="1 1 1" pos="0 0 0.1"/>
        <geom size="0.1"/>
        <body name="pendant" pos="0 0 -0.3">
          <joint type="hinge" axis="1 0 0"/>
          <geom size="0.1"/>
        </body>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


def random_states(model: mujoco.MjModel, n: int, seed: int) -> np.ndarray:
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    states = np.empty((n, model.nq))
    for state in states:
        data.qpos[:] = model.qpos0
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 1.5)
        state[:] = data.qpos
    return states


def assert_equals_mujoco(model: mujoco.MjModel, bodies: list[str], sites: list[str], seed: int = 0) -> None:
    states = random_states(model, 20, seed)
    poses = ForwardKinematics(model, bodies, sites)(torch.from_numpy(states).float())
    data = mujoco.MjData(model)
    for i, state in enumerate(states):
        data.qpos[:] = state
        mujoco.mj_kinematics(model, data)
        frames = [data.body(name) for name in bodies] + [data.site(name) for name in sites]
        np.testing.assert_allclose(poses.position[i].numpy(), [frame.xpos for frame in frames], atol=3e-6)
        rotations = np.array([frame.xmat for frame in frames]).reshape(-1, 3, 3)
        np.testing.assert_allclose(poses.rotation[i].numpy(), rotations, atol=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_every_body_and_site_of_a_made_up_model(seed: int) -> None:
    model = mujoco.MjModel.from_xml_string(MODEL)
    bodies = [model.body(i).name for i in range(1, model.nbody)]
    assert_equals_mujoco(model, bodies, ["marker", "tip"], seed)


@pytest.mark.parametrize("bodies", [["drawer"], ["pendant", "left"], ["right", "left", "shelf"], ["plate"]])
def test_some_bodies_alone(bodies: list[str]) -> None:
    assert_equals_mujoco(mujoco.MjModel.from_xml_string(MODEL), bodies, [])


def test_a_frame_fixed_in_the_world() -> None:
    assert_equals_mujoco(mujoco.MjModel.from_xml_string(MODEL), [], ["marker"])


@pytest.mark.parametrize("asset", ["ant.xml", "cartpole.xml", "franka_cabinet.xml"])
def test_our_assets(asset: str) -> None:
    robot = RobotModel(ASSETS / asset)
    sites = [robot.model.site(i).name for i in range(robot.model.nsite)]
    assert_equals_mujoco(robot.model, list(robot.body_names), sites)


def test_only_the_joints_that_carry_a_named_frame_matter() -> None:
    model = mujoco.MjModel.from_xml_string(MODEL)
    qpos = torch.from_numpy(random_states(model, 4, 0)).float()
    before = ForwardKinematics(model, ["left"])(qpos)
    address = int(model.jnt_qposadr[model.body("pendant").jntadr[0]])
    qpos[:, address] = torch.nan
    after = ForwardKinematics(model, ["left"])(qpos)
    assert torch.equal(before.position, after.position) and torch.equal(before.rotation, after.rotation)


def test_position_is_differentiable_and_its_gradient_is_mujocos_jacobian() -> None:
    """For a chain of hinges and slides; mj_jac is the oracle."""
    model = RobotModel(ASSETS / "franka_cabinet.xml").model
    state = random_states(model, 1, 3)
    kinematics = ForwardKinematics(model, sites=["grasp"])
    jacobian = torch.autograd.functional.jacobian(
        lambda q: kinematics(q).position[0, 0], torch.from_numpy(state).float()
    )
    data, expected = mujoco.MjData(model), np.zeros((3, model.nv))
    data.qpos[:] = state[0]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_jacSite(model, data, expected, None, model.site("grasp").id)
    np.testing.assert_allclose(jacobian[:, 0].numpy(), expected, atol=1e-5)


def test_an_unknown_name_is_refused() -> None:
    model = mujoco.MjModel.from_xml_string(MODEL)
    with pytest.raises(ConfigError, match=r"body=wing: the model has .*'hip'"):
        ForwardKinematics(model, ["wing"])
    with pytest.raises(ConfigError, match=r"site=wing: the model has .*'tip'"):
        ForwardKinematics(model, sites=["wing"])


def test_a_ball_joint_is_refused_by_name() -> None:
    xml = (
        '<mujoco><worldbody><body name="b"><joint name="knob" type="ball"/><geom size="1"/></body></worldbody></mujoco>'
    )
    with pytest.raises(ConfigError, match=r"joint knob: .*ball"):
        ForwardKinematics(mujoco.MjModel.from_xml_string(xml), ["b"])
