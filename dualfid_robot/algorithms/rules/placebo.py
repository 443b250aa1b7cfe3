"""ρ = exp(−α [D − D_placebo]₊)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals, known
from dualfid_robot.settings import require_number


@rule("placebo")
@dataclass(frozen=True)
class Placebo:
    """ρ = exp(−α [D − D_placebo]₊): only what D has beyond a placebo's counts.

    The optimiser moves an adapter on pure noise too, so D grows without any difference between the fidelities. The
    placebo adapter has the same shape, optimiser and amount of data, but its data are low ones: its divergence is what
    no gap looks like.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"divergence", "divergence_placebo"})
    alpha: float = 4.0

    def __post_init__(self) -> None:
        require_number("alpha", self.alpha, 0.0, math.inf, open_low=True)

    def __call__(self, signals: Signals) -> float:
        return math.exp(-self.alpha * max(known(signals.divergence) - known(signals.divergence_placebo), 0.0))
