"""Tasks are found by name: class `Ant` in `ant.py`, in the package's folder `tasks` or in one of the user's."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from dualfid_robot.envs.foreign_task import ForeignTask, foreign_task
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings

_OWN = Path(__file__).parents[1] / "tasks"


def task_names(folders: Sequence[Path] = ()) -> list[str]:
    """Names of the tasks: of the package's own, and of those in a user's folders.

    Raises:
        OSError: a folder is there and cannot be read.
    """
    files = [path for folder in (_OWN, *folders) if folder.is_dir() for path in folder.iterdir()]
    stems = {path.stem for path in files if path.suffix == ".py" and path.stem != "__init__"}
    return sorted("".join(part.capitalize() for part in stem.split("_")) for stem in stems)


def make_task(
    name: str,
    settings: Mapping[str, Any],
    robot: RobotModel,
    control_dt: float,
    device: torch.device | str = "cpu",
    folders: Sequence[Path] = (),
) -> Task:
    """Build the task `name` with the settings of its YAML's `env`.

    Args:
        folders: where to look for the task besides the package's own folder.

    Raises:
        ConfigError: an unknown task or setting, a task that exists twice, or an asset without what the task names. Or
            its file is no Python, or imports what is not there.
    """
    cls = foreign_task(name) or _task_class(name, folders)
    config = parse_settings(cls.Config, settings, "task.env")
    if not robot.actuator_names and not issubclass(cls, ForeignTask):
        raise ConfigError(f"asset.assetFileName={robot.path.name}: it has no actuators, so a policy could not move it")
    task: Task = cls(config, robot, control_dt, device)
    for command in task.commands:
        columns = task.memory.get(command.memory, 0)
        if not 0 <= command.column < columns:
            place = f"column {command.column} of memory {command.memory!r}"
            raise ConfigError(f"task={name}: command {command.name!r} is {place}, but memory is {dict(task.memory)}")
    return task


def _task_class(name: str, folders: Sequence[Path]) -> type[Task]:
    if name not in task_names(folders):
        raise ConfigError(f"task={name}: allowed are {task_names(folders)}")
    stem = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    files = [path for path in (folder / f"{stem}.py" for folder in (_OWN, *folders)) if path.is_file()]
    for path in files[1:]:
        if not path.samefile(files[0]):
            raise ConfigError(f"task={name}: is in both {files[0]} and {path}; give yours another name")
    try:
        module = _module(files[0])
    except SyntaxError as error:
        raise ConfigError(f"task={name}: {error.filename}, line {error.lineno}: {error.msg}") from error
    except ImportError as error:
        raise ConfigError(f"task={name}: {files[0]} cannot be imported: {error}") from error
    if not hasattr(module, name):
        raise ConfigError(f"task={name}: {files[0]} has no class {name}")
    cls: type[Task] = getattr(module, name)
    return cls


def _module(path: Path) -> ModuleType:
    """The module of a task. A user's folder becomes a package with a name of its own. Its files import each other by
    `from .base import …`, and two folders may have files of one name."""
    if path.parent == _OWN:
        return importlib.import_module(f"dualfid_robot.tasks.{path.stem}")
    folder = path.parent.resolve()
    package = f"dualfid_robot_user_tasks_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if package not in sys.modules:
        spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{package}.{path.stem}")
