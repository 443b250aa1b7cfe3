"""A user's own folder of settings, which Hydra's `--config-dir` names, and what lies beside it.

    my_robots/cfg/          settings: task/, train/, simulator/, …; calibrate.py writes cfg/calibration/
    my_robots/tasks/        tasks, one file each
    my_robots/assets/       MJCF files

A run remembers the folder under `config_dir` in its configuration and its checkpoints.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError


class UserFolder:
    """What belongs to one `--config-dir`.

    Attributes:
        config_dir: the folder, absolute. It is None where there is none, so that only the package's own files count.
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
    """The folder that `--config-dir` names on the running command line, absolute. It is empty where there is none."""
    if not HydraConfig.initialized():
        return ""
    sources = HydraConfig.get().runtime.config_sources
    return next((str(Path(source.path).resolve()) for source in sources if source.provider == "command-line"), "")


def remember_config_dir(cfg: DictConfig, config_dir: str) -> None:
    """Put the user's folder into a run's configuration, where there is one."""
    if config_dir:
        with open_dict(cfg):
            cfg.config_dir = config_dir
