from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from synthetic_study import REFERENCE, UNTRAINED, fail, write_run, write_study

from dualfid_robot.errors import ConfigError
from dualfid_robot.studies.curves import Cell, Curve, Scale, StudyRecord, rho_over_cost

increments = st.lists(st.tuples(st.floats(0.1, 10), st.floats(-100, 100)), min_size=1, max_size=8)


def curve(cost: list[float], returns: list[float], high_samples: list[float] | None = None) -> Curve:
    samples = np.array(high_samples if high_samples is not None else cost, dtype=float)
    return Curve(np.array(cost, dtype=float), samples, samples, np.array(returns, dtype=float))


def random_curve(steps: list[tuple[float, float]]) -> Curve:
    return curve([0.0, *np.cumsum([step for step, _ in steps])], [0.0, *(value for _, value in steps)])


def test_values_are_linear_between_points_and_stay_after_the_last() -> None:
    found = curve([0, 10, 30], [0, 100, 50])
    np.testing.assert_allclose(found.value_at(np.array([0, 5, 20, 30, 99])), [0, 50, 75, 50, 50])


def test_mean_until_a_budget_by_hand() -> None:
    """Triangle of 10 s and 100, then level at 100: (500 + 1000)/20; a run that overshoots is cut."""
    assert curve([0, 10, 40], [0, 100, 100]).mean_until(20) == pytest.approx(75)
    assert curve([0, 10], [0, 100]).mean_until(20) == pytest.approx(75)


@given(increments, st.floats(0.5, 60))
def test_mean_is_the_integral(steps: list[tuple[float, float]], budget: float) -> None:
    found = random_curve(steps)
    knots = found.cost[(found.cost > 0) & (found.cost < budget)]
    integral, _ = integrate.quad(found.value_at, 0, budget, points=knots if len(knots) else None, limit=200)
    assert found.mean_until(budget) == pytest.approx(integral / budget, abs=1e-6)


def test_cost_to_reach_by_hand() -> None:
    found = curve([0, 10, 20, 30], [0, 50, 20, 100])
    assert found.cost_to_reach(40, 30) == pytest.approx(8)
    assert found.cost_to_reach(60, 30) == pytest.approx(25)
    assert found.cost_to_reach(60, 24.9) == np.inf
    assert found.cost_to_reach(101, 30) == np.inf
    assert found.cost_to_reach(-1, 30) == 0


@given(increments, st.floats(-100, 100))
def test_cost_to_reach_is_the_first_time_the_value_is_there(steps: list[tuple[float, float]], level: float) -> None:
    found, budget = random_curve(steps), 40.0
    cost = found.cost_to_reach(level, budget)
    before = np.linspace(0, min(cost, budget), 200, endpoint=False)
    assert (found.value_at(before[before < cost]) < level + 1e-9).all()
    if np.isfinite(cost):
        assert found.value_at(cost) >= level - 1e-6


def test_against_high_samples_low_training_shows_at_zero() -> None:
    """Two points without a step in the high simulator: what the second has learnt is the return at 0 samples."""
    found = curve([0, 5, 10], [0, 60, 80], high_samples=[0, 0, 100])
    np.testing.assert_allclose(found.value_at_high_samples(np.array([0, 50, 100])), [60, 70, 80])


def test_scale() -> None:
    scale = Scale(-20.0, 80.0)
    np.testing.assert_allclose(scale(np.array([-20, 30, 80, 130])), [0, 0.5, 1, 1.5])
    assert scale.reached == 60
    assert Scale(-20.0, 80.0, target=70.0).reached == Scale(-20.0, float("nan"), target=70.0).reached == 70.0
    for unknown in (Scale(10.0, float("nan")), Scale(10.0, 10.0), Scale(10.0, 5.0)):
        assert not unknown.known and np.isnan(unknown.reached)
        assert unknown(np.array([3.0])) == 3.0


def test_a_study_is_read(tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 0.5, "default": 0.7}, seeds=3)
    fail(tmp_path, "Ant_default_reduced_100_1", "it broke")
    (tmp_path / "runs" / "Ant_default_reduced_100_2" / "result.json").unlink()
    study = StudyRecord(tmp_path)
    assert (study.tasks, study.gaps) == (["Ant", "Cartpole"], ["reduced", "friction_half"])
    cell = Cell("Ant", "reduced", 100.0)
    assert study.cells[0] == cell and len(study.cells) == 4
    assert [run.status for run in study.planned(cell, "default")] == ["finished", "failed", "missing"]
    assert [run.seed for run in study.finished(cell, "default")] == [0]
    assert study.planned(cell, "default")[1].error == "it broke"
    scale = study.scale(cell)
    assert (scale.untrained, scale.reference) == (pytest.approx(UNTRAINED), pytest.approx(REFERENCE))


def test_runs_without_a_low_simulator_stand_in_the_gaps_that_change_only_that(tmp_path: Path) -> None:
    gaps = (("none", "low"), ("reduced", "low"), ("friction_half", "high"))
    write_study(tmp_path, {"high_only": 0.5}, tasks=("Ant",), gaps=gaps, seeds=2)
    study = StudyRecord(tmp_path)
    ids = [[run.id for run in study.finished(cell, "high_only")] for cell in study.cells]
    assert ids[0] == ids[1] == ["Ant_high_only_-_100_0", "Ant_high_only_-_100_1"]
    assert ids[2] == ["Ant_high_only_friction_half_100_0", "Ant_high_only_friction_half_100_1"]


def test_the_scale_is_the_targets(tmp_path: Path) -> None:
    """A gap that changes the high side has references of its own; the longest are taken."""
    write_study(tmp_path, {"high_only": 0.5}, tasks=("Ant",), references=2, noise=0.0)
    plan = json.loads((tmp_path / "plan.json").read_text())
    for run in plan["runs"]:
        if run["reference"] and run["gap"] == "friction_half":
            write_run(tmp_path, run, 2.0 if run["seed"] == 0 else 3.0)
    shorter = plan["runs"][-1] | {"id": "short", "budget": 50.0, "gap": "friction_half", "reference": True}
    write_run(tmp_path, shorter, 9.0)
    study = StudyRecord(tmp_path)
    references = {cell.gap: study.scale(cell).reference for cell in study.cells}
    span = REFERENCE - UNTRAINED
    assert references == {"reduced": pytest.approx(REFERENCE), "friction_half": pytest.approx(UNTRAINED + 2.5 * span)}


def test_returns_that_are_not_finite_are_a_failure(tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 0.5}, tasks=("Ant",), seeds=1, references=0)
    run = StudyRecord(tmp_path).runs[0]
    write_run(tmp_path, json.loads((tmp_path / "plan.json").read_text())["runs"][0], float("nan"))
    again = StudyRecord(tmp_path).runs[0]
    assert (run.status, again.status, again.error) == ("finished", "failed", "returns are not finite")


def test_rho_over_cost_survives_half_a_line(tmp_path: Path) -> None:
    write_study(tmp_path, {"default": 0.5}, tasks=("Ant",), gaps=(("reduced", "low"),), seeds=1, references=0)
    study = StudyRecord(tmp_path)
    with (tmp_path / "runs" / study.runs[0].id / "metrics.jsonl").open("a") as file:
        file.write('{"allocation/rho": 0.1, "cost_se')
    cost, rho = rho_over_cost(study, study.runs[0])
    np.testing.assert_allclose(cost, 5.0 * np.arange(1, 21))
    np.testing.assert_allclose(rho, 0.75)


def test_a_folder_without_a_plan(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of a study"):
        StudyRecord(tmp_path)


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"tasks": {"Ant": 1}, "methods": [], "gaps": []}', "[" * 9999])
def test_a_damaged_plan_is_named(text: str, tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 0.5})
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match=r"plan.json: damaged \(.*study.py writes it again"):
        StudyRecord(tmp_path)


@pytest.mark.parametrize("text", ["", "3", "[]", "{}", '{"status": "finished", "curve": [1], "means": {}}'])
def test_a_damaged_result_is_named(text: str, tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 0.5})
    (folder,) = list((tmp_path / "runs").iterdir())[:1]
    (folder / "result.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"{folder.name}.*damaged \(.*the run is done again"):
        StudyRecord(tmp_path)
