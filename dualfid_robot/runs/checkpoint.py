"""Checkpoints: one file that holds everything, replaced atomically, read without executing code."""

from __future__ import annotations

import io
import json
import logging
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfid_robot.atomic import is_writable, write_bytes
from dualfid_robot.config.values import with_later_settings
from dualfid_robot.errors import ConfigError, KeysError

logger = logging.getLogger(__name__)

FORMAT = "0.3"
_SUFFIX = ".pth"
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, pickle.UnpicklingError, EOFError, RuntimeError),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError),
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (nested dicts and lists of tensors, arrays, numbers and strings) to `path`.

    The file is complete or absent at any moment.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()  # torch would turn an error of the disk into one of its own
    torch.save({"format": FORMAT} | _with_tensors(state), content)
    write_bytes(path, content.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        ConfigError: the file does not exist, is damaged, is no checkpoint of this program, or of another format.
    """
    path = resolve_checkpoint(path)
    try:
        # torch does not compare what it reads with the sums that it has written.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"checkpoint={path}: cannot be read ({error.strerror})") from error
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"checkpoint={path}: damaged, or no checkpoint ({reason[:120]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("format"), str | int):
        raise ConfigError(f"checkpoint={path}: not written by dualfid_robot")
    if state["format"] != FORMAT:
        raise ConfigError(
            f"checkpoint={path}: has format {state['format']}; this version reads format {FORMAT} alone, so train again"
        )
    return state


def saved_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved settings of the run that a checkpoint is of, those included that have come since."""
    return with_later_settings(json.loads(state["settings"]))


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """While a checkpoint's content is taken up: what does not fit is an error in one line.

    Raises:
        ConfigError: a part is missing, or of another shape or type than what is to go on from it.
    """
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"checkpoint={path}: damaged, or of another robot or network ({reason[:200]})") from error


@contextmanager
def of_this_version(path: Path | str) -> Iterator[None]:
    """While the settings of a checkpoint become a run's: where keys differ, the error says what may be the reason.

    Raises:
        ConfigError: a setting is missing, or is none.
    """
    try:
        yield
    except KeysError as error:
        raise ConfigError(
            f"checkpoint={path}: {error}; a checkpoint of another version of this program may have other settings"
        ) from error


def resolve_checkpoint(path: Path) -> Path:
    """The file that a user means: the path itself, with its suffix, or `nn/last` of a run's folder.

    Raises:
        ConfigError: none of these exists.
    """
    for candidate in (
        path,
        Path(f"{path}{_SUFFIX}"),
        path / f"last{_SUFFIX}",
        path / "nn" / f"last{_SUFFIX}",
    ):
        if candidate.is_file():
            return candidate
    raise ConfigError(f"checkpoint={path}: no such file")


def output_folder(checkpoint: Path, name: str) -> Path:
    """Where what is made of a checkpoint goes: `name` in the run's folder, or beside a checkpoint that lies elsewhere.

    Where these cannot be written, it is `<run>_<name>` in the current folder, which is announced.
    """
    run = checkpoint.parent.parent if checkpoint.absolute().parent.name == "nn" else checkpoint.parent
    if is_writable(run):
        return run / name
    logger.warning("%s cannot be written: results go to %s", run, Path.cwd())
    return Path(f"{run.absolute().name}_{name}")


def _with_tensors(value: Any) -> Any:
    """The same structure with tensors for arrays: those load without pickled code."""
    if isinstance(value, dict):
        return {key: _with_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_tensors(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return value
