"""An operator's commands to a running policy, from a file or from the keys of a terminal."""

from __future__ import annotations

import csv
import itertools
import math
import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from dualfid_robot.command import Command
from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Metadata

_KEYS = (("w", "s"), ("a", "d"), ("q", "e"), ("r", "f"), ("t", "g"))  # more and less of each command
_ZERO_KEY = " "
_KEY_STEPS = 20  # key presses from one end of a command's range to the other


class Operator:
    """The commands in force, on all robots alike.

    Attributes:
        commands: what can be commanded.
        values: by name. A missing one stays as it was when the episode began.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.commands = {command.name: command for command in metadata.commands}
        self.values: dict[str, float] = {}

    def write(self, memory: Mapping[str, np.ndarray]) -> None:
        """Write the commands into the policy's memory."""
        for name, value in self.values.items():
            command = self.commands[name]
            memory[command.memory][:, command.column] = value


class Source(Protocol):
    """Where commands come from."""

    def update(self, operator: Operator, time: float) -> None:
        """Set the commands for a time, s since the episode began."""


class CommandFile:
    """Commands of a CSV file, with a column `time` (s) and one per command. A row holds until the next."""

    def __init__(self, path: Path, metadata: Metadata) -> None:
        """Read a file.

        Raises:
            ConfigError: the file is missing, or a value in it is no number, unknown, or outside the trained range.
        """
        commands = {command.name: command for command in metadata.commands}
        setting = f"commands={path}"
        if not path.is_file():
            raise ConfigError(f"{setting}: no such file")
        with path.open(newline="") as file:
            header, *lines = [[field.strip() for field in row] for row in csv.reader(file) if row] or [[]]
        if not header or header[0] != "time" or len(set(header)) != len(header):
            raise ConfigError(f"{setting}: the first line must be `time` and the names of commands, each once")
        unknown = [name for name in header[1:] if name not in commands]
        if unknown:
            raise ConfigError(f"{setting}: no command {unknown[0]}; this policy has {list(commands) or 'none'}")
        rows = [
            _row(values, [commands[name] for name in header[1:]], f"{setting}: row {number}")
            for number, values in enumerate(lines, 2)
        ]
        if any(later[0] <= earlier[0] for earlier, later in itertools.pairwise(rows)):
            raise ConfigError(f"{setting}: times must rise from row to row")
        self._times = [row[0] for row in rows]
        self._values = [dict(zip(header[1:], row[1:], strict=True)) for row in rows]

    def update(self, operator: Operator, time: float) -> None:
        # A millionth of a second early, because control periods add up with rounding.
        row = int(np.searchsorted(self._times, time + 1e-6, "right")) - 1
        operator.values = self._values[row] if row >= 0 else {}


def _row(fields: list[str], commands: list[Command], where: str) -> list[float]:
    if len(fields) != len(commands) + 1:
        raise ConfigError(f"{where}: has {len(fields)} values, the first line has {len(commands) + 1}")
    names = ["time", *(command.name for command in commands)]
    row = []
    for name, text in zip(names, fields, strict=True):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ConfigError(f"{where}: {name}={text}: a number is expected")
        row.append(value)
    for command, value in zip(commands, row[1:], strict=True):
        check_command(command, value, where)
    return row


def check_command(command: Command, value: float, where: str) -> None:
    """Raise ConfigError for a command outside the trained range."""
    if not command.low <= value <= command.high:
        raise ConfigError(
            f"{where}: {command.name}={value:g}: must be a number in [{command.low:g}, {command.high:g}], which was "
            "trained"
        )


class Keyboard:
    """Keys of the terminal, while this is open. Each command has a pair for more and less. The space bar sets zero."""

    def __init__(self, metadata: Metadata) -> None:
        """Check that the policy takes commands and that there is a terminal.

        Raises:
            ConfigError: one of them is missing.
        """
        if not metadata.commands:
            raise ConfigError("commands=keyboard: this policy has no commands")
        if len(metadata.commands) > len(_KEYS):
            raise ConfigError(f"commands=keyboard: there are keys for {len(_KEYS)} commands; use a file")
        if not sys.stdin.isatty():
            raise ConfigError("commands=keyboard: the standard input is not a terminal")
        self._changes = {
            key: (command, sign * (command.high - command.low) / _KEY_STEPS)
            for command, pair in zip(metadata.commands, _KEYS, strict=False)
            for key, sign in zip(pair, (1.0, -1.0), strict=True)
        }
        self._commands = metadata.commands

    def help(self) -> str:
        """The keys, in one line."""
        pairs = zip(self._commands, _KEYS, strict=False)
        return "keys: " + ", ".join(f"{more}/{less} {c.name}" for c, (more, less) in pairs) + ", space bar: zero"

    def __enter__(self) -> Self:
        import termios  # Windows has neither
        import tty

        self._terminal = sys.stdin.fileno()
        self._mode = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios

        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._mode)

    def update(self, operator: Operator, time: float) -> None:
        if select.select([self._terminal], [], [], 0.0)[0]:
            for key in os.read(self._terminal, 256).decode(errors="ignore"):
                self.press(key, operator)

    def press(self, key: str, operator: Operator) -> None:
        """Apply a key. Unknown keys do nothing."""
        if key == _ZERO_KEY:
            for command in self._commands:
                operator.values[command.name] = min(max(0.0, command.low), command.high)
        elif key in self._changes:
            command, change = self._changes[key]
            value = operator.values.get(command.name, 0.0) + change
            operator.values[command.name] = min(max(value, command.low), command.high)
