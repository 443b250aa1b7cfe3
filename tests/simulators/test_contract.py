"""What every engine promises about its worlds: subsets, resets, failures, snapshots, independence."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from engines_under_test import Make, skip_missing

from dualfid_robot.conformance import PROPERTIES
from dualfid_robot.conformance.batch import N, controls, drive, others, standing_ants
from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.robots import ANT
from dualfid_robot.conformance.worlds import difference, everyone, put, standing, state, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.registry import engine_names, make_simulator

PROMISES = [name for name, each in PROPERTIES.items() if not each.of_one_world]


@pytest.mark.parametrize("name", PROMISES)
def test_residual(engine: str, name: str, make: Make) -> None:
    assert PROPERTIES[name].measure(partial(make, engine)) <= CASES[engine].bound(name)


def test_it_starts_in_the_initial_state(engine: str, make: Make) -> None:
    simulator = make(engine, ANT, 3, bodies=ANT.feet)
    assert torch.equal(simulator.qpos.cpu(), torch.from_numpy(ANT.model.qpos0).float().repeat(3, 1))
    assert not simulator.qvel.any()
    assert not simulator.failed.any()
    assert simulator.contact_wrench.shape == (3, 4, 6)
    assert simulator.device == torch.device(CASES[engine].device)


def test_equal_worlds_move_equally(engine: str, make: Make) -> None:
    simulator = standing_ants(partial(make, engine))
    drive((simulator,), [ctrl[:1].expand(N, -1) for ctrl in controls(6)])
    torch.testing.assert_close(state(simulator), state(simulator)[:1].expand(N, -1), rtol=1e-3, atol=1e-3)


def test_a_reset_by_mask_is_a_reset(engine: str, make: Make) -> None:
    ants, twin = (standing_ants(partial(make, engine)) for _ in range(2))
    drive((ants, twin), controls(3))
    qpos, qvel = standing(ANT, N)
    qpos[:, 0] = torch.arange(N)
    ids, n = torch.tensor([1, 6]), 9
    device = ants.device
    ants.set_state_where(~others(ids)[:n].to(device), qpos[:n].to(device), qvel[:n].to(device))
    put(twin, qpos[ids], qvel[ids], ids)
    bound = CASES[engine].bound("determinism")
    assert torch.equal(state(ants)[ids], state(twin)[ids])
    assert difference(state(ants), state(twin)) <= bound
    drive((ants, twin), controls(6)[3:])
    assert difference(state(ants), state(twin)) <= bound


def test_a_control_that_is_not_a_number_stays_in_its_world(engine: str, make: Make) -> None:
    ants, twin = (standing_ants(partial(make, engine)) for _ in range(2))
    broken = controls(1)[0]
    step(twin, broken)
    broken = broken.clone()
    broken[4, 3] = float("nan")
    step(ants, broken)
    rest = others(torch.tensor([4]))
    assert torch.isfinite(state(ants)).all()
    assert not ants.failed.cpu()[rest].any()
    bound = CASES[engine].bound("non-finite isolation")
    assert difference(state(ants)[rest], state(twin)[rest]) <= bound


def test_a_snapshot_fits_another_division_of_the_worlds(pybullet: None, make: Make) -> None:
    first, second = (make("pybullet", ANT, N, bodies=ANT.feet, robots_per_client=size) for size in (4, 3))
    put(first, *standing(ANT, N))
    step(first, controls(1)[0])
    second.restore(first.snapshot())
    drive((first, second), controls(2)[1:])
    torch.testing.assert_close(state(second), state(first), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "setting"), [("mujoco", "threads"), ("pybullet", "workers")], ids=["mujoco", "pybullet"]
)
def test_the_number_of_threads_does_not_matter(name: str, setting: str, make: Make) -> None:
    skip_missing(name)
    simulators = [make(name, ANT, N, bodies=ANT.feet, **{setting: count}) for count in (1, 2, 3)]
    for simulator in simulators:
        put(simulator, *standing(ANT, N))
    drive(simulators, controls(12))
    assert torch.equal(state(simulators[0]), state(simulators[1]))
    assert torch.equal(state(simulators[0]), state(simulators[2]))


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
def test_wrong_settings_are_named(name: str, setting: str, value: object, make: Make) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}\.{setting}"):
        make(name, ANT, 1, **{setting: value})


def test_a_device_that_it_cannot_use_is_refused(engine: str) -> None:
    with pytest.raises(ConfigError, match=r"^sim_device=meta: engine .* runs on"):
        make_simulator(CASES[engine].settings, ANT, 1, 0.01, device="meta")


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match=rf"engine=havok: allowed are \['mujoco', .*'{engine_names()[-1]}'\]"):
        make_simulator({"engine": "havok"}, ANT, 1, 0.01)
    assert {str(case.settings["engine"]) for case in CASES.values()} == set(engine_names())


def test_ids_may_come_in_any_order(engine: str, make: Make) -> None:
    simulator = make(engine, ANT, 4)
    ids = torch.tensor([3, 0, 2])
    qpos, qvel = standing(ANT, 3)
    qpos[:, 2] += torch.tensor([1.0, 2.0, 3.0])
    put(simulator, qpos, qvel, ids)
    assert everyone(simulator).tolist() == [0, 1, 2, 3]
    assert torch.equal(simulator.qpos.cpu()[ids], qpos)
    step(simulator, torch.zeros(4, 8))
    assert (simulator.qpos.cpu()[ids, 2] - qpos[:, 2]).abs().max() < 0.05
