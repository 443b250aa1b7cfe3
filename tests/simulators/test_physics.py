"""Every engine against closed forms and MuJoCo's own functions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from engines_under_test import Make, refused

from dualfid_robot.conformance import PROPERTIES
from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.robots import CROOKED
from dualfid_robot.conformance.worlds import put, random_states, rotation_error, run
from dualfid_robot.simulators.registry import engine_class

MECHANICS = [name for name, each in PROPERTIES.items() if each.parameter is None and each.of_one_world]


@pytest.mark.parametrize("name", MECHANICS)
def test_residual(engine: str, name: str, make: Make) -> None:
    with refused(engine, name):
        assert PROPERTIES[name].measure(partial(make, engine)) <= CASES[engine].bound(name)


def test_pybullet_agrees_with_mujoco_on_a_crooked_robot_in_the_air(pybullet: None, make: Make) -> None:
    qpos, qvel = random_states(CROOKED, 16)
    qvel *= 3
    results = []
    for name in ("mujoco", "pybullet"):
        simulator = make(name, CROOKED, 16, substeps=50)
        put(simulator, qpos, qvel)
        run(simulator, 0.2)
        results.append(simulator)
    a, b = results
    assert (a.qvel - qvel).abs().mean() > 0.5  # there is a motion to agree on
    torch.testing.assert_close(a.qpos[:, :3], b.qpos[:, :3], rtol=0, atol=2e-3)
    assert rotation_error(a.qpos[:, 3:7], b.qpos[:, 3:7]).max() < 5e-3
    torch.testing.assert_close(a.qpos[:, 7:], b.qpos[:, 7:], rtol=0, atol=5e-3)
    torch.testing.assert_close(a.qvel, b.qvel, rtol=0.01, atol=0.02)


def test_every_case_names_properties_that_exist() -> None:
    for case in CASES.values():
        assert set(case.bounds) <= set(PROPERTIES)
        assert engine_class(case.settings["engine"])
