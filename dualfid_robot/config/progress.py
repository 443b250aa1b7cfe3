"""How far long work has come: redrawn in a terminal, and elsewhere a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from dualfid_robot.config.output import plain_console

LINE_INTERVAL = 10.0
"""Seconds between lines where the output is no terminal."""

_OTHERS = 14  # characters of a terminal's line for the spinner and the time

T = TypeVar("T")


def duration(seconds: float) -> str:
    """Seconds for a reader, such as 0:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _can_redraw(console: Console) -> bool:
    """Whether there is a terminal that can move its cursor. One with TERM=dumb, such as a notebook's, cannot."""
    return console.is_terminal and not console.is_dumb_terminal


class LivePanel:
    """Results that change, on standard output: a panel in a terminal, elsewhere a line."""

    def __init__(self) -> None:
        self.console = plain_console()
        self._live = Live(console=self.console, auto_refresh=False) if _can_redraw(self.console) else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal."""
        return self._live is not None

    def show(self, panel: Callable[[], RenderableType], line: Callable[[], str]) -> None:
        """Redraw the panel, or print the line."""
        if self._live is not None:
            self._live.update(panel(), refresh=True)
        else:
            self.console.print(line(), soft_wrap=True)


class Progress:
    """Work that takes a while, on standard error: what is done now, how much of it, and for how long.

    In a terminal it is a line that is redrawn. At the end it makes room for one that says how long all of it took.
    Elsewhere there are lines, and only of what takes longer than `LINE_INTERVAL`.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        """
        Args:
            what: the work, such as "evaluation".
            total: number of its steps. None means that nobody knows.
        """
        self._what, self._total = what, total
        self._step, self._stage = 0, ""
        self._started = self._last_line = time.monotonic()
        self._console = plain_console(stderr=True)
        self._bar = self._make_bar() if _can_redraw(self._console) else None
        self._has_shown = self._bar is not None

    def _make_bar(self) -> Bar:
        text = TextColumn("{task.description}", markup=False)
        columns: tuple[ProgressColumn, ...] = (SpinnerColumn(), text, TimeElapsedColumn())
        if self._total is not None:
            left = (TimeRemainingColumn(), TextColumn("left"))
            columns = (text, BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), *left)
        # What is printed meanwhile appears above, if it goes to the terminal too and not into a file.
        above = sys.stdout.isatty()
        return Bar(*columns, console=self._console, transient=True, redirect_stdout=above, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None and self._has_shown:
            self._console.print(f"{self._what}: took {duration(time.monotonic() - self._started)}", soft_wrap=True)

    def advance(self) -> None:
        """One more step is done."""
        self._step += 1
        self._show()

    def say(self, stage: str) -> None:
        """Name what begins now."""
        self._stage = stage
        self._show()

    def _show(self) -> None:
        description = ": ".join(text for text in (self._what, self._stage) if text)
        if self._bar is not None:
            room = self._console.width - _OTHERS
            shown = description if len(description) <= room else f"{description[: room - 1]}…"
            self._bar.update(self._task, description=shown, completed=self._step)
        elif time.monotonic() - self._last_line >= LINE_INTERVAL:
            elapsed = time.monotonic() - self._started
            texts = [description, f"{duration(elapsed)} so far"]
            if self._total is not None and self._step:
                left = elapsed / self._step * (self._total - self._step)
                texts[1:1] = [f"{self._step} of {self._total}"]
                texts.append(f"about {duration(left)} left")
            self._console.print(", ".join(texts), soft_wrap=True)
            self._last_line, self._has_shown = time.monotonic(), True


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, one after another, with a `Progress` of them. There may be fewer of them than `total`."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.advance()
