"""Parameters of single worlds: closed forms, and that they touch nothing else."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from engines_under_test import Make, refused

from dualfid_robot.conformance import PROPERTIES
from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.parameters import NEW_PARAMETERS, change_parameters, settable
from dualfid_robot.conformance.robots import ANT
from dualfid_robot.conformance.worlds import difference, everyone, put, set_parameter, standing, state, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import PARAMETERS
from dualfid_robot.simulators.registry import engine_class

CLOSED_FORMS = [name for name, each in PROPERTIES.items() if each.parameter]


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_residual(engine: str, name: str, make: Make) -> None:
    case, measured = CASES[engine], PROPERTIES[name]
    if name in case.refuses:
        with refused(engine, name):
            measured.measure(partial(make, engine))
    elif measured.parameter in engine_class(case.settings["engine"]).SUPPORTED_PARAMETERS:
        assert measured.measure(partial(make, engine)) <= case.bound(name)
    else:
        with pytest.raises(ConfigError, match=f"^parameter={measured.parameter}: engine {case.settings['engine']}"):
            measured.measure(partial(make, engine))


def test_there_is_a_closed_form_for_each() -> None:
    assert {PROPERTIES[name].parameter for name in CLOSED_FORMS} == set(PARAMETERS) == set(NEW_PARAMETERS)


def test_a_parameter_is_a_factor_on_the_asset_not_on_the_last_value(engine: str, make: Make) -> None:
    once, twice = (make(engine, ANT, 3, bodies=ANT.feet) for _ in range(2))
    supported = [name for name in settable(once) if name != "gravity"]
    if not supported:
        pytest.skip(f"{engine} sets no factors")
    ctrl = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for simulator in (once, twice):
        put(simulator, *standing(ANT, 3))
    for name in supported:
        values = NEW_PARAMETERS[name](ANT, 3)
        set_parameter(twice, name, 2 * values)
        step(twice, ctrl)
        set_parameter(twice, name, values)
        set_parameter(once, name, values)
    for simulator in (once, twice):
        put(simulator, *standing(ANT, 3))
        for _ in range(3):
            step(simulator, ctrl)
    bound = 10 * CASES[engine].bound("determinism")
    torch.testing.assert_close(state(once), state(twice), rtol=0, atol=bound)


def test_setting_no_world_changes_none(engine: str, make: Make) -> None:
    simulator, twin = (make(engine, ANT, 3, bodies=ANT.feet) for _ in range(2))
    nobody = torch.empty(0, dtype=torch.long)
    for each in (simulator, twin):
        put(each, *standing(ANT, 3))
    change_parameters(simulator, nobody)
    put(simulator, *standing(ANT, 0), ids=nobody)
    for each in (simulator, twin):
        step(each, torch.ones(3, 8))
    assert difference(state(simulator), state(twin)) <= CASES[engine].bound("parameters stay in their worlds")


def test_an_unknown_parameter_is_refused(engine: str, make: Make) -> None:
    simulator = make(engine, ANT, 1)
    with pytest.raises(ConfigError, match=r"^parameter=colour: engine .* allowed are"):
        simulator.set_parameters(everyone(simulator), {"colour": torch.ones(1)})


def test_limits_that_cross_are_refused(engine: str, make: Make) -> None:
    simulator = make(engine, ANT, 2)
    moves = torch.zeros(2, ANT.model.njnt, 2)
    moves[1, 3, 0] = 2.0
    with pytest.raises(
        ConfigError, match=r"^parameter=joint_range: joint hip_2 of ant.xml gets the limits \[1.30.*\]; "
    ):
        simulator.set_parameters(everyone(simulator), {"joint_range": moves})


@pytest.mark.parametrize("engine", ["pybullet", "physx"])
def test_a_state_of_an_older_version_is_refused(engine: str, make: Make) -> None:
    simulator = make(engine, ANT, 1)
    older = simulator.snapshot()
    del older["joint_range"]
    with pytest.raises(ConfigError, match=rf"^engine={engine}: the saved state has no joint_range: another version"):
        simulator.restore(older)


MUSCLE = '<actuator><muscle name="biceps" joint="hinge" lengthrange="0.5 1"/></actuator>'
HINGE = '<body name="arm"><joint name="hinge"/><geom name="bar" type="capsule" size="0.1 0.2"/></body>'


def test_mujoco_refuses_the_strength_of_a_muscle(make: Make, robot_of: object) -> None:
    simulator = make("mujoco", robot_of(HINGE, MUSCLE), 1)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"^parameter=motor_strength: actuator biceps"):
        simulator.set_parameters(everyone(simulator), {"motor_strength": torch.ones(1, 1)})


def test_mujoco_scales_what_the_factor_names(make: Make, ant: RobotModel) -> None:
    """Field by field, on the models that the worlds then run on."""
    simulator = make("mujoco", ant, 3)
    batch, nominal = simulator._batch, ant.model  # type: ignore[attr-defined]
    simulator.set_parameters(
        torch.tensor([2, 0]),
        {
            "friction": torch.tensor([2.0, 0.5]),
            "mass": torch.full((2, nominal.nbody - 1), 3.0),
            "gravity": torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]),
        },
    )
    changed, untouched = batch.get_model(2), batch.get_model(1)
    assert changed.geom_friction[:, 0] == pytest.approx(2 * nominal.geom_friction[:, 0])
    assert (changed.geom_friction[:, 1:] == nominal.geom_friction[:, 1:]).all()
    assert changed.body_inertia == pytest.approx(3 * nominal.body_inertia)
    assert (changed.dof_armature == nominal.dof_armature).all()
    # Derived by MuJoCo: a free body's inverse inertia falls as its mass grows.
    assert changed.body_subtreemass[0] == pytest.approx(3 * nominal.body_subtreemass[0])
    assert changed.dof_invweight0[0] == pytest.approx(simulator.model.dof_invweight0[0] / 3, rel=0.2)  # type: ignore[attr-defined]
    assert changed.opt.gravity.tolist() == [0.0, 0.0, -1.0]
    assert batch.get_model(0).opt.gravity.tolist() == [1.0, 0.0, 0.0]
    assert untouched.opt.gravity.tolist() == nominal.opt.gravity.tolist()
    assert (untouched.body_mass == nominal.body_mass).all()
    assert (untouched.dof_invweight0 == simulator.model.dof_invweight0).all()  # type: ignore[attr-defined]


def test_restoring_a_snapshot_without_parameters_takes_them_away(engine: str, make: Make) -> None:
    changed, plain = (make(engine, ANT, 3, bodies=ANT.feet) for _ in range(2))
    put(plain, *standing(ANT, 3))
    for name in settable(changed):
        set_parameter(changed, name, NEW_PARAMETERS[name](ANT, 3))
    changed.restore(plain.snapshot())
    ctrl = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for _ in range(4):
        step(changed, ctrl)
        step(plain, ctrl)
    torch.testing.assert_close(state(changed), state(plain), rtol=0, atol=10 * CASES[engine].bound("snapshot"))
