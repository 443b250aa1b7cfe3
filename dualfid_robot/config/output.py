"""What the program prints never ends it: not a closed terminal, a broken pipe, or a missing letter."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_SPELLED = {"ρ": "rho", "·": "-", "…": "...", "×": "x", "—": "-", "–": "-", "≥": ">=", "≤": "<=", "→": "->"}


def make_output_safe() -> None:
    """Let standard output and error take any text, and go on without a stream that cannot be written any more.

    Letters that an encoding lacks are spelled out where a spelling is known (ρ as rho). Others become a question mark.
    """
    codecs.register_error("spelled", _spell)
    sys.stdout, sys.stderr = (_safe(stream, number) for number, stream in ((1, sys.stdout), (2, sys.stderr)))


def plain_console(stderr: bool = False, width: int | None = None) -> Console:
    """A console that prints texts as they are, square brackets and colons included.

    Args:
        stderr: print to standard error.
        width: characters, where the output is no terminal.
    """
    from rich.console import Console  # a fifth of a second that `--help` does not need

    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if width is not None and not console.is_terminal:
        console.width = width
    return console


def _safe(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:  # it was closed before the program began: nothing else may get its number
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if stream.fileno() != number:
            os.dup2(stream.fileno(), number)
        return stream
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    encoding, line_buffering = stream.encoding, stream.line_buffering
    return SafeStream(stream.detach(), encoding=encoding, errors="spelled", line_buffering=line_buffering)


class SafeStream(io.TextIOWrapper):
    """A stream that turns into nothing when it cannot be written any more."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Let the descriptor lead nowhere, so that what is still in buffers does no harm at the end."""
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())
        if self.fileno() != 2 and sys.stderr is not None:
            print(f"the standard output cannot be written any more ({error.strerror}); going on", file=sys.stderr)


def _spell(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(_SPELLED.get(letter, "?") for letter in letters), error.end
