"""The folder of a run: resolved configuration, versions, metrics file, curves, checkpoints."""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

import dualfid_robot
from dualfid_robot.atomic import remove_partial, write_text
from dualfid_robot.config.machine import RUNS
from dualfid_robot.config.values import check_name
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.curves import Curves, TensorBoard, Wandb, WandbSettings
from dualfid_robot.runs.metrics import METRICS, read_metrics

_PACKAGES = (
    *("torch", "numpy", "mujoco", "pybullet", "mujoco-warp", "warp-lang", "sapien", "hydra-core"),
    *("onnx", "onnxscript", "onnxruntime"),
)


def new_run_folder(name: str) -> Path:
    """Make `runs/<name>_<date>_<time>`, with a number behind it where that exists already."""
    check_name("experiment", name)
    stem = f"{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    RUNS.mkdir(exist_ok=True)
    for attempt in itertools.count():
        folder = RUNS / (stem if attempt == 0 else f"{stem}_{attempt}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    (folder / "nn").mkdir()
    return folder


def newest_checkpoint(experiment: str | None, task: str | None = None) -> Path:
    """The newest `nn/last.pth` of a run under runs/.

    Args:
        experiment: first part of the folder's name. None means any.
        task: the choice that its command line made. None means any.

    Raises:
        ConfigError: there is none.
        OSError: the folder of all runs is there and cannot be read.
    """
    if RUNS.is_dir():
        os.scandir(RUNS).close()  # glob would take it for an empty one
    name = "*" if experiment is None else glob.escape(experiment)
    found = list(RUNS.glob(f"{name}_[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]_*/nn/last.pth"))
    if task is not None:
        found = [path for path in found if _task_of(path.parents[1]) == task]
    if not found:
        of = "".join(f" of {key}={value}" for key, value in (("experiment", experiment), ("task", task)) if value)
        raise ConfigError(f"resume=True: no run{of} with a checkpoint under {RUNS}/")
    return max(found, key=lambda path: path.stat().st_mtime)


def _task_of(folder: Path) -> str:
    """The task that a run's command line chose, or had without a choice; empty where its configuration is damaged."""
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        chosen = [text.partition("=")[2] for text in settings["overrides"] if text.startswith("task=")]
        return chosen[-1] if chosen else str(settings["task"]["name"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""


def versions() -> dict[str, str]:
    """Versions of this program, its commit, Python, the packages that results depend on, and the machine."""
    found = {"dualfid_robot": dualfid_robot.__version__, "commit": _commit()}
    found |= {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """The processor's model, where the system says it; else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return "unknown"
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


class RunLog:
    """Writes one line of metrics per iteration, and curves.

    Attributes:
        folder: the run's folder; checkpoints go to its `nn/`.
    """

    def __init__(self, folder: Path, config: dict[str, Any], resumed_at: dict[str, float] | None) -> None:
        """Open a run's log.

        Args:
            folder: the run's folder, which this process has locked.
            config: the resolved configuration.
            resumed_at: the metrics of the iteration that a checkpoint was taken at. Later lines are dropped, because
                those iterations will be done again.

        Raises:
            ConfigError: Weights & Biases is asked for and refuses.
        """
        self.folder = folder
        suffix = "" if resumed_at is None else f"_from_{int(resumed_at['iteration'])}"
        for place, pattern in ((folder, "*"), (folder / "nn", "*.pth")):
            remove_partial(place, pattern)
        write_text(folder / f"config{suffix}.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        write_text(folder / f"versions{suffix}.json", json.dumps(versions(), indent=2) + "\n")
        path = folder / METRICS
        if resumed_at is not None and path.is_file():
            _drop_after(path, int(resumed_at["iteration"]))
        self._metrics = path.open("a", encoding="utf-8")
        samples = None if resumed_at is None else int(resumed_at["samples"])
        started = min(path.stat().st_mtime for path in folder.glob("config*.yaml"))
        wandb = WandbSettings.of(config)
        self._curves: list[Curves] = [Wandb(wandb, folder, config)] if wandb.activate else []
        self._curves.append(TensorBoard(folder, started, samples))

    def write(self, metrics: dict[str, float]) -> None:
        """Log an iteration; `metrics` holds `iteration`, `samples` and `cost_seconds` besides what is plotted."""
        self._metrics.write(json.dumps(metrics) + "\n")
        self._metrics.flush()
        for curves in self._curves:
            curves.write(metrics)

    def add_video(self, path: Path, metrics: dict[str, float]) -> None:
        """Show a video beside the curves of its iteration."""
        for curves in self._curves:
            curves.add_video(path, metrics)

    def close(self) -> None:
        """Flush and close all files."""
        self._metrics.close()
        for curves in self._curves:
            curves.close()


def _drop_after(path: Path, iteration: int) -> None:
    """Keep the complete lines of iterations up to `iteration`; a killed run may have left half a line."""
    kept = [row for row in read_metrics(path) if row["iteration"] <= iteration]
    write_text(path, "".join(f"{json.dumps(row)}\n" for row in kept))
