"""`study.py`: check the plan, launch one Hydra job for each unfinished run, and write the report."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dualfid_robot.atomic import locked, write_text
from dualfid_robot.config.hints import quoted
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.progress import Progress
from dualfid_robot.config.user_folder import command_line_config_dir
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.interrupt import Interrupt
from dualfid_robot.settings import counted
from dualfid_robot.studies.configuration import options
from dualfid_robot.studies.display import StudyDisplay
from dualfid_robot.studies.expected_time import runs_at_once, time_line
from dualfid_robot.studies.job import STOPPED
from dualfid_robot.studies.run_folder import RunFolder

if TYPE_CHECKING:
    from dualfid_robot.studies.plan import PlannedRun, PlannedStudy

_PACKAGES = {"joblib": "hydra_joblib_launcher", "submitit": "hydra_submitit_launcher", "ray": "hydra_ray_launcher"}
_EXTRAS = {"joblib": "study", "submitit": "slurm", "ray": "ray"}  # of setup.py
_STOP = "stop"  # the file that asks all jobs of a study to stop, on whatever machine they are
_POLL_INTERVAL = 0.5  # s
_GRACE = 120.0  # s for a run to finish its iteration or evaluation
_LOG_LINES = 15
_STOPPED = (0, STOPPED, -signal.SIGTERM, -signal.SIGINT)  # negative: a signal that came while the run was starting


def require_launcher(arguments: Sequence[str]) -> None:
    """Refuse a launcher whose plugin is not installed, and say what to install.

    Args:
        arguments: of the command line.
    """
    chosen = [text.partition("=")[2] for text in arguments if text.startswith("hydra/launcher=")]
    name = chosen[-1] if chosen else "joblib"
    plugin = name.partition("_")[0]
    if plugin in _PACKAGES and not _is_installed(_PACKAGES[plugin]):
        raise ConfigError(
            f"hydra/launcher={name}: {_PACKAGES[plugin].replace('_', '-')} is not installed; "
            f'pip install "dualfid_robot[{_EXTRAS[plugin]}]", or take hydra/launcher=basic, one run at a time'
        )


def _is_installed(plugin: str) -> bool:
    """Whether Hydra would find a plugin. Without any plugin their common namespace is missing, too."""
    namespace = "hydra_plugins"
    return importlib.util.find_spec(namespace) is not None and (
        importlib.util.find_spec(f"{namespace}.{plugin}") is not None
    )


def launch_study(cfg: DictConfig) -> None:
    """Run the unfinished runs of a plan, or of each plan of a series, and report on each when it has ended.

    Raises:
        ConfigError: names what is wrong, before anything runs.
    """
    from dualfid_robot.config.values import require_package  # imports torch
    from dualfid_robot.studies.plan_file import parse_series
    from dualfid_robot.studies.report import read_findings, write_report, write_series_report

    require_package("study", "matplotlib", "study")
    console = plain_console()
    choice = str(HydraConfig.get().runtime.choices["study"])
    if "study" not in cfg:
        raise ConfigError(f"study: name a plan, such as study=cartpole_small; allowed are {options('study')}")
    name, settings = str(cfg.name or choice), _settings(cfg)
    is_series = "plans" in settings
    # The studies' names, and the files of cfg/study that are their plans.
    plans = {name: choice}
    if is_series:
        plans = {plan: plan for plan in parse_series(settings, options("study")).plans}
    folders = {study: (Path(str(cfg.folder)) / study).resolve() for study in (name, *plans)}
    # All are checked before the first run starts.
    checked = {}
    if not cfg.report_only:
        for study, plan in plans.items():
            of_plan = _settings(_composed(plan)) if is_series else settings
            checked[study] = _check(study, folders[study], of_plan, console)
    found = []
    for study, plan in plans.items():
        if not cfg.report_only:
            if not _run(checked[study], plan, bool(cfg.retry_failed), console):
                return
        elif not (folders[study] / "plan.json").is_file():
            raise ConfigError(f"report_only=True: there is no study in {folders[study]}")
        with Progress("report"):
            found.append(read_findings(folders[study]))
            page = write_report(found[-1])
        _say(console, f"report: {page}")
    if is_series:
        _say(console, f"report of all: {write_series_report(folders[name], found)}")


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What a file of cfg/study says."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg.study, resolve=True))


def _composed(choice: str) -> DictConfig:
    """The configuration of another plan, with no other setting."""
    hydra_ = GlobalHydra.instance().hydra
    assert hydra_ is not None
    config_name = HydraConfig.get().job.config_name
    return hydra_.compose_config(config_name, [f"study={choice}"], RunMode.RUN, with_log_configuration=False)


def _check(name: str, folder: Path, settings: Mapping[str, Any], console: Console) -> PlannedStudy:
    """Compose and check every run of a plan."""
    from dualfid_robot.studies.plan import PlannedStudy
    from dualfid_robot.studies.plan_file import parse_plan

    plan = parse_plan(settings)
    _say(console, f"study {name}: composing and checking every run")
    return PlannedStudy(name, plan, folder)


def _run(study: PlannedStudy, choice: str, retry_failed: bool, console: Console) -> bool:
    """Run the unfinished runs of a study. Returns False if a signal stopped it."""
    study.folder.mkdir(parents=True, exist_ok=True)
    with locked(study.folder, f"name={study.name}"):
        pending = _prepare(study, retry_failed, console)
        for line in outdated(study):
            _say(console, f"study {study.name}: {line}")
        if pending and not _launch(study, choice, pending):
            _say(console, "stopped, and saved what there is; the same command goes on")
            return False
        _say_failures(study, console)
    return True


def _prepare(study: PlannedStudy, retry_failed: bool, console: Console) -> list[PlannedRun]:
    """Write the plan and its runs' descriptions. Returns the unfinished runs in the plan's order."""
    (study.folder / _STOP).unlink(missing_ok=True)
    existing = {path.name for path in (study.folder / "runs").glob("*")}
    taken = [run for run in study.runs if study.folder_of(run).result() is None and _take(study, run)]
    pending, counts = [], {"finished": 0, "failed": 0}
    finished: dict[PlannedRun, float] = {}
    plan = study.plan
    for run in study.runs:
        folder = study.folder_of(run)
        result = folder.result()
        if result is not None and (result["status"] == "finished" or not retry_failed):
            counts[result["status"]] += 1
            if result["status"] == "finished":
                finished[run] = result["wall_seconds"]
            continue
        if result is not None:
            folder.forget_result()
        folder.unmark_running()
        timeout = plan.timeout if plan.timeout is not None else 600.0 + 5.0 * run.budget
        common = {
            "evaluation": study.evaluation_of(run.reference),
            "threads": plan.threads,
            "config_dir": command_line_config_dir(),
        }
        folder.describe(run.description() | common | {"timeout": timeout})
        pending.append(run)
    write_text(study.folder / "plan.json", json.dumps(study.description(), indent=1) + "\n")
    ids = {run.id for run in study.runs}
    text = f"study {study.name}: {len(ids)} runs: {counts['finished']} finished, {counts['failed']} failed"
    text += f", {len(pending)} to run"
    if existing:
        text += f", of which {len(ids - existing)} are new in the plan"
    if existing - ids:
        text += f"; {len(existing - ids)} in the folder are of another plan and left as they are"
    _say(console, text)
    if taken:
        _say(console, f"study {study.name}: {len(taken)} runs are taken from {', '.join(plan.runs_of)}")
    if pending:
        launcher = str(HydraConfig.get().runtime.choices["hydra/launcher"])
        at_once = runs_at_once(launcher, int(HydraConfig.get().launcher.get("n_jobs", 1)))
        _say(console, f"study {study.name}: the runs take {time_line(pending, finished, at_once)}")
    return pending


def outdated(study: PlannedStudy) -> list[str]:
    """Of each task whose robot or code has changed since runs of the study have finished, a line. They stay as they
    are."""
    from dualfid_robot.runs.identity import changes, identity

    now = {task: identity(experiment) for task, experiment in study.experiments.items()}
    found: dict[str, list[str]] = {}
    for folder, task in ((study.folder_of(run), run.task) for run in study.runs):
        made_of = folder.made_of() if folder.status() == "finished" else None
        if made_of is not None:
            for change in changes(made_of, now[task], study.experiments[task]):
                found.setdefault(change, []).append(folder.path.name)
    return [
        f"{change} since {counted(len(runs), 'run')} finished, such as {runs[0]}; those are not run again, "
        "unless their folders are removed"
        for change, runs in found.items()
    ]


def _take(study: PlannedStudy, run: PlannedRun) -> bool:
    """Copy a run that a study of `runs_of` has finished, without its checkpoint; whether there is one."""
    for name in study.plan.runs_of:
        source = RunFolder(study.folder.parent / name / "runs" / run.id)
        if source.status() == "finished":
            shutil.copytree(source.path, study.folder_of(run).path, ignore=_without_policies, dirs_exist_ok=True)
            return True
    return False


_without_policies = shutil.ignore_patterns("nn", "tensorboard")


def _say_failures(study: PlannedStudy, console: Console) -> None:
    for run in study.runs:
        result = study.folder_of(run).result()
        if result is not None and result["status"] == "failed":
            _say(
                console, f"failed: {run.id}: {result['error'].splitlines()[-1] if result['error'] else 'said nothing'}"
            )


def chains(pending: Sequence[PlannedRun]) -> list[list[str]]:
    """Ids by job. A job is a run, followed by those that replay it."""
    jobs: dict[str, list[str]] = {run.id: [run.id] for run in pending}
    for run in pending:
        if run.replays in jobs:
            jobs[run.replays].append(run.id)
            del jobs[run.id]
    return list(jobs.values())


class _StudyInterrupt(Interrupt):
    """The first signal asks all jobs of a study to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._file = folder / _STOP

    def _handle(self, number: int, frame: FrameType | None) -> None:
        super()._handle(number, frame)
        self._file.touch()


def _launch(study: PlannedStudy, choice: str, pending: Sequence[PlannedRun]) -> bool:
    """Hand the runs to the configured launcher and wait. Returns False if a signal stopped them.

    Args:
        choice: the file of cfg/study.
    """
    for noisy in ("hydra_plugins", "hydra._internal.core_plugins"):  # a line for every job
        logging.getLogger(noisy).setLevel(logging.WARNING)
    hydra_, job = GlobalHydra.instance().hydra, HydraConfig.get()
    assert hydra_ is not None
    settings = [f"hydra.sweep.dir={quoted(str(study.folder / 'jobs'))}"]
    settings += [text for text in job.overrides.hydra if not text.startswith("hydra.mode=")]
    config = hydra_.compose_config(
        job.job.config_name, [*settings, f"study={choice}"], RunMode.MULTIRUN, with_log_configuration=False
    )
    context = HydraContext(config_loader=hydra_.config_loader, callbacks=Callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(context, run_job, config)
    common = [f"study={choice}", f"+job.folder={quoted(str(study.folder))}", f"+job.study_process={os.getpid()}"]
    jobs = [[*common, f"+job.runs=[{','.join(ids)}]"] for ids in chains(pending)]
    with _StudyInterrupt(study.folder) as interrupt:
        folders = {run.id: (study.folder_of(run), run.budget) for run in study.runs}
        try:
            with StudyDisplay(study.name, folders):
                returned = launcher.launch(jobs, initial_job_idx=0)
        except Exception:
            if not interrupt.requested:  # a signal may also have reached and ended the launcher's own workers
                raise
            return False
    return not interrupt.requested and _all_done(returned)


def _all_done(returned: Sequence[JobReturn]) -> bool:
    """Raise the error of a launcher's own job. A run's own error is in its result."""
    return all(job.return_value is not None for job in returned if job.status != JobStatus.UNKNOWN)


def run_job(cfg: DictConfig) -> list[str]:
    """A Hydra job, in the launcher's process and machine. It executes its runs one after the other.

    Returns:
        The status of each.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study's process acts on a terminal's Ctrl-C
    study = Path(str(cfg.job.folder))
    alive = _Alive(study / _STOP, cfg.job.study_process)
    return [_run_one(RunFolder(study / "runs" / run), alive) for run in cfg.job.runs]


class _Alive:
    """Whether a study goes on: nobody has asked it to stop, and a local study's process still runs."""

    def __init__(self, stop: Path, study_process: int) -> None:
        self._stop = stop
        self._parent = study_process if os.getppid() == study_process else None

    def __bool__(self) -> bool:
        return not self._stop.exists() and (self._parent is None or os.getppid() == self._parent)


def _run_one(folder: RunFolder, alive: _Alive) -> str:
    if not alive:
        return "stopped"
    run = folder.description()
    if run["replays"]:
        replayed = RunFolder(folder.path.with_name(run["replays"]))
        if replayed.status() != "finished":
            return _fail(folder, f"the run that it replays, {replayed.path.name}, has not finished")
    folder.mark_running()
    try:
        error = _execute(folder, run["timeout"], alive)
    finally:
        folder.unmark_running()
    if folder.result() is not None:
        return "finished"
    return "stopped" if error is None else _fail(folder, error)


def _execute(folder: RunFolder, timeout: float, alive: _Alive) -> str | None:
    """Run a run's process to its end. Returns why it failed, or None if it finished or stopped."""
    command = [sys.executable, "-m", "dualfid_robot.studies.job", str(folder.path), "--parent", str(os.getpid())]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # it finds the modules that this one finds
    started = time.monotonic()
    with folder.log.open("a", encoding="utf-8") as log:
        # A session of its own, so that a terminal's Ctrl-C reaches only the study's process, which tells this one.
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            while process.poll() is None:
                time.sleep(_POLL_INTERVAL)
                if time.monotonic() - started > timeout:
                    return f"ended after {timeout:g} s of wall time"
                if not alive:
                    _end(process)
                    return None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode in _STOPPED:
        return None
    if process.returncode < 0:
        return f"ended by {signal.Signals(-process.returncode).name}\n{folder.last_lines(_LOG_LINES)}"
    return folder.last_lines(_LOG_LINES)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a run save what it has."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _fail(folder: RunFolder, error: str) -> str:
    partial = folder.partial()
    folder.finish({"status": "failed", "error": error, **partial, "means": {}, "machine": {}})
    return "failed"


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)
