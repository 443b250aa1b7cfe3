"""study.py as a user runs it: killed and started again, stopped, with runs that fail, and with wrong input."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import pytest
import yaml

from dualfid_robot.atomic import locked
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError
from dualfid_robot.studies.display import ProgressReader, StudyDisplay
from dualfid_robot.studies.launcher import _take, require_launcher
from dualfid_robot.studies.plan import PlannedRun
from dualfid_robot.studies.plan_file import parse_plan
from dualfid_robot.studies.run_folder import RunFolder

ROOT = Path(__file__).parents[2]

FRAGILE_TASK = """
import os, signal, time
from dataclasses import dataclass
from dualfid_robot.tasks.cartpole import Cartpole, CartpoleConfig

@dataclass(frozen=True)
class FragileConfig(CartpoleConfig):
    breaks: str = ""

class Fragile(Cartpole):
    Config = FragileConfig

    def reward(self, previous_qpos, state, observed, terminated):
        if self.config.breaks == "raises":
            raise RuntimeError("the motor is too hot")
        if self.config.breaks == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.config.breaks == "hangs":
            time.sleep(600)
        return super().reward(previous_qpos, state, observed, terminated)
"""
PLAN: dict[str, object] = {
    "tasks": {"Fragile": {}},
    "methods": ["high_only", "default"],
    "gaps": ["reduced"],
    "budgets": [2],
    "seeds": [1],
    "reference": None,
    "evaluation": {"points": 2, "episodes": 4},
    "overrides": ["num_envs=20", "train.params.config.minibatch_size=160", "task.env.episodeLength=60"],
}


@pytest.fixture
def user(tmp_path: Path) -> Callable[..., list[str]]:
    """A user's folder with a task that can fail, methods that make it fail, and a plan; the command that runs it."""
    for name in ("task", "train", "method", "study"):
        (tmp_path / "cfg" / name).mkdir(parents=True)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "fragile.py").write_text(FRAGILE_TASK)
    task = yaml.safe_load((CONFIG_DIR / "task" / "Cartpole.yaml").read_text()) | {"name": "Fragile"}
    (tmp_path / "cfg" / "task" / "Fragile.yaml").write_text(yaml.safe_dump(task))
    train = (CONFIG_DIR / "train" / "CartpolePPO.yaml").read_text()
    (tmp_path / "cfg" / "train" / "FragilePPO.yaml").write_text(train)
    for word in ("raises", "dies", "hangs"):
        text = yaml.safe_dump({"task": {"env": {"breaks": word}}})
        (tmp_path / "cfg" / "method" / f"{word}.yaml").write_text(f"# @package _global_\n{text}")

    def command(*arguments: str, **changes: object) -> list[str]:
        (tmp_path / "cfg" / "study" / "mine.yaml").write_text(yaml.safe_dump(PLAN | changes))
        return [sys.executable, str(ROOT / "study.py"), "--config-dir", "cfg", "study=mine", *arguments]

    return command


def run_to_end(command: Sequence[str], folder: Path) -> str:
    _, _, *arguments = command
    result = forked.completed(forked.run_script, ("study.py", arguments), folder, timeout=400)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def results(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path for path in (folder / "studies" / "mine" / "runs").glob("*/result.json")}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def in_the_middle(folder: Path) -> bool:
    """Whether a run has finished and another has a checkpoint."""
    runs = folder / "studies" / "mine" / "runs"
    finished = {path.parent for path in runs.glob("*/result.json")}
    begun = {path.parent.parent for path in runs.glob("*/nn/last.pth")}
    return bool(finished and begun - finished)


def wait_until_all_runs_have_been_let_go(folder: Path) -> None:
    for path in (folder / "studies" / "mine" / "runs").iterdir():
        with RunFolder(path).locked():
            pass


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_without_repeating_a_run(user: Callable[..., list[str]], tmp_path: Path) -> None:
    command = user("hydra.launcher.n_jobs=1", methods=["default", "shuffled"])
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: in_the_middle(tmp_path), process)
    process.kill()
    process.communicate()
    wait_until_all_runs_have_been_let_go(tmp_path)
    before = {name: path.stat().st_mtime_ns for name, path in results(tmp_path).items()}
    assert len(before) == 1

    output = run_to_end(command, tmp_path)
    assert "2 runs: 1 finished, 0 failed, 1 to run, of which 0 are new" in output
    after = results(tmp_path)
    assert len(after) == 2
    for name, path in after.items():
        result = json.loads(path.read_text())
        assert result["status"] == "finished", result
        costs = [point["cost_seconds"] for point in result["curve"]]
        assert costs[0] == 0.0 and costs == sorted(costs) and costs[-1] >= 2.0
        log = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        assert [row["iteration"] for row in log] == list(range(1, len(log) + 1))
        if name in before:
            assert path.stat().st_mtime_ns == before[name]
    assert (tmp_path / "studies" / "mine" / "report.html").is_file()
    assert "2 runs: 2 finished, 0 failed, 0 to run" in run_to_end(command, tmp_path)
    assert {name: path.stat().st_mtime_ns for name, path in results(tmp_path).items()} == {
        name: path.stat().st_mtime_ns for name, path in after.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "basic"])
def test_ctrl_c_in_a_terminal_saves_what_there_is(
    launcher: str, user: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = user(f"hydra/launcher={launcher}", budgets=[100])
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    runs = tmp_path / "studies" / "mine" / "runs"
    wait_for(lambda: bool(list(runs.glob("*/metrics.jsonl"))), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the foreground
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert output.splitlines()[-1] == "stopped, and saved what there is; the same command goes on"
    wait_until_all_runs_have_been_let_go(tmp_path)
    assert not results(tmp_path) and not list(runs.glob("*/running"))
    assert list(runs.glob("*/nn/last.pth"))


@pytest.mark.slow
def test_runs_that_fail_are_reported_and_the_others_finish(user: Callable[..., list[str]], tmp_path: Path) -> None:
    methods = ["raises", "dies", "hangs", "shuffled", "high_only"]
    run_to_end(user("hydra.launcher.n_jobs=2", methods=methods, replayed="raises", timeout=25), tmp_path)
    outcomes = {path.parent.name.split("-")[1]: json.loads(path.read_text()) for path in results(tmp_path).values()}
    assert {method: outcome["status"] for method, outcome in outcomes.items()} == {
        **dict.fromkeys(["raises", "dies", "hangs", "shuffled"], "failed"),
        "high_only": "finished",
    }
    assert outcomes["raises"]["error"].splitlines()[-1] == "RuntimeError: the motor is too hot"
    assert outcomes["dies"]["error"].splitlines()[0] == "ended by SIGSEGV"
    assert outcomes["hangs"]["error"] == "ended after 25 s of wall time"
    assert outcomes["shuffled"]["error"].startswith("the run that it replays, Fragile-raises-reduced-2s-seed1-")
    report = (tmp_path / "studies" / "mine" / "report.html").read_text()
    assert "the motor is too hot" in report

    kept = {name: path.stat().st_mtime_ns for name, path in results(tmp_path).items()}
    again = user("hydra/launcher=basic", "retry_failed=True", methods=["raises", "high_only"], replayed="raises")
    output = run_to_end(again, tmp_path)
    assert "2 runs: 1 finished, 0 failed, 1 to run" in output and "3 in the folder are of another plan" in output
    changed = [name for name, path in results(tmp_path).items() if path.stat().st_mtime_ns != kept[name]]
    assert [name.split("-")[1] for name in changed] == ["raises"]


@pytest.mark.slow
def test_a_series_runs_its_plans_in_turn_and_has_a_page_of_all(user: Callable[..., list[str]], tmp_path: Path) -> None:
    command = user(
        "study=all", "hydra/launcher=basic", methods=["high_only", "default"], contrasts=[["default", "high_only"]]
    )
    plans = tmp_path / "cfg" / "study"
    other = PLAN | {"methods": ["high_only"], "runs_of": ["mine"]}
    (plans / "other.yaml").write_text(yaml.safe_dump(other))
    (plans / "all.yaml").write_text(yaml.safe_dump({"plans": ["mine", "other"]}))
    output = run_to_end(command, tmp_path)
    # All is checked before anything runs, and the second plan has nothing left to run.
    lines = [line for line in output.splitlines() if "composing" in line or " to run" in line]
    assert [line.split(":")[0] for line in lines] == ["study mine", "study other", "study mine", "study other"]
    assert lines[-1].endswith("1 runs: 1 finished, 0 failed, 0 to run")
    page = (tmp_path / "studies" / "all" / "report.html").read_text()
    for name, runs in (("mine", 2), ("other", 1)):
        assert (tmp_path / "studies" / name / "report.html").is_file()
        assert f'<a href="../{name}/report.html">{name}</a>' in page and f"{runs} of {runs} runs finished" in page
    assert "default over high_only" in page
    assert run_to_end([*command, "report_only=True"], tmp_path).splitlines()[-1].startswith("report of all: ")


@pytest.mark.slow
def test_wrong_input_is_one_line_and_nothing_runs(
    user: Callable[..., list[str]], run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for arguments, changes, message in (
        ((), {"methods": ["magic"]}, "error: study.methods=magic: must be one of ['default'"),
        ((), {"budget": [3]}, "error: study.budget=[3]: no such setting; did you mean budgets"),
        (("study.seeds=[-1]",), {}, "error: study.seeds=-1: must be a whole number of at least 0"),
        (("folders=x",), {}, "error: folders: no such setting; did you mean folder?"),
        (("report_only=True",), {}, "error: report_only=True: there is no study in"),
        (
            ("hydra/launcher=submitit_slurm",),
            {},
            "error: hydra/launcher=submitit_slurm: hydra-submitit-launcher is not",
        ),
        (("study=none",), {}, "error: study=none: allowed are ["),
        (("study=pays", "study.seeds=[1]"), {}, "error: study.seeds: no such setting; allowed are"),
        (("study=pays", "study.plans=[tiny,none]"), {}, "error: study.plans=none: must be one of ["),
    ):
        _, script, *others = user(*arguments, **changes)
        result = run_script(Path(script).name, *others)
        assert result.returncode == 2, (arguments, result.stdout, result.stderr)
        assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1, result.stderr
        assert not (tmp_path / "studies").exists()


def test_a_missing_launcher_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"hydra/launcher=joblib: hydra-joblib-launcher .*dualfid_robot\[study\]"):
        require_launcher(["study=tiny"])
    with pytest.raises(ConfigError, match=r"hydra/launcher=ray: .*dualfid_robot\[ray\]"):
        require_launcher(["study=tiny", "hydra/launcher=ray"])
    require_launcher(["study=tiny", "hydra/launcher=basic"])


def test_progress_is_what_the_folders_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {name: (RunFolder(tmp_path / name), 10.0) for name in ("a", "b", "c", "d")}
    for folder, _ in folders.values():
        folder.describe({})
    folders["a"][0].finish({"status": "finished"})
    folders["b"][0].finish({"status": "failed"})
    folders["c"][0].mark_running()
    folders["c"][0].metrics.write_text('{"cost_seconds": 4.0, "return/low": 1.5, "return/high": 2.5}\n')
    progress = ProgressReader(folders).read()
    assert progress.counts == {"finished": 1, "failed": 1, "running": 1, "pending": 1}
    assert (progress.cost, progress.remaining) == (24.0, 16.0)
    assert [(run.id, run.cost, run.last_return) for run in progress.running] == [("c", 4.0, 2.5)]
    with StudyDisplay("test", folders):
        folders["d"][0].finish({"status": "finished"})
    assert "2 finished, 1 failed, 1 running, 0 pending | 34 of 40 s of cost" in capsys.readouterr().out


def test_a_study_has_one_process(run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A study that another process runs is refused before anything is written."""
    folder = tmp_path / "studies" / "s"
    folder.mkdir(parents=True)
    with locked(folder, "name=s"):
        result = run_script("study.py", "study=tiny", "name=s")
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: name=s: process ")
    assert sorted(path.name for path in folder.iterdir()) == ["lock"]


def test_the_study_starts_without_torch() -> None:
    code = "import sys; import dualfid_robot.studies.launcher; print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_machine_without_any_plugin_of_hydra_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without_plugins(name: str) -> ModuleSpec | None:
        if name == "hydra_plugins":
            return None
        if name.startswith("hydra_plugins."):  # as importlib does where the parent is missing
            raise ModuleNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without_plugins)
    with pytest.raises(
        ConfigError, match=r"^hydra/launcher=joblib: hydra-joblib-launcher is not installed; pip install"
    ):
        require_launcher([])


def test_finished_runs_of_another_study_are_taken_without_their_policies(tmp_path: Path) -> None:
    """Those with the same id, so with the same settings; failed and missing ones are not."""
    run = PlannedRun("a", "Ant", "m", "g", 1.0, 1, False, ())
    others = {name: dataclasses.replace(run, id=name) for name in "abc"}
    for name, status in (("a", "finished"), ("b", "failed")):
        folder = RunFolder(tmp_path / "first" / "runs" / name)
        folder.describe({"id": name})
        folder.checkpoint.write_text("")
        folder.finish({"status": status})
    plan = parse_plan({"tasks": {"Ant": {}}, "methods": ["m"], "seeds": [1], "gaps": ["g"], "budgets": [1]})
    study: Any = SimpleNamespace(
        folder=tmp_path / "second",
        plan=dataclasses.replace(plan, runs_of=("none", "first")),
        folder_of=lambda run: RunFolder(tmp_path / "second" / "runs" / run.id),
    )
    assert [name for name, other in others.items() if _take(study, other)] == ["a"]
    taken = study.folder_of(others["a"])
    assert taken.status() == "finished" and taken.description() == {"id": "a"} and not taken.checkpoint.exists()
    assert [path.name for path in (tmp_path / "second" / "runs").iterdir()] == ["a"]
