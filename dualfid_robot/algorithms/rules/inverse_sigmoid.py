"""ρ = k / (k + exp(α D))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require_number


@rule("inverse_sigmoid")
@dataclass(frozen=True)
class InverseSigmoid:
    """ρ = k / (k + exp(α D)), the inverse sigmoid decay of scheduled sampling (Bengio et al., arXiv 1506.03099), in D.

    k / (k + 1) at D = 0 and one half at D = ln k / α. The curve is flat while the policies agree, then steep. The
    defaults put the half where the exponential rule's default has it, D ≈ 0.17.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"divergence"})
    alpha: float
    k: float

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf, open_low=True)
        require_number("k", self.k, 1.0, math.inf)

    def __call__(self, signals: Signals) -> float:
        # exp(−x) instead of exp(x): a large divergence underflows to ρ = 0 instead of overflowing
        decay = self.k * math.exp(-self.alpha * known(signals.divergence))
        return decay / (decay + 1.0)
