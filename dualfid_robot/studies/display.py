"""How far a study has come, read from its runs' folders."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dualfid_robot.config.progress import LivePanel, duration
from dualfid_robot.studies.run_folder import RunFolder, Status

_TERMINAL_INTERVAL, _LINE_INTERVAL = 2.0, 30.0  # s between looks at the folders


@dataclass(frozen=True)
class RunningRun:
    """A run that is running now.

    Attributes:
        cost, budget: s.
        last_return: mean return of the last episodes in training, in E_high if it has any. None before the first.
    """

    id: str
    cost: float
    budget: float
    last_return: float | None


@dataclass(frozen=True)
class Standing:
    """Where a study stands.

    Attributes:
        counts: runs by status.
        cost, remaining: s of measured cost spent, and still to spend.
    """

    counts: dict[Status, int]
    running: list[RunningRun]
    cost: float
    remaining: float


class ProgressReader:
    """Reads the folders. A run that has ended is read once."""

    def __init__(self, folders: Mapping[str, tuple[RunFolder, float]]) -> None:
        """
        Args:
            folders: by id, a run's folder and budget, s.
        """
        self._open = dict(folders)
        self._counts: dict[Status, int] = {"finished": 0, "failed": 0}
        self._cost = 0.0

    def read(self) -> Standing:
        """Where the study stands now."""
        counts: dict[Status, int] = {"running": 0, "pending": 0}
        running, cost, remaining = [], 0.0, 0.0
        for run, (folder, budget) in list(self._open.items()):
            status = folder.status()
            if status in ("finished", "failed"):
                self._counts[status] += 1
                self._cost += budget
                del self._open[run]
                continue
            counts[status] += 1
            metrics = folder.last_metrics()
            spent = min(metrics.get("cost_seconds", 0.0), budget)
            cost += spent
            remaining += budget - spent
            if status == "running":
                last = metrics.get("return/high", metrics.get("return/low"))
                running.append(RunningRun(run, spent, budget, last))
        return Standing(self._counts | counts, running, self._cost + cost, remaining)


class StudyDisplay(LivePanel):
    """A thread that redraws a panel in a terminal, or prints a line now and then elsewhere."""

    def __init__(self, title: str, folders: Mapping[str, tuple[RunFolder, float]]) -> None:
        """
        Args:
            folders: by id, a run's folder and budget, s.
        """
        super().__init__()
        self._title = title
        self._reader = ProgressReader(folders)
        self._started = time.monotonic()
        self._first = self._reader.read()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._show()
        super().__exit__(kind, value, trace)

    def _loop(self) -> None:
        while not self._ended.wait(_TERMINAL_INTERVAL if self.is_live else _LINE_INTERVAL):
            self._show()

    def _show(self) -> None:
        standing = self._reader.read()
        self.show(lambda: self._panel(standing), lambda: self._line(standing))

    def _panel(self, standing: Standing) -> Panel:
        table = Table.grid(padding=(0, 2))
        for run in standing.running:
            value = "-" if run.last_return is None else f"{run.last_return:.4g}"
            table.add_row(run.id, f"{run.cost:.0f} / {run.budget:.0f} s", f"return {value}")
        return Panel(Group(self._line(standing), table), title=Text(f"study {self._title}"), expand=False)

    def _line(self, standing: Standing) -> str:
        counts = standing.counts
        text = ", ".join(f"{counts[status]} {status}" for status in ("finished", "failed", "running", "pending"))
        pace = (standing.cost - self._first.cost) / (time.monotonic() - self._started)  # s of cost per second
        left = f"{duration(standing.remaining / pace)} left" if pace > 0.0 else "time left unknown"
        return f"{text} | {standing.cost:.0f} of {standing.cost + standing.remaining:.0f} s of cost | {left}"
