"""ρ = ρ_top (1 − progress)² exp(−α G)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import COSTS, Signals, known
from dualfid_robot.settings import require

UNKNOWN_RATIO = 0.4
"""k before it was measured."""


@rule("scaled")
@dataclass(frozen=True)
class Scaled:
    """ρ = ρ_top (1 − progress)² exp(−α G): cheap rows first, dear ones for the end, fewer cheap ones where they harm.

    ρ_top = 1 − k / 4 with k the cost of a low sample over that of a high one, the learner's part included. G says how
    much straighter the divergence grows than by chance (``Signals.gap``). It has no unit, so α fits every robot.
    """

    requires: ClassVar[frozenset[str]] = COSTS | {"drift", "gap"}
    alpha: float = 4.0

    def __post_init__(self) -> None:
        require(self.alpha >= 0.0, "alpha", self.alpha, "at least 0")

    def __call__(self, signals: Signals) -> float:
        ratio = (signals.cost_low + signals.cost_learner) / (signals.cost_high + signals.cost_learner)
        top = 1.0 - 0.25 * min(known(ratio, UNKNOWN_RATIO), 1.0)
        return top * (1.0 - signals.progress) ** 2 * math.exp(-self.alpha * known(signals.gap))
