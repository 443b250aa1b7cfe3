"""Errors that a user can mend: they are printed as one line, and the program exits with status 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ConfigError(ValueError):
    """A setting, file or combination that cannot work. The message names the key, the value and what is allowed.

    It is one line, whatever the value is.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class KeysError(ConfigError):
    """Settings have a key too many or too few."""


class NotFiniteError(ConfigError):
    """A value that training computed is not finite: its settings, the task or the robot are the reason."""


@contextmanager
def as_written(path: Path, remedy: str = "") -> Iterator[None]:
    """While a file that the program has written itself is taken up.

    Args:
        path: the file.
        remedy: what its user can do.

    Raises:
        ConfigError: what was read is not what would have been written.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise ConfigError(f"{path}: damaged ({reason}){remedy and '; '}{remedy}") from error
