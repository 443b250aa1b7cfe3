"""The files of one run of a study: what it is, what it has come to, and where it stands.

This module imports no torch: a worker that only waits for a run needs none.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.atomic import locked, write_text
from dualfid_robot.runs.metrics import METRICS

Status = Literal["finished", "failed", "running", "pending"]
ANY_GAP = "-"  # gap of a run that uses no low simulator: it stands in every gap that changes the low side only
_TAIL = 16384  # bytes of metrics.jsonl that hold its last line in any case


@dataclass(frozen=True)
class RunIdentity:
    """What a run is.

    Attributes:
        id: says so, with a digest of everything that the run depends on.
        gap: a gap, or `ANY_GAP`.
        budget: s of measured cost.
        reference: whether it is one of the reference's runs, which only set the scale of returns.
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
        path: the folder; its name is the run's id.
        metrics: the trainer's log, one line per iteration.
        checkpoint: what an interrupted run goes on from.
        log: everything that the run's process has printed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics, self.log = path / METRICS, path / "log.txt"
        self.checkpoint = path / "nn" / "last.pth"
        self._description, self._result, self._partial = (
            path / name for name in ("run.json", "result.json", "partial.json")
        )
        self._running = path / "running"

    def describe(self, description: dict[str, Any]) -> None:
        """Write what the run is; makes the folder."""
        (self.path / "nn").mkdir(parents=True, exist_ok=True)
        _write(self._description, description)

    def description(self) -> dict[str, Any]:
        """What `describe` wrote."""
        return _read(self._description)

    def result(self) -> dict[str, Any] | None:
        """What the run has come to; None before its end."""
        return _read(self._result) if self._result.is_file() else None

    def finish(self, result: dict[str, Any]) -> None:
        """Write the result, complete or not at all."""
        _write(self._result, result)
        self._partial.unlink(missing_ok=True)

    def forget_result(self) -> None:
        """Let a failed run be run again, from its start: what it had reached may be what made it fail."""
        for path in (self._result, self._partial, self.checkpoint, self.metrics):
            path.unlink(missing_ok=True)

    def partial(self) -> dict[str, Any]:
        """The points of the curve and the wall seconds so far, of a run that has not ended."""
        return _read(self._partial) if self._partial.is_file() else {"curve": [], "wall_seconds": 0.0}

    def save_partial(self, curve: list[dict[str, Any]], wall_seconds: float) -> None:
        """Keep the points of the curve so far."""
        _write(self._partial, {"curve": curve, "wall_seconds": wall_seconds})

    def last_lines(self, count: int) -> str:
        """The end of the log."""
        if not self.log.is_file():
            return ""
        return "\n".join([line for line in self.log.read_text(errors="replace").splitlines() if line.strip()][-count:])

    def status(self) -> Status:
        """Where the run stands."""
        result = self.result()
        if result is not None:
            return "finished" if result["status"] == "finished" else "failed"
        return "running" if self._running.is_file() else "pending"

    def last_metrics(self) -> dict[str, float]:
        """The last complete line of the trainer's log; empty before the first."""
        if not self.metrics.is_file():
            return {}
        with self.metrics.open("rb") as file:
            file.seek(max(self.metrics.stat().st_size - _TAIL, 0))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is not complete yet
        return json.loads(lines[-1]) if lines else {}

    def mark_running(self) -> None:
        self._running.touch()

    def unmark_running(self) -> None:
        self._running.unlink(missing_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """Held by the one process that runs this run; another waits until that one has ended."""
        return locked(self.path, f"run {self.path.name}", wait=True)


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A file of `_write`.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: damaged ({error}); remove it, and the run is done again") from error
    return content
