"""A user's own folder of settings, which Hydra's `--config-dir` names, and what lies beside it.

    my_robots/cfg/          settings: task/, train/, simulator/, …; calibrate.py writes cfg/calibration/
    my_robots/tasks/        tasks, one file each
    my_robots/assets/       MJCF files

A run remembers the folder under `config_dir` in its configuration and its checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from dualfid_robot.config.machine import ASSETS, RUNS
from dualfid_robot.errors import ConfigError


class UserFolder:
    """What belongs to one `--config-dir`.

    Attributes:
        config_dir: the folder, absolute; None where there is none, so that only the package's own files count.
    """

    def __init__(self, config_dir: str | Path = "") -> None:
        """Take up a folder.

        Args:
            config_dir: empty for none.

        Raises:
            ConfigError: it does not exist.
        """
        self.config_dir = Path(config_dir).resolve() if config_dir else None
        if self.config_dir is not None and not self.config_dir.is_dir():
            raise ConfigError(
                f"config_dir={config_dir}: the folder of the run's own settings and tasks is gone; "
                "name its new place with --config-dir"
            )

    @property
    def task_folders(self) -> list[Path]:
        """Where tasks are looked for after the package's own."""
        return [] if self.config_dir is None else [self.config_dir.parent / "tasks"]

    def asset(self, name: str) -> Path:
        """The file that `assetFileName` means: an absolute path, or one in the package's assets/ or the user's.

        Raises:
            ConfigError: both have a file of that name.
        """
        own = ASSETS / name
        if self.config_dir is None:
            return own
        theirs = self.config_dir.parent / "assets" / name
        if not theirs.is_file():
            return own
        if own.is_file() and not own.samefile(theirs):
            raise ConfigError(f"task.asset.assetFileName={name}: is both {own} and {theirs}; give the absolute path")
        return theirs

    def calibration(self, task: str) -> Path:
        """The file of fitted settings of a task: in the user's folder, else in `cfg/` of the present one."""
        return (self.config_dir or Path("cfg")) / "calibration" / f"{task}.yaml"


def command_line_config_dir() -> str:
    """The folder that `--config-dir` names on the running command line, absolute; empty where there is none."""
    if not HydraConfig.initialized():
        return ""
    sources = HydraConfig.get().runtime.config_sources
    return next((str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"), "")


def remember_config_dir(cfg: DictConfig, config_dir: str) -> None:
    """Put the user's folder into a run's configuration, where there is one."""
    if config_dir:
        with open_dict(cfg):
            cfg.config_dir = config_dir


def add_remembered_config_dir(arguments: Sequence[str]) -> list[str]:
    """The arguments of train.py with `--config-dir` of the run that they go on with, where they name none.

    Raises:
        ConfigError: the folder that the run remembers is gone.
    """
    if any(text.startswith(("--config-dir", "-cd")) for text in arguments):
        return list(arguments)
    given = dict(text.partition("=")[::2] for text in arguments if not text.startswith("-"))
    run = _run_to_go_on_with(given)
    config_dir = UserFolder(run.get("config_dir", "")).config_dir
    return list(arguments) if config_dir is None else [f"--config-dir={config_dir}", *arguments]


def _run_to_go_on_with(given: dict[str, str]) -> dict[str, Any]:
    """The configuration of the run that `checkpoint=…` or `resume=True` means; empty where there is none."""
    if given.get("checkpoint"):
        path = Path(given["checkpoint"])
        files = [folder / "config.yaml" for folder in (path, path.parent, path.parent.parent)]
        return next((_load(file) for file in files if file.is_file()), {})
    if given.get("resume", "").lower() != "true":
        return {}
    checkpoints = sorted(RUNS.glob("*/nn/last.pth"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in checkpoints:
        file = path.parents[1] / "config.yaml"
        if file.is_file() and _is_meant(run := _load(file), given):
            return run
    return {}


def _is_meant(run: dict[str, Any], given: dict[str, str]) -> bool:
    """Whether a run is one of the experiment and the task that were asked for."""
    task = given.get("task", "Ant")
    of_task = run["task"]["name"] == task or (Path(run.get("config_dir", "")) / "task" / f"{task}.yaml").is_file()
    return of_task and run["experiment"] == given.get("experiment", "")


def _load(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(file.read_text())
    return settings
