"""The files of one run of a study: its description, its result and its progress.

This module does without torch, because a worker that only waits for a run needs none.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dualfid_robot.atomic import locked, write_text
from dualfid_robot.errors import as_written
from dualfid_robot.runs.metrics import METRICS

Status = Literal["finished", "failed", "running", "pending"]
NO_CHANGE = "default"  # a gap without a file in cfg/gap: the task's own two simulators
ANY_GAP = "-"  # gap of a run without a low simulator, which counts in every gap that changes only the low side
_TAIL = 16384  # bytes that always hold the last line of metrics.jsonl


@dataclass(frozen=True)
class RunIdentity:
    """The identity of a run.

    Attributes:
        id: names all of this, with a digest of everything that the run depends on.
        gap: a gap, or `ANY_GAP`.
        budget: s of measured cost.
        reference: whether it is a reference run, which only sets the scale of returns.
    """

    id: str
    task: str
    method: str
    gap: str
    budget: float
    seed: int
    reference: bool


class RunFolder:
    """`runs/<id>/` of a study.

    Attributes:
        path: the folder, named by the run's id.
        metrics: the trainer's log, one line per iteration.
        checkpoint: what an interrupted run goes on from.
        log: everything that the run's process has printed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.log = path / METRICS, path / "log.txt"
        self.checkpoint = path / "nn" / "last.pth"
        self._description, self._result, self._partial, self._made_of = (
            path / name for name in ("run.json", "result.json", "partial.json", "made_of.json")
        )
        self._running = path / "running"

    def describe(self, description: dict[str, Any]) -> None:
        """Make the folder and write the run's description."""
        (self.path / "nn").mkdir(parents=True, exist_ok=True)
        _write(self._description, description)

    def description(self) -> dict[str, Any]:
        """The description that `describe` wrote."""
        return _read(self._description)

    def result(self) -> dict[str, Any] | None:
        """The run's result, None before its end."""
        return _read(self._result) if self._result.is_file() else None

    def made_of(self) -> dict[str, Any] | None:
        """Digests of the robot and the task's code that the run was made with. None where it has none."""
        return _read(self._made_of) if self._made_of.is_file() else None

    def save_made_of(self, digests: dict[str, Any]) -> None:
        _write(self._made_of, digests)

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, complete or not at all."""
        _write(self._result, result)
        self._partial.unlink(missing_ok=True)

    def forget_result(self) -> None:
        """Let a failed run start again from its beginning, because its saved state may be what made it fail."""
        for path in (self._result, self._partial, self.checkpoint, self.metrics):
            path.unlink(missing_ok=True)

    def partial(self) -> dict[str, Any]:
        """The points of the curve and the wall seconds so far of an unfinished run."""
        return _read(self._partial) if self._partial.is_file() else {"curve": [], "wall_seconds": 0.0}

    def save_partial(self, curve: list[dict[str, Any]], wall_seconds: float) -> None:
        """Keep the points of the curve so far."""
        _write(self._partial, {"curve": curve, "wall_seconds": wall_seconds})

    def last_lines(self, count: int) -> str:
        """The end of the log."""
        if not self.log.is_file():
            return ""
        return "\n".join(
            [line for line in self.log.read_text("utf-8", errors="replace").splitlines() if line.strip()][-count:]
        )

    def status(self) -> Status:
        """How far the run has come."""
        result = self.result()
        if result is not None:
            return "finished" if result["status"] == "finished" else "failed"
        return "running" if self._running.is_file() else "pending"

    def last_metrics(self) -> dict[str, float]:
        """The last complete line of the trainer's log, empty before the first and where it is damaged."""
        if not self.metrics.is_file():
            return {}
        with self.metrics.open("rb") as file:
            file.seek(max(self.metrics.stat().st_size - _TAIL, 0))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is not complete yet
        try:
            return dict(json.loads(lines[-1])) if lines else {}
        except (ValueError, TypeError):
            return {}

    def mark_running(self) -> None:
        self._running.touch()

    def unmark_running(self) -> None:
        self._running.unlink(missing_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """A lock of the process that executes this run. Another process waits until that one has ended."""
        return locked(self.path, f"run {self.path.name}", wait=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A file of `_write`.

    Raises:
        ConfigError: it is damaged.
    """
    with as_written(path, "remove it, and the run is done again"):
        return dict(json.loads(path.read_text(encoding="utf-8")))
