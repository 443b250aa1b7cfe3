"""Order, masses and properties of assets, against numbers worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from small_robots import build, load

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym import session
from dualfid_robot.isaacgym.parameters import RigidBodyProperties
from dualfid_robot.isaacgym.session import NotProvided


def test_urdf_is_depth_first_with_children_by_name(gymapi: Any, walker: Path) -> None:
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
    sides = ("FL", "FR", "RL", "RR")
    assert gym.get_asset_dof_names(asset) == [f"{side}_hip" for side in sides]
    legs = [name for side in sides for name in (f"{side}_leg", f"{side}_foot")]
    assert gym.get_asset_rigid_body_names(asset) == ["base", *legs]
    assert gym.get_asset_rigid_shape_count(asset) == 9


def test_nothing_collapses_unless_asked(gymapi: Any, walker: Path) -> None:
    gym, asset = load(gymapi, walker)
    assert gym.get_asset_rigid_body_names(asset)[-1] == "lamp"
    assert gym.get_asset_rigid_body_count(asset) == 10


def test_mass_and_inertia_after_collapsing(gymapi: Any, walker: Path) -> None:
    """A lamp of 2 kg at (0.2, 0, 0.1) on a base of 6 kg: centre at a quarter of the way, reduced mass 1.5 kg."""
    gym, asset = load(gymapi, walker, collapse_fixed_joints=True)
    env = gym.create_env(build_nothing(gymapi), gymapi.Vec3(), gymapi.Vec3(), 1)
    base = gym.get_actor_rigid_body_properties(env, gym.create_actor(env, asset, gymapi.Transform(), "a", 0, 0, 0))[0]
    assert base.mass == pytest.approx(8.0)
    assert tuple(base.com) == pytest.approx((0.05, 0.0, 0.025))
    x, z = 0.2, 0.1
    assert base.inertia.x.x == pytest.approx(0.1 + 0.01 + 1.5 * z**2)
    assert base.inertia.y.y == pytest.approx(0.2 + 0.02 + 1.5 * (x**2 + z**2))
    assert base.inertia.z.z == pytest.approx(0.25 + 0.03 + 1.5 * x**2)
    assert base.inertia.x.z == pytest.approx(-1.5 * x * z)


def test_dof_properties_of_a_urdf(gymapi: Any, walker: Path) -> None:
    gym, asset = load(gymapi, walker, default_dof_drive_mode=gymapi.DOF_MODE_EFFORT, armature=0.02)
    properties = gym.get_asset_dof_properties(asset)
    assert properties.dtype.names[:4] == ("hasLimits", "lower", "upper", "driveMode")
    found = properties[0]
    assert bool(found["hasLimits"]) and found["driveMode"] == gymapi.DOF_MODE_EFFORT
    expected = {"lower": -1.2, "upper": 0.8, "velocity": 12, "effort": 30, "stiffness": 0, "damping": 0.2}
    for name, value in (expected | {"friction": 0.05, "armature": 0.02}).items():
        assert found[name] == pytest.approx(value)
    properties["damping"] = 7
    assert gym.get_asset_dof_properties(asset)["damping"][0] == pytest.approx(0.2)
    limits = build(gymapi, asset, 1).simulator.robot.joint_limits
    assert limits == pytest.approx(np.tile([-1.2, 0.8], (4, 1)))


def test_dof_properties_and_actuators_of_an_mjcf(gymapi: Any, pole: Path) -> None:
    gym, asset = load(gymapi, pole, default_dof_drive_mode=gymapi.DOF_MODE_NONE)
    slide, hinge = gym.get_asset_dof_properties(asset)
    assert (slide["driveMode"], hinge["driveMode"]) == (gymapi.DOF_MODE_EFFORT, gymapi.DOF_MODE_NONE)
    assert (slide["lower"], slide["upper"]) == pytest.approx((-3, 3))
    assert not hinge["hasLimits"] and hinge["upper"] == np.finfo(np.float32).max
    assert (slide["damping"], slide["armature"], hinge["stiffness"]) == pytest.approx((0.5, 0.1, 1.5))
    assert [actuator.motor_effort for actuator in gym.get_asset_actuator_properties(asset)] == [40.0]
    assert gym.get_asset_actuator_joint_name(asset, 0) == "slide"


def test_actuators_that_are_servos(gymapi: Any, pole: Path) -> None:
    """Gains and ranges of forces; what the file does not limit is not limited."""
    motor = '<motor joint="slide" gear="40" ctrlrange="-1 1" ctrllimited="true"/>'
    servos = '<position joint="slide" kp="37" kv="2" forcerange="-2 3"/><velocity joint="hinge" kv="5"/>'
    pole.write_text(pole.read_text().replace(motor, servos))
    gym, asset = load(gymapi, pole)
    position, velocity = gym.get_asset_actuator_properties(asset)
    assert (position.kp, position.kv, velocity.kp, velocity.kv) == (37.0, 2.0, 0.0, 5.0)
    assert position.force_limited and (position.lower_force_limit, position.upper_force_limit) == (-2.0, 3.0)
    assert not position.control_limited and not velocity.force_limited
    assert velocity.upper_force_limit == position.upper_control_limit == np.finfo(np.float32).max


def test_tendons_are_counted_and_their_properties_refused(gymapi: Any, pole: Path) -> None:
    """Who randomises whatever an actor has asks for its tendons too; an actor without any has none to give."""
    gym, bare = load(gymapi, pole)
    assert (gym.get_asset_tendon_count(bare), gym.get_asset_tendon_properties(bare)) == (0, [])
    env = build(gymapi, bare, 1).environments[0]
    assert gym.get_actor_tendon_properties(env, 0) == [] and gym.set_actor_tendon_properties(env, 0, [])
    tendon = (
        '<tendon><fixed name="both"><joint joint="slide" coef="1"/><joint joint="hinge" coef="1"/></fixed></tendon>'
    )
    pole.write_text(pole.read_text().replace("<actuator>", f"{tendon}<actuator>"))
    asset = load(gymapi, pole)[1]
    assert (gym.get_asset_tendon_count(asset), gym.get_asset_tendon_name(asset, 0)) == (1, "both")
    with pytest.raises(NotProvided, match=r"gym\.get_asset_tendon_properties is not provided on engine mujoco"):
        gym.get_asset_tendon_properties(asset)


def test_options_that_change_nothing_are_named(
    gymapi: Any, walker: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_said", set())
    load(gymapi, walker, angular_damping=0.0, override_inertia=True, vhacd_enabled=True, thickness=0.01)
    assert "options of assets without counterpart: override_inertia, vhacd_enabled" in capsys.readouterr().err


def test_numbers_of_structures_are_numbers() -> None:
    """NVIDIA's take arrays of one element, which code that randomises writes. What they do not have is named."""
    body = RigidBodyProperties()
    body.mass = np.array([2.5])
    assert body.mass == 2.5 and isinstance(body.mass, float)
    with pytest.raises(NotProvided, match=r"gymapi\.RigidBodyProperties\.colour"):
        _ = body.colour


@pytest.mark.parametrize("unit", ["degree", "radian"])
def test_limits_of_joints_are_those_of_the_file(gymapi: Any, pole: Path, unit: str) -> None:
    """Of the asset and in the engine, whatever the file's unit is."""
    limits = "-40 60" if unit == "degree" else f"{-np.pi * 40 / 180} {np.pi / 3}"
    text = pole.read_text().replace('angle="degree"', f'angle="{unit}"')
    pole.write_text(text.replace('stiffness="1.5"', f'limited="true" range="{limits}"'))
    gym, asset = load(gymapi, pole)
    properties = gym.get_asset_dof_properties(asset)
    expected = np.array([[-3.0, 3.0], [-np.pi * 40 / 180, np.pi / 3]])
    assert np.stack([properties["lower"], properties["upper"]], 1) == pytest.approx(expected)
    assert build(gymapi, asset, 1).simulator.robot.joint_limits == pytest.approx(expected)


def test_options_of_an_mjcf_are_not_its_assets(gymapi: Any, pole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """MuJoCo would warn of those that differ from the scene's."""
    options = '<option timestep="0.016" gravity="0 0 -1"/><size njmax="200"/><visual><map zfar="30"/></visual>'
    pole.write_text(pole.read_text().replace("<worldbody>", f"{options}<worldbody>"))
    _, asset = load(gymapi, pole)
    assert build(gymapi, asset, 1).simulator.robot.gravity == pytest.approx([0.0, 0.0, -9.81])
    assert "conflict" not in "".join(capfd.readouterr())


def test_the_world_of_an_mjcf_is_not_its_asset(gymapi: Any, pole: Path) -> None:
    """The floor, and a geom that only is seen, are no shapes."""
    gym, asset = load(gymapi, pole)
    assert gym.get_asset_rigid_body_names(asset) == ["cart", "pole"]
    assert gym.get_asset_rigid_shape_count(asset) == 2


def test_a_link_without_mass_has_that_of_its_shapes(gymapi: Any, tmp_path: Path) -> None:
    (tmp_path / "block.urdf").write_text(
        '<robot name="block"><link name="block"><collision><geometry><box size="0.1 0.2 0.3"/></geometry></collision>'
        "</link></robot>"
    )
    _, asset = load(gymapi, tmp_path / "block.urdf", density=500.0)
    assert asset.model.body_mass[1] == pytest.approx(3.0)
    assert sorted(asset.model.body_inertia[1]) == pytest.approx([0.25 * 0.05, 0.25 * 0.1, 0.25 * 0.13])


def test_a_mesh_collides_as_its_whole_convex_hull(gymapi: Any, tmp_path: Path) -> None:
    """With fewer corners a foot has no heel: Unitree's H1 then walked 6 % more slowly."""
    corners = np.random.default_rng(0).normal(size=(300, 3))
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)  # all of a ball's are on its hull
    lines = ["v {} {} {}".format(*corner) for corner in corners]
    faces = ConvexHull(corners).simplices + 1
    lines += ["f {} {} {}".format(*face) for face in faces]
    (tmp_path / "ball.obj").write_text("\n".join(lines))
    shape = '<collision><geometry><mesh filename="ball.obj"/></geometry></collision>'
    (tmp_path / "robot.urdf").write_text(f'<robot name="r"><link name="base">{shape}</link></robot>')
    model = load(gymapi, tmp_path / "robot.urdf")[1].model
    on_the_hull = model.mesh_graph[model.mesh_graphadr[0]]
    assert on_the_hull == len(corners)


def test_geoms_that_are_only_seen_have_mass(gymapi: Any, pole: Path) -> None:
    """A rod of 0.5 kg that nothing touches, and a ball of 0.25 kg at its end, 1 m from the hinge."""
    _, asset = load(gymapi, pole)
    assert asset.model.body_mass.tolist() == pytest.approx([0.0, 2.0, 0.75])
    assert asset.model.body_ipos[2] == pytest.approx([0.0, 0.0, (0.5 * 0.5 + 0.25) / 0.75])
    assert len(asset.shapes) == 2


@pytest.mark.parametrize(("make", "mass"), [("create_box", 400 * 0.006), ("create_sphere", 400 * 4 / 3 * np.pi * 1e-3)])
def test_primitives(gymapi: Any, make: str, mass: float) -> None:
    options = gymapi.AssetOptions()
    options.density = 400
    sizes = (0.1, 0.2, 0.3) if make == "create_box" else (0.1,)
    asset = getattr(gymapi.acquire_gym(), make)(None, *sizes, options)
    assert asset.model.body_mass[1] == pytest.approx(mass)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.urdf", None, "no such file"),
        ("a.usd", "", "load_asset"),
        ("a.xml", "<x/>", "valid"),
        ("b.xml", '<mujoco><worldbody><body><geom type="mesh" mesh="m"/></body></worldbody></mujoco>', "valid"),
    ],
)
def test_a_bad_file_is_named(gymapi: Any, tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}.*{says}|{says}.*{name}"):
        load(gymapi, tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "file", "bodies", "legs", "joints"),
    [
        ("UNITREE_RL_GYM", "go2/urdf/go2.urdf", 19, "FL FR RL RR", "{}_hip_joint {}_thigh_joint {}_calf_joint"),
        ("LEGGED_GYM", "anymal_c/urdf/anymal_c.urdf", 17, "LF LH RF RH", "{}_HAA {}_HFE {}_KFE"),
    ],
)
def test_real_robots_have_the_order_that_their_policies_expect(
    gymapi: Any, variable: str, file: str, bodies: int, legs: str, joints: str
) -> None:
    """As published: Unitree's code for its robot lists the legs in this order, and legged_gym for its policies."""
    if (folder := os.environ.get(variable)) is None:
        pytest.skip(f"{variable} names no folder")
    gym, asset = load(gymapi, Path(folder) / "resources" / "robots" / file, collapse_fixed_joints=True)
    assert gym.get_asset_rigid_body_count(asset) == bodies
    expected = [joint.format(leg) for leg in legs.split() for joint in joints.split()]
    assert gym.get_asset_dof_names(asset) == expected


def build_nothing(gymapi: Any) -> Any:
    return gymapi.acquire_gym().create_sim(0, -1, gymapi.SIM_PHYSX, gymapi.SimParams())
