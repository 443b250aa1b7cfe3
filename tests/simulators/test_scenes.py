"""Scenes of several bodies: free objects, height fields, equalities, tendons, several trees; MuJoCo's own steps are
what the MuJoCo engines are held to."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch
from engines_under_test import Make, skip_missing
from torch import Tensor

from dualfid_robot.conformance.robots import WORKSHOP
from dualfid_robot.conformance.worlds import put, run, state, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

RobotOf = Callable[..., RobotModel]

N = 3
BODIES = ("drawer", "ball", "block", "left")
ENGINES = ["mujoco", "mujoco_reduced", pytest.param("mujoco_warp", marks=pytest.mark.slow)]


@pytest.fixture(params=ENGINES)
def name(request: pytest.FixtureRequest) -> str:
    skip_missing(request.param)
    return str(request.param)


def mujoco_itself(model: mujoco.MjModel, ctrls: Tensor, substeps: int, bodies: tuple[str, ...]) -> Tensor:
    """qpos, qvel and contact wrenches of one world after control periods (periods, nu), from the initial state."""
    data = mujoco.MjData(model)
    for ctrl in ctrls:
        data.ctrl[:] = ctrl.double().numpy()
        mujoco.mj_step(model, data, substeps)
    wrenches = [_wrench(model, data, model.body(body).id) for body in bodies]
    return torch.from_numpy(np.concatenate([data.qpos, data.qvel, *wrenches])).float()


def _wrench(model: mujoco.MjModel, data: mujoco.MjData, body: int) -> np.ndarray:
    """Sum of the last step's contact forces on a body, and of their torques about the origin of the world or, where the
    first joint is a free one, of the body that it moves."""
    wrench, origin = np.zeros(6), data.qpos[:3] if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE else np.zeros(3)
    local = np.zeros(6)
    for i in range(data.ncon):
        contact = data.contact[i]
        mujoco.mj_contactForce(model, data, i, local)
        frame = contact.frame.reshape(3, 3)
        force, torque = frame.T @ local[:3], frame.T @ local[3:]  # on the second geom
        for geom, sign in ((contact.geom1, -1.0), (contact.geom2, 1.0)):
            if model.geom_bodyid[geom] == body:
                moment = torque + np.cross(contact.pos - origin, force)
                wrench += sign * np.concatenate([force, moment])
    return wrench


def test_a_workshop_is_mujocos(name: str, make: Make) -> None:
    """A third of a second of everything at once, one world at a time: states to the bit, wrenches to rounding.

    In single precision states are the same to a ten thousandth, but for the block on the height field: MuJoCo Warp
    finds fewer contacts per cell of it than MuJoCo, and soft contacts share the load.
    """
    worlds = make(name, WORKSHOP, N, bodies=BODIES, contacts="full")
    ctrls = torch.rand(20, N, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ctrls[:, :, 2] *= 0.02
    for ctrl in ctrls:
        step(worlds, ctrl)
    model, substeps = worlds.model, worlds.config.substeps  # type: ignore[attr-defined]
    expected = torch.stack([mujoco_itself(model, ctrls[:, i], substeps, BODIES) for i in range(N)])
    motion, wrenches = state(worlds).split((model.nq + model.nv, 6 * len(BODIES)), dim=1)
    expected_motion, expected_wrenches = expected.split((model.nq + model.nv, 6 * len(BODIES)), dim=1)
    assert (expected_wrenches.view(N, -1, 6)[:, :3].norm(dim=2) > 0.5).all(), "drawer, ball or block touch nothing"
    if name == "mujoco_warp":
        on_field = torch.zeros(model.nq + model.nv, dtype=torch.bool)
        on_field[13:20] = on_field[model.nq + 12 :] = True
        torch.testing.assert_close(motion[:, on_field][:, :7], expected_motion[:, on_field][:, :7], rtol=0, atol=5e-3)
        torch.testing.assert_close(motion[:, ~on_field], expected_motion[:, ~on_field], rtol=0, atol=1e-4)
        off = (wrenches - expected_wrenches).view(N, -1, 6).abs().amax((0, 2))
        assert off[[0, 1, 3]].max() < 5e-3
        assert (wrenches.view(N, -1, 6)[:, 2, 2] > 50.0).all()  # the chain presses the block onto the slope
    else:
        assert torch.equal(motion, expected_motion)
        torch.testing.assert_close(wrenches, expected_wrenches, rtol=1e-6, atol=1e-5)


def test_constraints_of_a_workshop_hold(name: str, make: Make) -> None:
    """Fingers move alike, the block hangs on its chain, and the drawer's spring pulls it shut."""
    worlds = make(name, WORKSHOP, 1)
    qpos = torch.from_numpy(WORKSHOP.model.qpos0).float()[None].clone()
    drawer = int(WORKSHOP.model.joint("drawer").qposadr[0])
    qpos[0, drawer] = 0.25
    put(worlds, qpos, torch.zeros(1, WORKSHOP.model.nv))
    for _ in range(60):
        step(worlds, torch.tensor([[0.5, 0.0, 0.015, 0.0]]))
    found = dict(zip(WORKSHOP.joint_names, worlds.qpos[0, :6].tolist(), strict=True))
    assert found["left"] == pytest.approx(found["right"], abs=2e-3)
    assert found["left"] > 0.01
    assert found["yaw"] == pytest.approx(0.5, abs=0.1)
    assert found["drawer"] < 0.1
    assert worlds.qpos[0, 13:16].norm() < 1.2  # within 0.2 m of the place that it is chained to, (-1, 0, 0.4)
    assert not worlds.failed.any()


def test_mujoco_refuses_bodies_that_sleep(make: Make, robot_of: RobotOf) -> None:
    ball = '<body pos="0 0 1"><freejoint/><geom size="0.1"/></body>'
    with pytest.raises(ConfigError, match=r"^robot\.xml: option flag sleep: bodies that sleep"):
        make("mujoco", robot_of(ball, '<option><flag sleep="enable"/></option>'), 1)


STACK = """
<geom name="floor" type="plane" size="5 5 1"/>
<geom name="slope" type="hfield" hfield="slope" pos="3 0 0"/>
<body name="cart" pos="0 0 0.1">
  <freejoint/><geom name="cart" type="box" size="0.2 0.2 0.1" mass="3"/>
  <body name="pole"><joint name="pole" axis="0 1 0" stiffness="500" damping="5"/>
    <geom name="pole" type="capsule" fromto="0 0 0.1 0 0 0.6" size="0.02" mass="0.1" contype="0" conaffinity="0"/>
  </body>
</body>
<body name="parcel" pos="0.1 0 0.25"><freejoint/><geom name="parcel" size="0.05" mass="0.5" condim="6"/></body>
<body name="ghost" pos="1 0 0.05"><freejoint/><geom name="ghost" size="0.05" mass="0.5"/></body>
<body name="foot" pos="3 0 0.28">
  <freejoint/><geom name="foot" type="capsule" size="0.05 0.1" euler="1.5708 0 0" mass="0.5"/></body>
"""
REST = """
<asset><hfield name="slope" nrow="2" ncol="2" size="1 1 0.2 0.1" elevation="0 0 1 1"/></asset>
<contact><pair geom1="ghost" geom2="floor"/></contact>
<sensor/>
"""


@pytest.mark.parametrize("contacts", ["full", "feet"])
@pytest.mark.parametrize("engine_name", ENGINES)
def test_feet_touch_each_other_the_plane_and_the_field(
    engine_name: str, contacts: str, make: Make, robot_of: RobotOf
) -> None:
    """A cart bears a parcel, a foot lies on a slope; the ghost, which is no foot, falls through, though the file has a
    contact pair for it. Wrenches are about the origin of the first body."""
    skip_missing(engine_name)
    bodies = ("cart", "parcel", "foot", "ghost")
    robot = robot_of(STACK, REST, feet=bodies[:3])
    worlds = make(engine_name, robot, 1, bodies=bodies, contacts=contacts)
    run(worlds, 0.2)
    cart, parcel, foot, ghost = worlds.contact_wrench[0].cpu()
    gravity = 9.81
    qpos = worlds.qpos[0].cpu()
    assert float(parcel[2]) == pytest.approx(0.5 * gravity, rel=0.03)
    assert float(cart[2]) == pytest.approx(
        3.1 * gravity, rel=0.03
    )  # of the floor, less the parcel's; it bears the pole
    assert float(qpos[2]) == pytest.approx(0.1, abs=2e-3)
    # The parcel's force acts below it, so that its torque about the cart's origin is -x F about the y-axis.
    assert float(parcel[4]) == pytest.approx(-0.1 * float(parcel[2]), rel=0.1)
    assert float(foot[2]) > 1.0
    through = float(qpos[int(robot.model.jnt_qposadr[3]) + 2]) < -0.05
    assert through == (contacts == "feet")
    assert bool(ghost.any()) == (contacts == "full")
