"""Layouts, frames, staleness and setters of the tensors, and what drives the joints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from small_robots import build, load, slider, standing

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.session import NotProvided

WEIGHT = (8.0 + 4 * 0.6) * 9.81


def acquire(gym: Any, sim: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    names = ("actor_root_state", "dof_state", "rigid_body_state", "net_contact_force")
    return tuple(getattr(gym, f"acquire_{name}_tensor")(sim) for name in names)  # type: ignore[return-value]


def refresh(gym: Any, sim: Any) -> None:
    for name in ("actor_root_state", "dof_state", "rigid_body_state", "net_contact_force"):
        assert getattr(gym, f"refresh_{name}_tensor")(sim)


def test_shapes_and_initial_states(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 3)
    tensors = acquire(gym, sim)
    assert [tuple(tensor.shape) for tensor in tensors] == [(3, 13), (12, 2), (27, 13), (27, 3)]
    assert all(tensor.dtype == torch.float32 for tensor in tensors)
    refresh(gym, sim)
    root, dof, body, contact = tensors
    expected = torch.tensor([0, 0, 0.281, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    torch.testing.assert_close(root, expected.expand(3, 13))
    assert not dof.any() and not contact.any()
    front_left_foot = body.view(3, 9, 13)[0, 2, :3]
    torch.testing.assert_close(front_left_foot, torch.tensor([0.15, 0.1, 0.281 - 0.25]))


def test_tensors_change_on_a_refresh_alone(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 2)
    tensors = acquire(gym, sim)
    refresh(gym, sim)
    before = [tensor.clone() for tensor in tensors]
    view = tensors[0][:, 2]
    for _ in range(20):
        gym.simulate(sim)
    assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))
    refresh(gym, sim)
    assert not torch.equal(view, before[0][:, 2])
    assert all(not torch.equal(now, then) for now, then in zip(tensors, before, strict=True))


def test_what_a_task_writes_counts_when_it_is_set(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 2)
    root = gym.acquire_actor_root_state_tensor(sim)
    gym.refresh_actor_root_state_tensor(sim)
    root[1, 2] = 5.0
    gym.refresh_actor_root_state_tensor(sim)
    assert root[1, 2] == pytest.approx(0.281)
    root[:, 2] = 5.0
    gym.set_actor_root_state_tensor_indexed(sim, root, torch.tensor([1], dtype=torch.int32), 1)
    gym.refresh_actor_root_state_tensor(sim)
    assert root[:, 2].tolist() == pytest.approx([0.281, 5.0])


def test_velocities_are_in_the_worlds_frame(gymapi: Any, walker: Path) -> None:
    """A robot that is turned over and spins: its bodies' velocities are those of a rigid body."""
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
    sim = build(gymapi, asset, 1, ground=False)
    root, _, body, _ = acquire(gym, sim)
    rotation = Rotation.from_euler("xyz", [0.4, -0.7, 2.0])
    linear, angular = np.array([0.3, -0.2, 0.5]), np.array([1.0, 2.0, -3.0])
    root[0] = torch.tensor([1.0, 2.0, 3.0, *rotation.as_quat(), *linear, *angular])
    given_state = root.clone()
    gym.set_actor_root_state_tensor(sim, root)
    refresh(gym, sim)
    torch.testing.assert_close(root, given_state)
    arm = rotation.apply([0.15, 0.1, -0.25])
    foot = body[2].double().numpy()
    assert foot[:3] == pytest.approx(np.array([1.0, 2.0, 3.0]) + arm, abs=1e-6)
    assert foot[7:10] == pytest.approx(linear + np.cross(angular, arm), abs=1e-5)
    assert foot[10:] == pytest.approx(angular, abs=1e-5)


def test_contact_forces_carry_the_weight(gymapi: Any, walker: Path) -> None:
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True, default_dof_drive_mode=gymapi.DOF_MODE_POS)
    properties = gym.get_asset_dof_properties(asset)
    properties["stiffness"], properties["damping"] = 200.0, 5.0
    sim = build(gymapi, asset, 2, height=0.281)
    for env in sim.environments:
        gym.set_actor_dof_properties(env, 0, properties)
    contact = gym.acquire_net_contact_force_tensor(sim).view(2, 9, 3)
    for _ in range(400):
        gym.simulate(sim)
    gym.refresh_net_contact_force_tensor(sim)
    feet = [2, 4, 6, 8]
    assert contact[:, feet, 2].sum(1).tolist() == pytest.approx([WEIGHT] * 2, rel=0.01)
    assert not contact[:, [0, 1, 3, 5, 7]].any()


def test_efforts_act_for_one_step(gymapi: Any, pole: Path) -> None:
    """40 N on 2.85 kg with a damper, twice: only the first step has it."""
    gym, asset = load(gymapi, pole, fix_base_link=True)
    sim = build(gymapi, asset, 1, ground=False, gravity=gymapi.Vec3())
    dof = gym.acquire_dof_state_tensor(sim)
    gym.set_dof_actuation_force_tensor(sim, torch.tensor([40.0, 99.0]))
    gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    first = float(dof[0, 1])
    # cart 2 kg, armature 0.1, pole 0.75 kg whose inertia gives way: between the whole mass and the cart's alone
    assert 40 * 0.005 / 2.85 < first < 40 * 0.005 / 2.0
    gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    assert abs(float(dof[0, 1]) - first) < 0.05 * first


@pytest.mark.parametrize("stiffness", [50.0, 1e6])
def test_a_position_drive_is_an_implicit_spring(gymapi: Any, tmp_path: Path, stiffness: float) -> None:
    """At the end of a step h the velocity is (v + h k (q* - q) / m) / (1 + h (d + h k) / m), at any stiffness."""
    gym, asset = slider(gymapi, tmp_path)
    properties = gym.get_asset_dof_properties(asset)
    properties["driveMode"], properties["stiffness"], properties["damping"] = gymapi.DOF_MODE_POS, stiffness, 3.0
    sim = build(gymapi, asset, 1, ground=False, gravity=gymapi.Vec3())
    gym.set_actor_dof_properties(sim.environments[0], 0, properties)
    dof = gym.acquire_dof_state_tensor(sim)
    gym.set_dof_position_target_tensor(sim, torch.tensor([0.2]))
    q = v = 0.0
    h = 0.005
    for _ in range(100):
        v = (v + h * stiffness * (0.2 - q) / 2.0) / (1 + h * (3.0 + h * stiffness) / 2.0)
        q += h * v
        gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    assert dof[0].tolist() == pytest.approx([q, v], rel=1e-4, abs=1e-6)


def test_a_velocity_drive_and_a_damper(gymapi: Any, tmp_path: Path) -> None:
    gym, asset = slider(gymapi, tmp_path)
    properties = gym.get_asset_dof_properties(asset)
    sim = build(gymapi, asset, 2, ground=False, gravity=gymapi.Vec3())
    properties["driveMode"], properties["damping"] = gymapi.DOF_MODE_VEL, 4.0
    for env in sim.environments:
        gym.set_actor_dof_properties(env, 0, properties)
    dof = gym.acquire_dof_state_tensor(sim)
    gym.set_dof_velocity_target_tensor(sim, torch.tensor([1.0, -2.0]))
    for _ in range(200):
        gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    expected = 1 - (1 + 0.005 * 4.0 / 2.0) ** -200
    assert dof[:, 1].tolist() == pytest.approx([expected, -2 * expected], rel=1e-4)


def test_properties_differ_between_environments(gymapi: Any, tmp_path: Path) -> None:
    """Stiffness, damping and mass of each environment's own, before the first step and after it."""
    gym, asset = slider(gymapi, tmp_path)
    sim = build(gymapi, asset, 2, ground=False, gravity=gymapi.Vec3())
    for number, env in enumerate(sim.environments):
        properties = gym.get_actor_dof_properties(env, 0)
        properties["driveMode"], properties["stiffness"] = gymapi.DOF_MODE_POS, 50.0 * (1 + number)
        properties["damping"] = 1.0 + number
        gym.set_actor_dof_properties(env, 0, properties)
        bodies = gym.get_actor_rigid_body_properties(env, 0)
        bodies[0].mass = 2.0 + number
        gym.set_actor_rigid_body_properties(env, 0, bodies, recomputeInertia=True)
    dof = gym.acquire_dof_state_tensor(sim)
    gym.set_dof_position_target_tensor(sim, torch.tensor([0.1, 0.1]))
    gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    h = 0.005
    expected = [h * k * 0.1 / m / (1 + h * (d + h * k) / m) for k, d, m in ((50, 1, 2), (100, 2, 3))]
    assert dof[:, 1].tolist() == pytest.approx(expected, rel=1e-4)
    properties["stiffness"], properties["damping"] = 400.0, 0.0
    gym.set_actor_dof_properties(sim.environments[1], 0, properties)
    gym.set_dof_state_tensor(sim, torch.zeros(2, 2))
    gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    expected[1] = h * 400 * 0.1 / 3 / (1 + h * h * 400 / 3)
    assert dof[:, 1].tolist() == pytest.approx(expected, rel=1e-4)


def test_two_actors(gymapi: Any, walker: Path) -> None:
    """A walker and a ball: indices, rows, and a setter that leaves the other actor alone."""
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
    ball = gym.create_sphere(None, 0.1, gymapi.AssetOptions())
    sim = build(gymapi, asset, 2, ground=False)
    pose = gymapi.Transform(gymapi.Vec3(2, 0, 1))
    handles = [gym.create_actor(env, ball, pose, "ball", env.number, 0, 0) for env in sim.environments]
    assert handles == [1, 1]
    assert [gym.get_actor_index(env, 1, gymapi.DOMAIN_SIM) for env in sim.environments] == [1, 3]
    assert gym.find_actor_rigid_body_handle(sim.environments[1], 1, "body") == 9
    assert gym.find_actor_rigid_body_index(sim.environments[1], 1, "body", gymapi.DOMAIN_SIM) == 19
    root, body = gym.acquire_actor_root_state_tensor(sim), gym.acquire_rigid_body_state_tensor(sim)
    gym.refresh_actor_root_state_tensor(sim)
    root[3, :3], root[3, 7] = torch.tensor([5.0, 6.0, 7.0]), 2.0
    root[2, :3] = 100.0
    gym.set_actor_root_state_tensor_indexed(sim, root, torch.tensor([3], dtype=torch.int32), 1)
    gym.simulate(sim)
    gym.refresh_actor_root_state_tensor(sim)
    gym.refresh_rigid_body_state_tensor(sim)
    assert root[3, 0] == pytest.approx(5.0 + 2.0 * 0.005, abs=1e-5)
    assert root[2, :2].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    torch.testing.assert_close(body.view(2, 10, 13)[:, 9], root.view(2, 2, 13)[:, 1], rtol=0, atol=1e-5)


def test_forces_on_bodies(gymapi: Any) -> None:
    """Of 2 N on 0.5 kg for one step, in the body's frame; the next step has none."""
    gym, options = gymapi.acquire_gym(), gymapi.AssetOptions()
    options.density = 500.0
    sim = build(gymapi, gym.create_box(None, 0.1, 0.1, 0.1, options), 2, ground=False, gravity=gymapi.Vec3())
    root = gym.acquire_actor_root_state_tensor(sim)
    gym.refresh_actor_root_state_tensor(sim)
    root[1, 3:7] = torch.tensor([0.0, 0.0, 0.5**0.5, 0.5**0.5])  # a quarter turn about z
    gym.set_actor_root_state_tensor(sim, root)
    forces = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    gym.apply_rigid_body_force_tensors(sim, forces, None, gymapi.LOCAL_SPACE)
    for _ in range(2):
        gym.simulate(sim)
    gym.refresh_actor_root_state_tensor(sim)
    torch.testing.assert_close(root[:, 7:10], torch.tensor([[0.02, 0, 0], [0, 0.02, 0]]), rtol=0, atol=1e-6)


def test_friction_is_the_mean_of_both(gymapi: Any) -> None:
    """Boxes with friction 0.2 and 0.6 on ground with 1: they slide v² / 2 μ g with μ = 0.6 and 0.8."""
    gym = gymapi.acquire_gym()
    box = gym.create_box(None, 0.4, 0.4, 0.1, gymapi.AssetOptions())
    sim = build(gymapi, box, 2, height=0.05)
    for env, friction in zip(sim.environments, (0.2, 0.6), strict=True):
        shapes = gym.get_actor_rigid_shape_properties(env, 0)
        shapes[0].friction = friction
        gym.set_actor_rigid_shape_properties(env, 0, shapes)
    root = gym.acquire_actor_root_state_tensor(sim)
    for _ in range(20):
        gym.simulate(sim)
    gym.refresh_actor_root_state_tensor(sim)
    root[:, 0], root[:, 7:13] = 0.0, torch.tensor([2.0, 0, 0, 0, 0, 0])
    gym.set_actor_root_state_tensor(sim, root)
    for _ in range(200):
        gym.simulate(sim)
    gym.refresh_actor_root_state_tensor(sim)
    assert root[:, 0].tolist() == pytest.approx([4 / (2 * 0.6 * 9.81), 4 / (2 * 0.8 * 9.81)], rel=0.05)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_indexed_setters_touch_the_named_actors_alone(gymapi: Any, tmp_path: Path, data: st.DataObject) -> None:
    """Two actors with joints in each of three environments, any subset of them, in any order."""
    gym, sim = _six_actors(gymapi, tmp_path)
    root, dof = gym.acquire_actor_root_state_tensor(sim), gym.acquire_dof_state_tensor(sim)
    gym.refresh_actor_root_state_tensor(sim)
    gym.refresh_dof_state_tensor(sim)
    old_root, old_dof = root.clone(), dof.clone()
    chosen = data.draw(st.lists(st.integers(0, 5), unique=True))
    seed = data.draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    root[:] = torch.randn(6, 13, generator=generator)
    root[:, 3:7] /= root[:, 3:7].norm(dim=1, keepdim=True)
    dof[:] = torch.rand(6, 2, generator=generator)
    new_root, new_dof = root.clone(), dof.clone()
    indices = torch.tensor([*chosen, 4, 5], dtype=torch.int32)
    gym.set_actor_root_state_tensor_indexed(sim, root, indices, len(chosen))
    gym.set_dof_state_tensor_indexed(sim, dof, indices, len(chosen))
    gym.refresh_actor_root_state_tensor(sim)
    gym.refresh_dof_state_tensor(sim)
    for actor in range(6):
        expected = (new_root, new_dof) if actor in chosen else (old_root, old_dof)
        torch.testing.assert_close(dof[actor], expected[1][actor], rtol=0, atol=1e-6)
        torch.testing.assert_close(root[actor], expected[0][actor], rtol=0, atol=1e-5)


def _six_actors(gymapi: Any, tmp_path: Path) -> tuple[Any, Any]:
    path = tmp_path / "pendulum.xml"
    path.write_text(
        '<mujoco><worldbody><body name="a"><freejoint/><geom type="sphere" size="0.1"/><body name="b" pos="0 0 0.3">'
        '<joint name="j" type="hinge" axis="0 1 0"/><geom type="sphere" size="0.1"/></body></body></worldbody></mujoco>'
    )
    gym, asset = load(gymapi, path)
    sim = build(gymapi, asset, 3, ground=False)
    for env in sim.environments:
        gym.create_actor(env, asset, gymapi.Transform(gymapi.Vec3(3, 0, 1)), "second", env.number, 0, 0)
    return gym, sim


def test_an_index_that_is_no_actor_is_refused(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 2)
    root = gym.acquire_actor_root_state_tensor(sim)
    with pytest.raises(IndexError, match="2 actors"):
        gym.set_actor_root_state_tensor_indexed(sim, root, torch.tensor([2], dtype=torch.int32), 1)


def test_what_is_not_provided_is_named(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 1)
    for call, name in (
        (lambda: gym.set_actor_scale(sim, 0, 1.0), "gym.set_actor_scale"),
        (lambda: gymapi.DOMAIN_GALAXY, "gymapi.DOMAIN_GALAXY"),
        (lambda: setattr(gymapi.AssetOptions(), "colour", 1), "AssetOptions.colour"),
    ):
        with pytest.raises(NotProvided, match=rf"{name} is not provided on engine mujoco"):
            call()
    assert not hasattr(gym, "set_actor_scale")


def test_values_and_indices_of_another_kind_are_refused(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 2)
    root, one = gym.acquire_actor_root_state_tensor(sim), torch.tensor([1], dtype=torch.int32)
    gym.refresh_actor_root_state_tensor(sim)
    for call, says in (
        (lambda: gym.set_actor_root_state_tensor_indexed(sim, root, torch.tensor([True, False]), 2), "torch.bool"),
        (lambda: gym.set_actor_root_state_tensor_indexed(sim, root, one.float(), 1), "torch.float32"),
        (lambda: gym.set_actor_root_state_tensor_indexed(sim, root, one, 2), "2 actor indices are to be used; 1 are"),
        (lambda: gym.set_actor_root_state_tensor(sim, torch.zeros(3, 13)), r"root states of shape \(3, 13\)"),
        (lambda: gym.set_dof_state_tensor(sim, torch.zeros(4, 2)), r"DOF states of shape \(4, 2\)"),
        (lambda: gym.set_dof_actuation_force_tensor(sim, torch.zeros(4)), r"values of DOFs of shape \(4,\)"),
        (lambda: gym.apply_rigid_body_force_tensors(sim, torch.zeros(2, 3), None), r"forces of shape \(2, 3\)"),
    ):
        with pytest.raises(ConfigError, match=says):
            call()


def test_a_fixed_root_stays_where_it_is(gymapi: Any, pole: Path) -> None:
    gym, asset = load(gymapi, pole, fix_base_link=True)
    sim = build(gymapi, asset, 2)
    root = gym.acquire_actor_root_state_tensor(sim)
    gym.refresh_actor_root_state_tensor(sim)
    gym.set_actor_root_state_tensor(sim, root)
    root[1, 0] = 1.0
    with pytest.raises(NotProvided, match="another place for actor actor"):
        gym.set_actor_root_state_tensor(sim, root)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_indexed_targets_reach_the_named_actors_alone(gymapi: Any, tmp_path: Path, data: st.DataObject) -> None:
    """Targets and efforts of any subset of six actors, each named once or more, in any order."""
    gym, sim = _six_actors(gymapi, tmp_path)
    chosen = data.draw(st.lists(st.integers(0, 5)))
    kind = data.draw(st.sampled_from(["dof_position_target", "dof_velocity_target", "dof_actuation_force"]))
    held = {"dof_position_target": "position_targets", "dof_velocity_target": "velocity_targets"}
    values = torch.arange(1.0, 7.0)
    indices = torch.tensor([*chosen, 4, 5], dtype=torch.int32)
    getattr(gym, f"set_{kind}_tensor_indexed")(sim, values, indices, len(chosen))
    found = getattr(sim, held.get(kind, "efforts")).flatten().tolist()
    assert found == [number if number - 1 in chosen else 0.0 for number in range(1, 7)]
