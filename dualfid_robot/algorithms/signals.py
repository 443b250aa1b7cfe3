"""What is measured in every iteration, and what of it an allocation rule or the update may know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Signals:
    """Measured quantities, smoothed over iterations; NaN where one is not measured, or not yet.

    Attributes:
        divergence: D of the two policies on states visited in E_low, per action dimension.
        divergence_high: the same on states visited in E_high.
        cost_low, cost_high: measured seconds per environment step of each simulator.
        cost_learner: measured seconds per environment step of everything else.
        iteration: iterations done.
        progress: of the run, 0 at its beginning and 1 at its end.
        num_envs: N, environments of both fidelities together.
    """

    divergence: float = math.nan
    divergence_high: float = math.nan
    cost_low: float = math.nan
    cost_high: float = math.nan
    cost_learner: float = math.nan
    iteration: int = 0
    progress: float = 0.0
    num_envs: int = 0


_UNSMOOTHED = ("iteration", "progress", "num_envs")
MEASURED = frozenset(asdict(Signals())) - set(_UNSMOOTHED)
"""Names of the signals that are measurements."""
COSTS = frozenset({"cost_low", "cost_high", "cost_learner"})


def known(value: float, otherwise: float = 0.0) -> float:
    """The value, or another one where it is NaN: not measured yet."""
    return otherwise if math.isnan(value) else value


class SignalFilter:
    """Smooths measurements over iterations: x ← k · x + (1 − k) · x_measured; the first one stands as it is.

    Args:
        num_envs: N, of all processes together.
        smoothing: k; 0 is no smoothing.

    Attributes:
        signals: the present values.
    """

    def __init__(self, num_envs: int, smoothing: float) -> None:
        self.smoothing = smoothing
        self.signals = Signals(num_envs=num_envs)

    def update(self, measured: Mapping[str, float], iteration: int, progress: float) -> Signals:
        """Take in an iteration's measurements, by the names of ``Signals``; what was not measured stays what it is.

        Raises:
            FloatingPointError: a measurement is not finite.
        """
        values: dict[str, Any] = {name: self._smoothed(name, value) for name, value in measured.items()}
        self.signals = replace(self.signals, iteration=iteration, progress=progress, **values)
        return self.signals

    def _smoothed(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            raise FloatingPointError(f"the measured {name} is {value}: the policy itself is not finite")
        last: float = getattr(self.signals, name)
        return value if math.isnan(last) else self.smoothing * last + (1.0 - self.smoothing) * value

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.signals)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.signals = replace(self.signals, **state)
