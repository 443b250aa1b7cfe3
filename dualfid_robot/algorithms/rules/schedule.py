"""ρ linear in the run's progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals
from dualfid_robot.settings import require_number


@rule("schedule")
@dataclass(frozen=True)
class Schedule:
    """ρ from ``start`` at the run's beginning linearly to ``end`` at its end, whatever is measured."""

    requires: ClassVar[frozenset[str]] = frozenset()
    start: float
    end: float

    def __post_init__(self) -> None:
        require_number("start", self.start, 0.0, 1.0)
        require_number("end", self.end, 0.0, 1.0)

    def __call__(self, signals: Signals) -> float:
        return self.start + (self.end - self.start) * signals.progress
