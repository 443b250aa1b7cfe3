"""What the chosen engine makes of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_robots import build, load

from dualfid_robot.isaacgym import session
from dualfid_robot.isaacgym.session import Session, using
from dualfid_robot.isaacgym.simulation import announce


def settled_forces(gym: Any, sim: Any, steps: int) -> torch.Tensor:
    """(bodies, 3) contact forces of a scene after so many steps."""
    forces: torch.Tensor = gym.acquire_net_contact_force_tensor(sim)
    for _ in range(steps):
        gym.simulate(sim)
    gym.refresh_net_contact_force_tensor(sim)
    return forces


def test_only_feet_touch_in_the_reduced_engine(
    gymapi: Any, walker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_said", set())
    with using(Session(engine="mujoco_reduced", feet=("FOOT",))):
        gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
        sim = build(gymapi, asset, 2, height=0.281)
        forces = gym.acquire_net_contact_force_tensor(sim)
    feet = [f"0/{side}_foot" for side in ("FL", "FR", "RL", "RR")]
    assert sim.simulator.contact_bodies == tuple(feet)
    geoms = sim.simulator.robot.compile(0.005, contacts="feet")
    able = [geoms.body(geoms.geom_bodyid[i]).name for i in range(geoms.ngeom) if geoms.geom_contype[i]]
    assert sorted(able) == [*feet, "world"]
    for _ in range(100):
        gym.simulate(sim)
    gym.refresh_net_contact_force_tensor(sim)
    touched = forces.view(2, -1, 3)[0, :, 2] != 0
    assert [name for name, force in zip(asset.body_names, touched, strict=True) if force] == [foot[2:] for foot in feet]
    assert "nothing touches 0/base, 0/FL_leg" in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "refuses"), [("physx", True), ("mujoco", False)])
def test_the_banner_says_what_an_engine_lacks(
    engine: str, refuses: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_said", set())
    announce("train.py", Session(engine=engine))
    said = capsys.readouterr().err
    assert f"train.py runs on engine {engine}" in said
    assert "restitution, velocity limits and clamps, and what SimParams says to PhysX" in said
    assert (f"engine {engine} refuses DOF forces and forces on bodies" in said) == refuses


def test_bodies_that_nothing_touches_are_named_without_contact_forces_too(
    gymapi: Any, walker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_said", set())
    with using(Session(engine="mujoco_reduced")):
        gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
        gym.simulate(build(gymapi, asset, 1))
    assert "nothing touches 0/base, 0/FL_leg" in capsys.readouterr().err


def test_changes_of_the_robot_reach_the_engine(gymapi: Any, walker: Path) -> None:
    """As a study's gaps change it: gravity and masses by factors."""
    settings = {"engine": "mujoco", "name": "heavier", "changes": {"gravity": 2.0, "mass": 1.5}}
    with using(Session(engine="heavier", settings=settings)):
        gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
        sim = build(gymapi, asset, 1, height=0.281)
        forces = settled_forces(gym, sim, 200)
    assert forces[:, 2].sum() == pytest.approx(10.4 * 1.5 * 9.81 * 2.0, rel=0.02)


def test_a_body_without_shapes_reads_no_contact(gymapi: Any, tmp_path: Path, walker: Path) -> None:
    """As the links of legged_gym's anymal_c that have none."""
    bare = tmp_path / "bare.urdf"
    shape = '<collision><origin xyz="0 0 -0.1"/><geometry><cylinder radius="0.02" length="0.2"/></geometry></collision>'
    text = walker.read_text()
    assert text.count(shape) == 4
    bare.write_text(text.replace(shape, ""))
    gym, asset = load(gymapi, bare, collapse_fixed_joints=True)
    sim = build(gymapi, asset, 1, height=0.281)
    forces = settled_forces(gym, sim, 100)
    names = [name for name in asset.body_names if "leg" in name]
    assert not forces[[asset.body_names.index(name) for name in names]].any()
    assert forces[:, 2].sum() == pytest.approx(10.4 * 9.81, rel=0.02)


@pytest.mark.parametrize("engine", ["physx", "pybullet", "mujoco_warp"])
def test_engines_without_states_of_bodies_get_them_from_the_joints(gymapi: Any, walker: Path, engine: str) -> None:
    """The oracle is MuJoCo's own kinematics, of the state in which the engine is after some steps of tumbling."""
    with using(Session(engine=engine)):
        gym, asset = load(gymapi, walker, collapse_fixed_joints=True, replace_cylinder_with_capsule=True)
        sim = build(gymapi, asset, 3, height=1.0)
        root = gym.acquire_actor_root_state_tensor(sim)
        gym.refresh_actor_root_state_tensor(sim)
        root[:, 7:] = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
        gym.set_actor_root_state_tensor(sim, root)
        bodies = gym.acquire_rigid_body_state_tensor(sim)
        for _ in range(20):
            gym.simulate(sim)
        gym.refresh_rigid_body_state_tensor(sim)
    model = sim.simulator.robot.model
    data = mujoco.MjData(model)
    for world, states in enumerate(bodies.view(3, -1, 13)):
        data.qpos[:], data.qvel[:] = sim.simulator.qpos[world], sim.simulator.qvel[world]
        mujoco.mj_forward(model, data)
        for body, state in enumerate(states.double(), start=1):
            velocity = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            rotation = Rotation.from_quat(state[3:7].numpy()).as_matrix()
            np.testing.assert_allclose(state[:3], data.xpos[body], atol=1e-5)
            np.testing.assert_allclose(rotation, data.xmat[body].reshape(3, 3), atol=1e-5)
            np.testing.assert_allclose(state[7:], np.roll(velocity, 3), atol=1e-4)
    sim.simulator.close()
