"""What is measured in every iteration, and what of it an allocation rule or the update may know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dualfid_robot.errors import NotFiniteError


@dataclass(frozen=True)
class Signals:
    """Measured quantities, smoothed over iterations. One is NaN where it is not measured, or not yet.

    Attributes:
        divergence: D of the two policies on states visited in E_low, per action dimension.
        divergence_high: the same on states visited in E_high.
        drift: V, how much straighter than by chance the adapter moves, see ``Drift``; 1 without a gap.
        gap: G, the excess of V over what is seen without a gap. It rises at once and falls slowly.
        agreement: z, whether E_low pulls the policy the way that E_high does, see ``agreement``; 0 by chance.
        evidence: T, the sum of z so far that E_low helps, less than 0 where it misleads.
        cost_low, cost_high: measured cost of an environment step of each simulator, price · seconds.
        cost_learner: measured cost of everything else per environment step.
        iteration: iterations done.
        progress: of the run, 0 at its beginning and 1 at its end.
        num_envs: N, environments of both fidelities together.
        price: of a second of E_high over that of the dearest other second.
    """

    divergence: float = math.nan
    divergence_high: float = math.nan
    drift: float = math.nan
    gap: float = math.nan
    agreement: float = math.nan
    evidence: float = math.nan
    cost_low: float = math.nan
    cost_high: float = math.nan
    cost_learner: float = math.nan
    iteration: int = 0
    progress: float = 0.0
    num_envs: int = 0
    price: float = 1.0


WITHOUT_GAP = 1.5
"""The greatest V that is usual between equal simulators."""
RELEASE = 0.95
"""What is left of G at the next measurement of a lower V. Where ρ is 0 a gap cannot be seen, so it is not forgotten."""
ALLOWANCE = 0.5
"""What z may be below 0 at each measurement for T to stay: half of the shift that shall be noticed (Page 1954)."""
MOST_EVIDENCE = 8.0
"""T goes no higher, so that what changes later is noticed too. A lower bound has false alarms in long runs."""
FORGOTTEN = 0.998
"""What is left of a T below 0 after an iteration that measured no z. So E_low gets another try in the end."""
_UNSMOOTHED = ("iteration", "progress", "num_envs", "price")
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
        price: of a second of E_high over that of the dearest other second.

    Attributes:
        signals: the present values.
    """

    def __init__(self, num_envs: int, smoothing: float, price: float = 1.0) -> None:
        self.smoothing = smoothing
        self.signals = Signals(num_envs=num_envs, price=price)

    def update(self, measured: Mapping[str, float], iteration: int, progress: float) -> Signals:
        """Take in an iteration's measurements. What was not measured stays what it is.

        Args:
            measured: values by the names of ``Signals``.
            iteration: iterations done.
            progress: of the run.

        Raises:
            NotFiniteError: a measurement is not finite.
        """
        values: dict[str, Any] = {name: self._smoothed(name, value) for name, value in measured.items()}
        if "drift" in measured:
            values["gap"] = max(measured["drift"] - WITHOUT_GAP, RELEASE * known(self.signals.gap), 0.0)
        evidence = known(self.signals.evidence)
        if "agreement" in measured:
            values["evidence"] = min(evidence + measured["agreement"] + ALLOWANCE, MOST_EVIDENCE)
        elif evidence < 0.0:
            values["evidence"] = FORGOTTEN * evidence
        self.signals = replace(self.signals, iteration=iteration, progress=progress, **values)
        return self.signals

    def _smoothed(self, name: str, value: float) -> float:
        if not math.isfinite(value):
            raise NotFiniteError(f"the measured {name} is {value}: the policy itself is not finite")
        last: float = getattr(self.signals, name)
        return value if math.isnan(last) else self.smoothing * last + (1.0 - self.smoothing) * value

    def state_dict(self) -> dict[str, Any]:
        # a setting, which a resumed run has anew, and not a state
        return {name: value for name, value in asdict(self.signals).items() if name != "price"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.signals = replace(self.signals, **state)
