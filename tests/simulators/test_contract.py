"""What every engine promises about its worlds: subsets, resets, failures, snapshots, independence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Make
from engines import everyone, standing
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

N = 12


@pytest.fixture
def controls() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(N, 8, generator=generator) * 2 - 1 for _ in range(12)]


@pytest.fixture
def ants(engine: str, make: Make, ant: RobotModel) -> Simulator:
    simulator = make(engine, ant, N, bodies=ant.feet)
    simulator.set_state(everyone(simulator), *standing(ant, N))
    return simulator


@pytest.fixture
def twins(ants: Simulator, engine: str, make: Make, ant: RobotModel) -> Simulator:
    simulator = make(engine, ant, N, bodies=ant.feet)
    simulator.set_state(everyone(simulator), *standing(ant, N))
    return simulator


def state(simulator: Simulator) -> Tensor:
    return torch.cat([simulator.qpos, simulator.qvel, simulator.contact_wrench.flatten(1)], 1).clone()


def test_it_starts_in_the_initial_state(engine: str, make: Make, ant: RobotModel) -> None:
    simulator = make(engine, ant, 3, bodies=ant.feet)
    assert torch.equal(simulator.qpos, torch.from_numpy(ant.model.qpos0).float().repeat(3, 1))
    assert not simulator.qvel.any()
    assert not simulator.failed.any()
    assert simulator.contact_wrench.shape == (3, 4, 6)


@pytest.mark.parametrize("n", [1, 5, 8])
def test_worlds_beyond_n_are_frozen(ants: Simulator, twins: Simulator, controls: list[Tensor], n: int) -> None:
    ants.step(controls[0], N)
    twins.step(controls[0], N)
    frozen = state(ants)[n:]
    for ctrl in controls[1:5]:
        ants.step(ctrl[:n], n)
    assert torch.equal(state(ants)[n:], frozen)
    # They go on as if they had not been waiting, and have not disturbed those that went on.
    for ctrl in controls[1:5]:
        twins.step(ctrl, N)
    torch.testing.assert_close(state(ants)[:n], state(twins)[:n], rtol=1e-5, atol=1e-6)
    for simulator in (ants, twins):
        simulator.set_state(everyone(simulator)[:n], *standing(ants.robot, n))
    for ctrl in controls[1:5]:
        ants.step(ctrl, N)
    torch.testing.assert_close(state(ants)[n:], state(twins)[n:], rtol=1e-4, atol=1e-4)


def test_a_reset_touches_its_worlds_only(ants: Simulator, twins: Simulator, controls: list[Tensor]) -> None:
    for ctrl in controls[:3]:
        ants.step(ctrl, N)
        twins.step(ctrl, N)
    ids = torch.tensor([10, 1, 6])
    qpos, qvel = standing(ants.robot, 3)
    qpos[:, 0] = torch.tensor([1.0, 2.0, 3.0])
    ants.set_state(ids, qpos, qvel)
    assert torch.equal(ants.qpos[ids], qpos)
    assert not ants.contact_wrench[ids].any()
    ants.step(controls[3], N)
    twins.step(controls[3], N)
    rest = torch.ones(N, dtype=torch.bool)
    rest[ids] = False
    assert torch.equal(state(ants)[rest], state(twins)[rest])
    assert (ants.qpos[ids, 0] - qpos[:, 0]).abs().max() < 0.1


def test_equal_worlds_move_equally(ants: Simulator, controls: list[Tensor]) -> None:
    for ctrl in controls[:6]:
        ants.step(ctrl[:1].expand(N, -1), N)
    torch.testing.assert_close(state(ants), state(ants)[:1].expand(N, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_non_finite_world_is_reset_alone(
    ants: Simulator, twins: Simulator, controls: list[Tensor], value: float
) -> None:
    ants.step(controls[0], N)
    twins.step(controls[0], N)
    bad = torch.tensor([2, 7])
    qpos, qvel = standing(ants.robot, 2)
    qpos[0, 9], qvel[1, 2] = value, value
    ants.set_state(bad, qpos, qvel)
    rest = torch.ones(N, dtype=torch.bool)
    rest[bad] = False
    ants.step(controls[1], N)
    twins.step(controls[1], N)
    assert torch.equal(ants.failed, ~rest)
    initial = torch.from_numpy(ants.robot.model.qpos0).float()
    assert torch.equal(ants.qpos[bad], initial.expand(2, -1))
    assert not ants.qvel[bad].any()
    assert torch.equal(state(ants)[rest], state(twins)[rest])
    ants.step(controls[2], N)
    twins.step(controls[2], N)
    assert not ants.failed.any()
    assert torch.isfinite(state(ants)).all()
    assert torch.equal(state(ants)[rest], state(twins)[rest])


def test_a_control_that_is_not_a_number_stays_in_its_world(
    ants: Simulator, twins: Simulator, controls: list[Tensor]
) -> None:
    broken = controls[0].clone()
    broken[4, 3] = float("nan")
    ants.step(broken, N)
    twins.step(controls[0], N)
    rest = torch.arange(N) != 4
    assert torch.isfinite(state(ants)).all()
    assert not ants.failed[rest].any()
    assert torch.equal(state(ants)[rest], state(twins)[rest])


def test_a_snapshot_is_exact(ants: Simulator, twins: Simulator, controls: list[Tensor]) -> None:
    for ctrl in controls[:4]:
        ants.step(ctrl, N)
    ants.step(controls[4][:7], 7)
    snapshot = ants.snapshot()
    assert all(isinstance(array, np.ndarray) for array in snapshot.values())
    twins.step(controls[5], N)
    twins.restore(snapshot)
    assert torch.equal(state(twins), state(ants))
    for ctrl in controls[5:]:
        ants.step(ctrl, N)
        twins.step(ctrl, N)
    assert torch.equal(state(twins), state(ants))
    ants.restore(snapshot)
    for ctrl in controls[5:]:
        ants.step(ctrl, N)
    assert torch.equal(state(twins), state(ants))


def test_a_snapshot_fits_another_division_of_the_worlds(
    pybullet: None, make: Make, ant: RobotModel, controls: list[Tensor]
) -> None:
    first, second = (make("pybullet", ant, N, bodies=ant.feet, robots_per_client=size) for size in (4, 3))
    first.set_state(everyone(first), *standing(ant, N))
    first.step(controls[0], N)
    second.restore(first.snapshot())
    for simulator in (first, second):
        simulator.step(controls[1], N)
    torch.testing.assert_close(state(second), state(first), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "setting"), [("mujoco", "threads"), ("pybullet", "workers")], ids=["mujoco", "pybullet"]
)
def test_the_number_of_threads_does_not_matter(
    name: str, setting: str, make: Make, ant: RobotModel, controls: list[Tensor]
) -> None:
    if name == "pybullet":
        pytest.importorskip("pybullet")
    states = []
    for count in (1, 2, 3):
        simulator = make(name, ant, N, bodies=ant.feet, **{setting: count})
        simulator.set_state(everyone(simulator), *standing(ant, N))
        for ctrl in controls:
            simulator.step(ctrl, N)
        states.append(state(simulator))
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("mujoco", "substeps", 0),
        ("mujoco", "cone", "round"),
        ("mujoco", "threads", -1),
        ("pybullet", "substeps", 0),
        ("pybullet", "solver_iterations", 0),
        ("pybullet", "friction", -1.0),
        ("pybullet", "contact_stiffness", 0.0),
        ("pybullet", "contact_damping", float("nan")),
        ("pybullet", "parent_armature", -0.1),
        ("pybullet", "robots_per_client", 0),
        ("pybullet", "workers", -2),
        ("pybullet", "gravity", 1.0),
    ],
)
def test_wrong_settings_are_named(name: str, setting: str, value: object, make: Make, ant: RobotModel) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}\.{setting}"):
        make(name, ant, 1, **{setting: value})


def test_a_device_that_it_cannot_use_is_refused(engine: str, ant: RobotModel) -> None:
    from dualfid_robot.simulators.registry import make_simulator

    with pytest.raises(ConfigError, match="sim_device=cuda"):
        make_simulator({"engine": engine.removesuffix("_reduced")}, ant, 1, 0.01, device="cuda")


def test_an_unknown_engine_is_refused(ant: RobotModel) -> None:
    from dualfid_robot.simulators.registry import engine_names, make_simulator

    with pytest.raises(ConfigError, match=r"engine=havok: allowed are \['mujoco', 'pybullet'\]"):
        make_simulator({"engine": "havok"}, ant, 1, 0.01)
    assert {"mujoco", "pybullet"} <= set(engine_names())
