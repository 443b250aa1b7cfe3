"""A run of a study: its curve, its totals, and going on after any end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import forked
import pytest

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import evaluate
from dualfid_robot.studies.configuration import compose_run
from dualfid_robot.studies.job import STOPPED, Totals
from dualfid_robot.studies.run_folder import RunFolder

ROOT = Path(__file__).parents[2]

OVERRIDES = [
    *("task=Cartpole", "num_envs=20", "train.params.config.minibatch_size=160", "simulator/low=mujoco_reduced"),
    *(
        "simulator/high=mujoco",
        "simulator.low.mujoco_reduced.threads=1",
        "simulator.high.threads=1",
        "max_iterations=1000000",
    ),
    *("task.env.episodeLength=60", "seed=3"),
]
EVALUATION = {"points": 3, "episodes": 5, "seed": 77, "abroad": ["physx"], "dials": [0.0, 0.5, 1.0]}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., RunFolder]:
    def make(budget: float) -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        description: dict[str, Any] = {"budget": budget, "overrides": [*OVERRIDES, f"max_cost={budget}"]}
        folder.describe(description | {"evaluation": EVALUATION, "threads": 1, "config_dir": ""})
        return folder

    return make


def start(folder: RunFolder) -> ForkServerProcess:
    """Start the run's process."""
    job = ("dualfid_robot.studies.job", (str(folder.path),))
    return forked.start(forked.run_module, job, ROOT, folder.log, folder.log)


def status(process: ForkServerProcess) -> int | None:
    """How it ended, once it has."""
    process.join(120)
    return process.exitcode


def rows(folder: RunFolder) -> list[dict[str, float]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_curve(folder: RunFolder, budget: float) -> None:
    """Against the trainer's log: a point is the first iteration that reaches another third of the budget."""
    result, log = folder.result(), rows(folder)
    assert result is not None and result["status"] == "finished" and result["error"] is None
    assert [row["iteration"] for row in log] == list(range(1, len(log) + 1))
    costs = [0.0] + [row["cost_seconds"] for row in log]
    expected = [next(i for i, cost in enumerate(costs) if cost >= budget * k / 3) for k in range(4)]
    assert [point["iteration"] for point in result["curve"]] == list(dict.fromkeys(expected))
    for point in result["curve"]:
        before = log[: point["iteration"]]
        assert point["cost_seconds"] == costs[point["iteration"]]
        assert point["high_samples"] == sum(16 * row["allocation/n_high"] for row in before)
        assert point["low_samples"] == sum(16 * row["allocation/n_low"] for row in before)
        assert len(point["returns"]) == 5
        assert point["return"] == pytest.approx(sum(point["returns"]) / 5)
        assert 1.0 <= point["episode_length"] <= 60.0
    assert costs[-2] < budget <= costs[-1]
    assert result["means"]["rho"] == pytest.approx(sum(row["allocation/rho"] for row in log) / len(log))


def check_deployed(result: dict[str, Any]) -> None:
    """Every policy of the dial at home and abroad; the adapted one at home is that of the curve's last point."""
    places = [(place["engine"], place["home"], place["dial"]) for place in result["deployed"]]
    assert places == [(*engine, dial) for engine in (("mujoco", True), ("physx", False)) for dial in (0.0, 0.5, 1.0)]
    for place in result["deployed"]:
        assert len(place["returns"]) == 5 and place["return"] == pytest.approx(sum(place["returns"]) / 5)
    assert result["deployed"][2]["returns"] == result["curve"][-1]["returns"]


@pytest.mark.slow
def test_a_run_is_evaluated_at_even_costs_from_the_untrained_policy_on(folder: Callable[..., RunFolder]) -> None:
    run = folder(2.0)
    assert status(start(run)) == 0, run.last_lines(20)
    check_curve(run, 2.0)
    result = run.result()
    assert result is not None and result["machine"]["versions"]["dualfid_robot"]

    experiment = Experiment(compose_run(OVERRIDES))
    pool = experiment.make_pool(experiment.high_engine, 5, seed=77)
    untrained = evaluate(policy_agent(experiment.make_policy(), "base"), pool)
    pool.simulator.close()
    assert result["curve"][0]["returns"] == pytest.approx(untrained.returns.tolist(), rel=1e-2)
    check_deployed(result)
    assert status(start(run)) == 0  # a run that has finished stays as it is
    assert run.result() == result


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_with_its_curve(number: signal.Signals, folder: Callable[..., RunFolder]) -> None:
    run = folder(4.0)
    process = start(run)
    wait_for(lambda: run.checkpoint.is_file() and run.last_metrics().get("cost_seconds", 0.0) > 1.6)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert status(process) == (STOPPED if number == signal.SIGTERM else -number), run.last_lines(20)
    assert run.result() is None
    first = run.partial()["curve"][:2]
    assert first[1]["iteration"] > 0
    assert status(start(run)) == 0, run.last_lines(20)
    check_curve(run, 4.0)
    result = run.result()
    assert result is not None and result["curve"][:2] == first


@pytest.mark.slow
def test_a_run_without_the_process_that_started_it_stops(folder: Callable[..., RunFolder]) -> None:
    run = folder(60.0)
    job = f"[sys.executable, '-m', 'dualfid_robot.studies.job', {str(run.path)!r}, '--parent', str(os.getpid())]"
    starter = f"import os, subprocess, sys; print(subprocess.Popen({job}).pid, flush=True); sys.stdin.read()"
    with run.log.open("a") as log:
        parent = subprocess.Popen(
            [sys.executable, "-c", starter], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
    wait_for(lambda: bool(run.last_metrics()))
    assert not run.checkpoint.is_file()
    parent.kill()
    parent.communicate()
    with run.locked():  # the run's process has let it go
        assert run.checkpoint.is_file() and run.result() is None


def test_totals_are_those_of_the_iterations() -> None:
    totals = Totals()
    for k in (1, 2):
        totals.add(
            {
                "samples": 100 * k,
                "allocation/n_low": 2.0 * k,
                "allocation/n_high": 10.0 - 2.0 * k,
                "allocation/rho": 0.2 * k,
                "counted_seconds/low": 1.0,
                "counted_seconds/high": 3.0,
                "counted_seconds/learner": 2.0 * k,
                **({"divergence/D": 0.5} if k == 2 else {}),
            }
        )
    assert totals.samples == {"low": 60, "high": 140}
    assert totals.means() == pytest.approx(
        {"rho": 0.3, "divergence": 0.5, "cost_low": 2 / 60, "cost_high": 6 / 140, "cost_learner": 6 / 200}
        | {"seconds_low": 2.0, "seconds_high": 6.0, "seconds_learner": 6.0}
    )


def test_a_run_folder_says_where_the_run_stands(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.describe({"a": 1})
    assert run.description() == {"a": 1} and run.status() == "pending" and run.last_metrics() == {}
    run.mark_running()
    assert run.status() == "running"
    run.metrics.write_text('{"iteration": 1}\n{"iteration": 2}\n{"iterat')
    assert run.last_metrics() == {"iteration": 2}
    run.unmark_running()
    run.log.write_text("one\n\ntwo\nthree\n")
    assert run.last_lines(2) == "two\nthree"
    run.save_partial([{"iteration": 0}], 3.0)
    run.finish({"status": "failed"})
    assert run.status() == "failed" and run.partial() == {"curve": [], "wall_seconds": 0.0}
    run.forget_result()
    assert run.status() == "pending" and not run.metrics.exists()
