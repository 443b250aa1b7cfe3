"""Plans: which runs follow from them, in which order, under which names, and what is wrong with others."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from dualfid_robot.config.engines import simulator_names
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError
from dualfid_robot.studies.configuration import compose_run, options
from dualfid_robot.studies.expected_time import expected_seconds, runs_at_once, time_line
from dualfid_robot.studies.launcher import chains
from dualfid_robot.studies.plan import PlannedRun, PlannedStudy
from dualfid_robot.studies.plan_file import parse_plan, parse_series
from dualfid_robot.studies.run_folder import ANY_GAP
from dualfid_robot.train.trainer import Trainer

TINY = ["num_envs=20", "train.params.config.minibatch_size=160"]


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        yield


def plan_of(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "tasks": {"Cartpole": {}},
        "methods": ["high_only", "default"],
        "gaps": ["reduced"],
        "budgets": [2],
        "seeds": [1],
        "reference": None,
        "overrides": TINY,
    }
    return plan | changes


def study(folder: Path, **changes: Any) -> PlannedStudy:
    return PlannedStudy("test", parse_plan(plan_of(**changes)), folder)


@pytest.mark.slow
def test_the_runs_of_a_plan_are_those_counted_by_hand(tmp_path: Path) -> None:
    """`reduced` and `none` change the low side alone, so that high-only is one run for both; `gravity_half` changes
    E_high. Two budgets, two seeds: high-only 2 · 2 · 2 = 8, the other two methods 3 · 2 · 2 = 12 each. References have
    one seed and no second budget: one for both low gaps and one for `gravity_half`."""
    made = study(
        tmp_path,
        methods=["high_only", "default", "shuffled"],
        gaps=["reduced", "none", "gravity_half"],
        budgets=[2, 3],
        seeds=[1, 2],
        reference={"method": "high_only", "factor": 4, "seeds": [101]},
    )
    counts = Counter((run.reference, run.method, run.gap) for run in made.runs)
    assert counts == {
        (True, "high_only", ANY_GAP): 1,
        (True, "high_only", "gravity_half"): 1,
        (False, "high_only", ANY_GAP): 4,
        (False, "high_only", "gravity_half"): 4,
        **{(False, method, gap): 4 for method in ("default", "shuffled") for gap in made.plan.gaps},
    }
    assert len({run.id for run in made.runs}) == len(made.runs) == 34
    assert made.changes == {"reduced": "low", "none": "low", "gravity_half": "high"}
    assert {run.budget for run in made.runs if run.reference} == {12.0}
    first, *others = [run.seed for run in made.runs]
    assert first == 101 and others == [101] + [1] * 16 + [2] * 16

    by_id = {run.id: run for run in made.runs}
    for run in made.runs:
        if run.method == "shuffled":
            source = by_id[run.replays]
            same = ("task", "gap", "budget", "seed")
            assert [getattr(source, key) for key in same] == [getattr(run, key) for key in same]
            assert source.method == "default"
            assert any(text.endswith(f"/runs/{source.id}/metrics.jsonl'") for text in run.overrides)
        else:
            assert run.replays == ""
    assert len(json.loads(json.dumps(made.description()))["runs"]) == 34

    jobs = chains(made.runs)
    assert sorted(run for job in jobs for run in job) == sorted(by_id)
    assert Counter(map(len, jobs)) == {1: 10, 2: 12}
    assert all(by_id[job[1]].replays == job[0] for job in jobs if len(job) == 2)


def test_a_dearer_e_high_has_longer_runs_and_the_same_reference(tmp_path: Path) -> None:
    """A price changes nothing that can be learnt, so one reference serves both; high-only pays other prices, so it is
    run again. A method may be left out of a gap, and a task may have fewer seeds."""
    made = study(
        tmp_path,
        methods=["high_only", "low_only", "default"],
        gaps=["default", "price_10"],
        budget_factors={"price_10": 3},
        method_gaps={"low_only": ["price_10"]},
        tasks={"Cartpole": {"seeds": [1]}, "Ant": {"seeds": [1, 2]}},
        seeds=[7],
        reference={"method": "high_only", "factor": 4, "seeds": [101]},
        evaluation={"points": 3, "episodes": 2},
    )
    assert made.changes == {"default": "low", "price_10": "price"}
    assert made.prices == {"default": 1.0, "price_10": 10.0}
    counts = Counter((run.task, run.reference, run.method, run.gap, run.budget) for run in made.runs)
    assert counts == {
        (task, *run): number if not run[0] else 1
        for task, number in (("Cartpole", 1), ("Ant", 2))
        for run in (
            (True, "high_only", ANY_GAP, 8.0),
            (False, "high_only", ANY_GAP, 2.0),
            (False, "default", "default", 2.0),
            *((False, method, "price_10", 6.0) for method in ("high_only", "low_only", "default")),
        )
    }
    (reference,) = (run for run in made.runs if run.reference and run.task == "Cartpole")
    other = next(run for run in made.runs if not run.reference and run.task == "Cartpole")
    assert made.evaluation_of(True)["points"] == 12 and made.evaluation_of(False)["points"] == 3
    assert (reference.evaluation_steps, other.evaluation_steps) == (13 * 2 * 500, 4 * 2 * 500)


def test_runs_are_evaluated_abroad_at_their_end_alone(tmp_path: Path) -> None:
    plans = {}
    for name, more in (("home", {}), ("abroad", {"abroad": ["physx"]})):
        plans[name] = study(tmp_path, methods=["default"], evaluation={"points": 3, "episodes": 2}, **more)
    evaluation = plans["abroad"].evaluation_of(False)
    assert evaluation["abroad"] == ["physx"] and evaluation["dials"] == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert plans["abroad"].evaluation_of(True)["abroad"] == plans["home"].evaluation_of(False)["abroad"] == []
    (home,), (abroad,) = (plan.runs for plan in plans.values())
    assert home.id != abroad.id
    assert abroad.evaluation_steps - home.evaluation_steps == 5 * 2 * 2 * 500


def test_the_time_is_that_of_finished_runs_or_an_upper_estimate() -> None:
    def run(seed: int, budget: float = 100.0) -> PlannedRun:
        return PlannedRun(f"{seed}-{budget}", "Ant", "m", "g", budget, seed, False, (), evaluation_steps=50_000)

    assert expected_seconds(run(1), {}) == pytest.approx(10 + 100 + 50_000 * 2e-4)
    finished = {run(2): 40.0, run(3): 60.0, run(4, 200.0): 999.0}
    assert expected_seconds(run(1), finished) == 50.0
    assert time_line([run(1), run(5)], finished, 2) == "about 0.028 h of one core, so 0.014 h with 2 run(s) at once"
    assert runs_at_once("joblib", 3) == 3 and runs_at_once("basic", 1) == 1
    assert runs_at_once("joblib", -1) == len(os.sched_getaffinity(0))


def test_a_run_whose_source_has_finished_is_a_job_of_its_own() -> None:
    def run(name: str, replays: str) -> PlannedRun:
        return PlannedRun(name, "Cartpole", "m", "g", 1.0, 1, False, (), replays)

    assert chains([run("b", "a")]) == [["b"]]
    assert chains([run("b", "a"), run("c", ""), run("a", "")]) == [["c"], ["a", "b"]]


def test_overrides_give_train_py_the_same_run(tmp_path: Path) -> None:
    run = next(run for run in study(tmp_path, gaps=["default"]).runs if run.method == "default")
    cfg: Any = compose_run(run.overrides)
    assert (cfg.task.name, cfg.seed, cfg.max_cost, cfg.num_envs) == ("Cartpole", 1, 2, 20)
    assert cfg.simulator.high.engine == "mujoco" and cfg.simulator.high.threads == 1
    for low in cfg.simulator.low.values():
        assert [low[key] for key in ("threads", "workers") if key in low] == [1]
    plain: Any = compose_run(["task=Cartpole", *TINY])
    assert cfg.allocation == plain.allocation


@pytest.mark.slow
def test_ids_are_stable_and_change_with_what_a_run_means(tmp_path: Path) -> None:
    def ids(**changes: Any) -> set[str]:
        return {run.id for run in study(tmp_path, methods=["default"], **changes).runs}

    one = ids()
    assert ids() == one
    assert one < ids(seeds=[1, 2])
    for changes in (
        {"budgets": [3]},
        {"seeds": [2]},
        {"overrides": [*TINY, "train.params.config.gamma=0.98"]},
        {"evaluation": {"points": 3}},
        {"tasks": {"Cartpole": {"overrides": ["task.env.episodeLength=100"]}}},
    ):
        assert not one & ids(**changes), changes


@pytest.mark.slow
def test_a_run_without_low_environments_does_not_depend_on_their_engine(tmp_path: Path) -> None:
    of_low = [{run.method: run.id for run in study(tmp_path, overrides=TINY, gaps=["default"]).runs}]
    priced = [*TINY, "simulator/low=mujoco_reduced", "simulator.low.mujoco_reduced.price=2"]
    of_low.append({run.method: run.id for run in study(tmp_path, overrides=priced, gaps=["default"]).runs})
    assert of_low[0]["high_only"] == of_low[1]["high_only"] and of_low[0]["default"] != of_low[1]["default"]


def test_what_a_task_says_of_itself_comes_first() -> None:
    plan = parse_plan(plan_of(tasks={"Cartpole": {"budgets": [5], "gaps": ["none"]}, "Ant": {}}))
    assert plan.budgets_of("Cartpole") == (5.0,) and plan.budgets_of("Ant") == (2.0,)
    assert plan.gaps_of("Cartpole") == ("none",) and plan.gaps_of("Ant") == ("reduced",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": ["high_only"]}, r"study.method=.*: no such setting; did you mean methods"),
        ({"budgets": [-1]}, r"study.budgets=-1.0: must be a number in \(0, "),
        ({"budgets": ["long"]}, r"study.budgets=long: a number is expected"),
        ({"budgets": []}, r"study.budgets=\[\]: must be given, here or in tasks.Cartpole"),
        ({"gaps": []}, r"study.gaps=\[\]: must be given, here or in tasks.Cartpole"),
        ({"seeds": []}, r"study.seeds=\[\]: must be at least one"),
        ({"seeds": [1, 1]}, r"study.seeds=\[1, 1\]: must be different from each other"),
        ({"seeds": [-1]}, r"study.seeds=-1: must be a whole number of at least 0"),
        ({"tasks": {"Cartpole": None}}, r"study.tasks.Cartpole=None: a mapping is expected"),
        ({"tasks": {"Cartpole": {"budget": 3}}}, r"study.tasks.Cartpole.budget=3: no such setting"),
        ({"evaluation": {"points": 0}}, r"study.evaluation.points=0: must be a whole number of at least 1"),
        ({"reference": {"factor": 0.5}}, r"study.reference.factor=0.5: must be a number in \[1, 1000\]"),
        ({"threads": 0}, r"study.threads=0: must be a whole number of at least 1"),
        ({"contrasts": [["high_only", "magic"]]}, r"study.contrasts=magic: must be one of the plan's methods"),
        ({"tasks": {"Cartpool": {}}}, r"study.tasks=Cartpool: must be one of \['Ant'"),
        ({"methods": ["magic"]}, r"study.methods=magic: must be one of \['default'"),
        ({"gaps": ["wide"]}, r"study.gaps=wide: must be one of "),
        ({"reference": {"method": "magic"}}, r"study.reference.method=magic: must be one of "),
        ({"methods": ["shuffled"]}, r"study.methods=shuffled: replays the runs of method default, which"),
        ({"overrides": ["num_envz=3"]}, r"task Cartpole.*: num_envz: no such setting; did you mean num_envs"),
        (
            {"overrides": ["num_envs=0"]},
            r"task Cartpole, method high_only: num_envs=0: must be a whole number of at least 1",
        ),
        ({"overrides": ["simulator/low=havok"]}, r"task Cartpole.*: simulator/low=havok: allowed are"),
        ({"budget_factors": {"none": 2}}, r"study.budget_factors=none: must be one of the plan's gaps \['reduced'\]"),
        ({"budget_factors": {"reduced": 0}}, r"study.budget_factors.reduced=0.0: must be a number in \(0, "),
        ({"method_gaps": {"mfpg": ["reduced"]}}, r"study.method_gaps=mfpg: must be one of the plan's methods"),
        ({"method_gaps": {"default": ["none"]}}, r"study.method_gaps.default=none: must be one of the plan's gaps"),
        ({"evaluation": {"dials": [0]}}, r"study.evaluation.dials=\[0.0\]: must be a list with 1, the adapted policy"),
        ({"evaluation": {"dials": [1, 2]}}, r"study.evaluation.dials=2.0: must be a number in \[0, 1.5\]"),
        ({"abroad": ["havok"]}, r"task Cartpole.*: study.abroad=havok: allowed are"),
        (
            {"abroad": ["mujoco"]},
            r"method high_only.*: study.abroad=mujoco: cannot be left out, simulator.high trains in m",
        ),
        (
            {"abroad": ["pybullet"], "gaps": ["pybullet"]},
            r"method default, gap pybullet: study.abroad=pybullet: cannot be left out, simulator.low.pybullet trains",
        ),
        (
            {"abroad": ["mujoco_warp"], "methods": ["low_only"]},
            r"study.abroad=mujoco_warp: cannot be left out, simulator.low.mujoco_reduced trains in mujoco_reduced",
        ),
        ({"tasks": {"BallBalance": {}}, "gaps": ["pybullet"]}, r"task BallBalance, .*simulator/low=pybullet: .*"),
        ({"gaps": ["friction_half"]}, r"task Cartpole, .*gap friction_half: .*friction"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        study(tmp_path, **changes)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted((CONFIG_DIR / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plans_of_this_repository_are_plans(path: Path) -> None:
    """And they name tasks, methods and gaps that there are; a series names plans."""
    composed: Any = compose("study", [f"study={path.stem}"]).study
    settings: Any = OmegaConf.to_container(composed, resolve=True)
    if "plans" in settings:
        parse_series(settings, options("study"))
        return
    plan = parse_plan(settings)
    assert set(plan.tasks) <= set(options("task")) and set(plan.methods) <= set(options("method"))
    assert {gap for task in plan.tasks for gap in plan.gaps_of(task)} <= {"default", *options("gap")}
    assert set(plan.abroad) <= set(simulator_names())


METHODS = sorted(path.stem for path in (CONFIG_DIR / "method").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains(method: str, tmp_path: Path) -> None:
    """With both of what tasks choose for the loss: Cartpole the sum, BallBalance every sample with the same weight."""
    low = ["simulator/low=mujoco_reduced", "simulator.low.mujoco_reduced.threads=1", "simulator.high.threads=1"]
    replayed = []
    if method == "shuffled":
        (tmp_path / "metrics.jsonl").write_text("".join(f'{{"allocation/rho": 0.{k}}}\n' for k in range(1, 9)))
        replayed = [f"allocation.rule.file='{tmp_path / 'metrics.jsonl'}'"]
    Experiment(compose_run(["task=BallBalance", f"+method={method}", *low, *replayed]))
    trainer = Trainer(Experiment(compose_run(["task=Cartpole", f"+method={method}", *TINY, *low, *replayed])))
    try:
        metrics = [trainer.iterate() for _ in range(3)][-1]
    finally:
        trainer.close()
    assert math.isfinite(metrics["policy/std"])
    share = metrics["allocation/n_low"] / (metrics["allocation/n_low"] + metrics["allocation/n_high"])
    expected = {"high_only": 0.0, "low_only": 1.0, "naive_mix": 0.5, "mfpg": 0.7, "finetune_50": 1.0, "fixed": 0.5}
    assert share == expected.get(method, share)
