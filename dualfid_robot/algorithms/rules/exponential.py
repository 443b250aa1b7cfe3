"""ρ = exp(−α D)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require_number


@rule("exponential")
@dataclass(frozen=True)
class Exponential:
    """ρ = exp(−α D): 1 at D = 0, one half at D = ln 2 / α. Before any measurement the policies are equal, D = 0.

    The default α = 4 belongs to D per action dimension. For D as the sum over Ant's eight actions it is one half.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"divergence"})
    alpha: float

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf, open_low=True)

    def __call__(self, signals: Signals) -> float:
        return math.exp(-self.alpha * known(signals.divergence))
