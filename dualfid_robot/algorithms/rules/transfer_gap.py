"""ρ = exp(−α [Ĝ / σ_A]₊ − β D)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require_number


@rule("transfer_gap")
@dataclass(frozen=True)
class TransferGap:
    """ρ = exp(−α [Ĝ / σ_A]₊ − β D), D = ½ (D_low + D_high): what the base policy would lose in the high fidelity.

    D counts any difference between actions, also where the return does not depend on it; Ĝ counts only what the
    advantage in the high fidelity says is lost. With e_clip = 0.2 it is at most about 0.16, so the default α = 14
    (one half at Ĝ / σ_A = 0.05) spans the range. ``beta`` = 0 is Ĝ alone.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"divergence", "divergence_high", "transfer_gap"})
    alpha: float = 14.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf, open_low=True)
        require_number("beta", self.beta, 0.0, math.inf)

    def __call__(self, signals: Signals) -> float:
        divergence = 0.5 * (known(signals.divergence) + known(signals.divergence_high))
        return math.exp(-self.alpha * max(known(signals.transfer_gap), 0.0) - self.beta * divergence)
