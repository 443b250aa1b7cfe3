"""Properties of actors and of the ground: what they change, what they cannot be, and until when they may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_robots import build, load, slider, standing

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.api import gymtorch
from dualfid_robot.isaacgym.parameters import AttractorProperties
from dualfid_robot.isaacgym.session import NotProvided


def test_different_actors_in_environments_are_refused(gymapi: Any, walker: Path, pole: Path) -> None:
    gym, asset = load(gymapi, walker)
    sim = build(gymapi, asset, 2)
    gym.create_actor(sim.environments[0], load(gymapi, pole)[1], gymapi.Transform(), "pole", 0, 0, 0)
    with pytest.raises(ConfigError, match="environments of different actors"):
        gym.simulate(sim)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda gym, env: gym.set_actor_dof_properties(env, 0, gym.get_actor_dof_properties(env, 0)[:2]), r"\(4,\)"),
        (lambda gym, env: gym.set_actor_dof_properties(env, 0, np.zeros(4)), "float64"),
        (
            lambda gym, env: _with_dofs(gym, env, "driveMode", 7),
            r"driveMode=\[7, 7, 7, 7\]: allowed are \[0, 1, 2, 3\]",
        ),
        (lambda gym, env: _with_dofs(gym, env, "stiffness", np.nan), "stiffness"),
        (lambda gym, env: _with_dofs(gym, env, "damping", -1.0), "damping"),
        (lambda gym, env: _with_body(gym, env, lambda bodies: bodies.pop()), "properties of 8; it has 9"),
        (lambda gym, env: _with_body(gym, env, lambda bodies: setattr(bodies[0], "mass", -1.0)), "mass"),
        (lambda gym, env: _with_body(gym, env, lambda bodies: setattr(bodies[0], "mass", 0.0)), "keeps one"),
        (
            lambda gym, env: _with_body(gym, env, lambda bodies: setattr(bodies[0].inertia.x, "x", 9.0)),
            "inertia of base",
        ),
        (
            lambda gym, env: _with_body(gym, env, lambda bodies: setattr(bodies[0], "flags", 1)),
            "RigidBodyProperties.flags",
        ),
        (lambda gym, env: _with_shape(gym, env, lambda shapes: shapes.pop()), "properties of 8; it has 9"),
        (lambda gym, env: _with_shape(gym, env, lambda shapes: setattr(shapes[0], "friction", -1.0)), "friction"),
    ],
)
def test_properties_that_an_actor_cannot_have_are_refused(gymapi: Any, walker: Path, change: Any, says: str) -> None:
    gym, sim = standing(gymapi, walker, 2)
    with pytest.raises(ConfigError, match=says):
        change(gym, sim.environments[1])


def _with_dofs(gym: Any, env: Any, name: str, value: float) -> None:
    properties = gym.get_actor_dof_properties(env, 0)
    properties[name] = value
    gym.set_actor_dof_properties(env, 0, properties)


def _with_body(gym: Any, env: Any, change: Any, recompute: bool = True) -> None:
    bodies = gym.get_actor_rigid_body_properties(env, 0)
    change(bodies)
    gym.set_actor_rigid_body_properties(env, 0, bodies, recompute)


def _with_shape(gym: Any, env: Any, change: Any) -> None:
    shapes = gym.get_actor_rigid_shape_properties(env, 0)
    change(shapes)
    gym.set_actor_rigid_shape_properties(env, 0, shapes)


def test_inertias_are_scaled_as_masses(gymapi: Any, walker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether a task scales them too or not; a second change starts from what the first one left."""
    gym, sim = standing(gymapi, walker, 1)
    (env,) = sim.environments
    own = gym.get_actor_rigid_body_properties(env, 0)[0]
    _with_body(gym, env, lambda bodies: setattr(bodies[0], "mass", 2 * own.mass))
    assert "inertias" not in capsys.readouterr().err
    found = gym.get_actor_rigid_body_properties(env, 0)[0]
    assert found.inertia.x.x == pytest.approx(2 * own.inertia.x.x)
    assert (found.invMass, found.invInertia.y.y) == pytest.approx((0.5 * own.invMass, 0.5 * own.invInertia.y.y))
    _with_body(gym, env, lambda bodies: setattr(bodies[0], "mass", 3 * own.mass), recompute=False)
    assert gym.get_actor_rigid_body_properties(env, 0)[0].inertia.x.x == pytest.approx(3 * own.inertia.x.x)
    assert "also without recomputeInertia" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda gym, env: _with_shape(gym, env, lambda shapes: setattr(shapes[0], "filter", 6)), "filters"),
        (lambda gym, env: gym.create_rigid_body_attractor(env, _attractor()), "attractors"),
    ],
)
def test_what_may_not_differ_between_environments_is_refused(gymapi: Any, walker: Path, change: Any, what: str) -> None:
    gym, sim = standing(gymapi, walker, 2)
    change(gym, sim.environments[1])
    with pytest.raises(NotProvided, match=f"environments of different .*{what} is not provided on engine mujoco"):
        gym.simulate(sim)


def _attractor() -> Any:
    properties = AttractorProperties()
    properties.axes, properties.rigid_handle = 7, 0
    return properties


@pytest.mark.parametrize(("groups", "touch"), [((0, 0), True), ((0, 1), False), ((-1, 1), True), ((-1, -1), True)])
def test_actors_of_other_groups_do_not_touch(gymapi: Any, tmp_path: Path, groups: tuple[int, int], touch: bool) -> None:
    """A ball falls on a box of a group, in two environments whose groups have other numbers."""
    gym, options = gymapi.acquire_gym(), gymapi.AssetOptions()
    sim = build(gymapi, gym.create_sphere(None, 0.1, options), 0)
    box, ball = gym.create_box(None, 0.4, 0.4, 0.4, options), gym.create_sphere(None, 0.1, options)
    for number in range(2):
        env = gym.create_env(sim, gymapi.Vec3(), gymapi.Vec3(), 2)
        box_group, ball_group = (group if group < 0 else 2 * number + group for group in groups)
        gym.create_actor(env, box, gymapi.Transform(gymapi.Vec3(0, 0, 0.2)), "box", box_group, 0)
        gym.create_actor(env, ball, gymapi.Transform(gymapi.Vec3(0, 0, 0.51)), "ball", ball_group, 0)
    root = gym.acquire_actor_root_state_tensor(sim)
    for _ in range(150):
        gym.simulate(sim)
    gym.refresh_actor_root_state_tensor(sim)
    assert root[1::2, 2].tolist() == pytest.approx([0.5 if touch else 0.1] * 2, abs=0.02)


def test_what_the_engine_knows_for_good_is_refused_later(gymapi: Any, walker: Path) -> None:
    gym, sim = standing(gymapi, walker, 2)
    slow, params = gymapi.PlaneParams(), gym.get_sim_params(sim)
    slow.dynamic_friction = 0.1
    with pytest.raises(NotProvided, match="ground of several frictions"):
        gym.add_ground(sim, slow)
    params.dt = 0.01
    gym.set_sim_params(sim, params)
    gym.simulate(sim)
    assert gym.get_sim_time(sim) == pytest.approx(0.01)
    params.dt = 0.02
    for call, says in (
        (lambda: gym.set_sim_params(sim, params), "set_sim_params of another dt"),
        (lambda: gym.create_env(sim, gymapi.Vec3(), gymapi.Vec3(), 1), "create_env after the first step"),
        (
            lambda: gym.create_actor(sim.environments[0], sim.assets[0], gymapi.Transform()),
            "create_actor after the first",
        ),
        (lambda: gym.add_ground(sim, gymapi.PlaneParams()), "ground after the first step"),
        (
            lambda: _with_shape(gym, sim.environments[0], lambda shapes: setattr(shapes[0], "filter", 6)),
            "a collision filter that changes after the first step",
        ),
    ):
        with pytest.raises(NotProvided, match=says):
            call()


def test_environments_have_joint_limits_of_their_own(gymapi: Any, tmp_path: Path) -> None:
    """Pushed along, each slider stops at its own limit. The limits change once more after the first step."""
    gym, asset = slider(gymapi, tmp_path)
    sim = build(gymapi, asset, 3, ground=False)
    states = gym.acquire_dof_state_tensor(sim)

    def pushed(limits: list[float]) -> list[float]:
        for env, upper in zip(sim.environments, limits, strict=True):
            properties = gym.get_actor_dof_properties(env, 0)
            properties["hasLimits"], properties["lower"], properties["upper"] = True, -0.1, upper
            properties["driveMode"], properties["damping"] = gymapi.DOF_MODE_EFFORT, 20.0
            gym.set_actor_dof_properties(env, 0, properties)
        for _ in range(600):
            gym.set_dof_actuation_force_tensor(sim, gymtorch.unwrap_tensor(torch.full((3,), 5.0)))
            gym.simulate(sim)
        gym.refresh_dof_state_tensor(sim)
        return states[:, 0].tolist()

    assert pushed([0.1, 0.2, 0.3]) == pytest.approx([0.1, 0.2, 0.3], abs=0.01)
    assert pushed([0.25, 0.2, 0.4]) == pytest.approx([0.25, 0.2, 0.4], abs=0.01)


@pytest.mark.parametrize(("key", "value", "reached"), [("armature", 2.0, 0.5), ("friction", 2.0, 0.6)])
def test_what_all_environments_share_can_change_after_the_first_step(
    gymapi: Any, tmp_path: Path, key: str, value: float, reached: float
) -> None:
    """A mass of 2 kg under 5 N for 0.4 s: its velocity, m/s, after the change."""
    gym, asset = slider(gymapi, tmp_path)
    sim = build(gymapi, asset, 2, ground=False)
    states = gym.acquire_dof_state_tensor(sim)
    for env in sim.environments:
        _with_dofs(gym, env, "driveMode", gymapi.DOF_MODE_EFFORT)
    gym.simulate(sim)
    for env in sim.environments:
        _with_dofs(gym, env, key, value)
    for _ in range(round(0.4 / sim.params.dt)):
        gym.set_dof_actuation_force_tensor(sim, gymtorch.unwrap_tensor(torch.full((2,), 5.0)))
        gym.simulate(sim)
    gym.refresh_dof_state_tensor(sim)
    assert states[:, 1].tolist() == pytest.approx([reached] * 2, rel=0.02)


def test_many_properties_are_taken_over_at_once(gymapi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that randomises each environment by itself must not pay for all environments each time."""
    gym, asset = slider(gymapi, tmp_path)
    sim = build(gymapi, asset, 8, ground=False)
    for env in sim.environments:
        _with_dofs(gym, env, "damping", 1.0)
    gym.simulate(sim)
    collected: list[int] = []
    monkeypatch.setattr(type(sim), "_properties", _counted(type(sim)._properties, collected))
    for env in sim.environments:
        _with_dofs(gym, env, "damping", 0.5)
    assert not collected
    gym.simulate(sim)
    gym.simulate(sim)
    assert len(collected) == 1


def _counted(function: Any, calls: list[int]) -> Any:
    def counting(*arguments: Any) -> Any:
        calls.append(1)
        return function(*arguments)

    return counting
