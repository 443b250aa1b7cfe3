"""Classes and files of other people's repositories, by name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dualfid_robot.errors import ConfigError


def find(key: str, text: str, folders: Sequence[Path]) -> Any:
    """What `module:name` or `path/to/file.py:name` means.

    Args:
        key: how errors call the setting.
        text: its value.
        folders: where modules and files are looked for. They stay in `sys.path`.

    Raises:
        ConfigError: there is no such module, file or name.
    """
    place, colon, name = text.rpartition(":")
    if not colon:
        raise ConfigError(f"{key}={text}: module:name or file.py:name is expected")
    sys.path[:0] = [str(folder) for folder in folders if str(folder) not in sys.path]
    module = _file_module(key, text, place, folders) if place.endswith(".py") else _module(key, text, place, folders)
    if not hasattr(module, name):
        raise ConfigError(f"{key}={text}: {place} has no {name}")
    return getattr(module, name)


def find_file(key: str, text: str, folders: Sequence[Path]) -> Path:
    """A file, as it is named or in one of the folders.

    Raises:
        ConfigError: there is none.
    """
    places = [Path(text).expanduser(), *(folder / text for folder in folders)]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{key}={text}: no such file; looked for at {', '.join(map(str, places))}")


def check_signature(task_class: type, arguments: Sequence[str]) -> None:
    """Raise ConfigError unless a class can be built from these arguments, in this order.

    Args:
        task_class: the class.
        arguments: their names, but for the first one's, the configuration, which each class may call as it likes.
    """
    parameters = list(inspect.signature(task_class).parameters.values())
    names = [parameter.name for parameter in parameters]
    needed = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if names[1 : len(arguments)] != list(arguments[1:]) or len(needed) > len(arguments):
        raise ConfigError(
            f"task.env.taskClass={task_class.__name__}: is built from ({', '.join(names)}); this interface expects "
            f"({', '.join(arguments)})"
        )


def _file_module(key: str, text: str, place: str, folders: Sequence[Path]) -> ModuleType:
    file = find_file(key, place, folders).resolve()
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    return _module(key, text, file.stem, [file.parent])


def _module(key: str, text: str, name: str, folders: Sequence[Path]) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{key}={text}: cannot be imported: {error}") from error
    # Another repository with a package of the same name may have been there first.
    top = name.partition(".")[0]
    theirs = [folder for folder in folders if (folder / top).is_dir() or (folder / f"{top}.py").is_file()]
    file = Path(module.__file__ or "").resolve()
    if theirs and not file.is_relative_to(theirs[0].resolve()):
        raise ConfigError(f"{key}={text}: {top} of {file} is loaded already, not that of {theirs[0]}")
    return module
