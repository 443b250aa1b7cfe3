"""ρ = top [1 − progress / until]₊ exp(−α G)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require_number


@rule("scaled")
@dataclass(frozen=True)
class Scaled:
    """ρ = top [1 − progress / until]₊ exp(−α G): cheap rows first, none for the end, fewer where they harm.

    G says how much straighter the divergence grows than by chance (``Signals.gap``). It has no unit, so α fits every
    robot. The rule reads no seconds, so a seed repeats a run of so many iterations to the bit.

    Attributes:
        alpha: α.
        top: ρ at the beginning. The cheaper a low sample is, the nearer to 1 it may be.
        until: part of the run in which ρ falls to 0. What E_low teaches wrongly is then unlearnt in E_high.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"drift", "gap"})
    alpha: float
    top: float
    until: float

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf)
        require_number("top", self.top, 0.0, 1.0)
        require_number("until", self.until, 0.0, 1.0, open_low=True)

    def __call__(self, signals: Signals) -> float:
        left = max(1.0 - signals.progress / self.until, 0.0)
        return self.top * left * math.exp(-self.alpha * known(signals.gap))
