"""ρ = ρ_top exp(−α [D / S − 1]₊)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import COSTS, Signals, known
from dualfid_robot.settings import require_number


@rule("scaled")
@dataclass(frozen=True)
class Scaled:
    """ρ = ρ_top exp(−α [D / S − 1]₊), with D in units of what has proved harmless (``DivergenceScale``).

    ρ_top = 1 − ¼ (c_low + c_learner) / (c_high + c_learner): the cheaper a low sample is, the more rows begin low. It
    is at least one half, and 0.9 until costs are known.
    """

    requires: ClassVar[frozenset[str]] = COSTS | {"divergence", "divergence_high", "relative_divergence"}
    alpha: float = 1.0

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf, open_low=True)

    def __call__(self, signals: Signals) -> float:
        ratio = (signals.cost_low + signals.cost_learner) / (signals.cost_high + signals.cost_learner)
        top = max(1.0 - 0.25 * known(ratio, 0.4), 0.5)
        return top * math.exp(-self.alpha * max(known(signals.relative_divergence, 1.0) - 1.0, 0.0))
