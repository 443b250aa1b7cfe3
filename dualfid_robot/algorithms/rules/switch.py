"""ρ = 1, then 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals
from dualfid_robot.settings import require_number


@rule("switch")
@dataclass(frozen=True)
class Switch:
    """Train in the low fidelity until the progress ``at``, then in the high one: transfer by fine-tuning.

    Its YAML lets ρ jump from 1 to 0 in one iteration (rate_limit 1, bounds 0 and 1).
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    at: float

    def __post_init__(self) -> None:
        require_number("at", self.at, 0.0, 1.0)

    def __call__(self, signals: Signals) -> float:
        return 1.0 if signals.progress < self.at else 0.0
