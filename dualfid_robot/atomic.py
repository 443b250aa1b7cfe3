"""Files that are complete or absent at any moment, whoever else writes them, and folders that one process writes to."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualfid_robot.errors import ConfigError

LOCK = "lock"  # name of the file that a process holds while it writes to a folder


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. Once the block has ended, it is synchronised and takes the place of `path`.

    The path is another one for each writer, with the ending of `path`. After an error it is removed, and `path` is what
    it was.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.partial.{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is complete or absent at any moment.

    Raises:
        OSError: it cannot be written.
    """
    with replaced(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def remove_partial(folder: Path, pattern: str) -> None:
    """Remove what a killed process had not finished writing; only for the one that holds the folder's lock.

    Args:
        folder: where.
        pattern: of the files that `replaced` was to write.
    """
    for path in folder.glob(f".{'[0-9a-f]' * 32}.partial.{pattern}"):
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, setting: str, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing to a folder; the lock ends with this process, however that ends.

    Args:
        folder: where the file `lock` is; its text says who holds it.
        setting: what named the folder, in errors.
        wait: whether to wait for another process instead of refusing.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the folder cannot be written.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ConfigError(f"{setting}: {holder} is writing to {folder}; wait until it has ended") from error
        try:
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder / LOCK)) from error
        yield


def is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder; tried, since permissions do not tell of read-only and full disks."""
    try:
        _try_to_write(folder)
    except OSError:
        return False
    return True


def require_writable(folder: Path) -> None:
    """Find out before long work whether its results can be written: to a folder, or the nearest above it that exists.

    Raises:
        OSError: no file can be made there.
    """
    _try_to_write(next(path for path in (folder, *folder.absolute().parents) if path.exists()))


def _try_to_write(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
