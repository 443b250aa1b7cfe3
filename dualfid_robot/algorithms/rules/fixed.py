"""ρ = const."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals
from dualfid_robot.settings import require_number


@rule("fixed")
@dataclass(frozen=True)
class Fixed:
    """The same low share ρ in every iteration; 0 and 1 are the single-fidelity baselines."""

    requires: ClassVar[frozenset[str]] = frozenset()
    rho: float

    def __post_init__(self) -> None:
        require_number("rho", self.rho, 0.0, 1.0)

    def __call__(self, signals: Signals) -> float:
        return self.rho
