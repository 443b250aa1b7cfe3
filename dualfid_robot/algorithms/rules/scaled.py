"""ρ = (1 − ((1 − top) / price)^τ) · left(progress) · exp(−α G)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require, require_number

_MISTRUSTED, _TRUSTED = -2.0, 4.0
"""T at which τ is 0 and 1."""
_ROUNDING = 1e-9


@rule("scaled")
@dataclass(frozen=True)
class Scaled:
    """ρ = (1 − ((1 − top) / price)^τ) · left · exp(−α G): cheap rows where they help, and none for the end.

    τ is the trust in E_low: 0 where T is −2 or less, 1 from T = 4 on, and linear between (``Signals.evidence``). A run
    begins at τ = ⅓, with many rows in either simulator. There the first iterations tell whether E_low's gradient is
    E_high's. Then ρ is about top, or 0.

    left is 1 until progress ``hold``, and then falls linearly to 0 at ``until``. What E_low teaches wrongly is unlearnt
    after that. G says how much straighter the divergence grows than by chance (``Signals.gap``). T and G have no unit,
    so the rule fits every robot. It reads no seconds, so a seed repeats a run of so many iterations to the bit.

    A step of E_high costs something however few its rows. So less than 1 − top of them come seldom and not few: in some
    iterations ρ is top, and in the others 1, as often as gives the same mean.

    Attributes:
        alpha: α.
        top: the most of ρ where all seconds have one price. An E_high that is so many times dearer gets so many times
            fewer rows, hence the same part of the cost.
        hold: progress until which ρ stays.
        until: progress from which ρ is 0.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"drift", "gap", "agreement", "evidence"})
    alpha: float
    top: float
    hold: float
    until: float

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf)
        require_number("top", self.top, 0.0, 1.0)
        require_number("hold", self.hold, 0.0, 1.0)
        require(self.hold < self.until <= 1.0, "until", self.until, f"more than hold={self.hold}, and 1 at most")

    def __call__(self, signals: Signals) -> float:
        scarce = 1.0 - self.top
        trust = (known(signals.evidence) - _MISTRUSTED) / (_TRUSTED - _MISTRUSTED)
        least_high = scarce / signals.price if signals.price > scarce else 1.0
        high = least_high ** min(max(trust, 0.0), 1.0)
        left = min(max((self.until - signals.progress) / (self.until - self.hold), 0.0), 1.0)
        rho = (1.0 - high) * left * math.exp(-self.alpha * known(signals.gap))
        often = (1.0 - rho) / scarce if scarce else 1.0
        if often > 1.0 - _ROUNDING:
            return rho
        # the mean share so far passes another 1 − top in this iteration, or does not
        before, after = (math.floor((signals.iteration + half) * often) for half in (-0.5, 0.5))
        return self.top if after > before else 1.0
