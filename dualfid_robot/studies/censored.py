"""Costs of runs of which some end before they get there: right-censored data.

Sources: Kaplan & Meier 1958 (the survival function and its median). Efron 1981, Censored Data and the Bootstrap (a run
is drawn together with whether it got there).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dualfid_robot.studies.statistics import CONFIDENCE, MIN_RUNS, REPETITIONS


@dataclass(frozen=True)
class Costs:
    """What runs of one method paid to reach a return.

    Attributes:
        paid: (runs,) cost at which a run got there, or all that it spent without getting there.
        reached: (runs,) bool, which is the case.
    """

    paid: np.ndarray
    reached: np.ndarray

    @property
    def share(self) -> float:
        """Share of runs that got there."""
        return float(self.reached.mean())

    @property
    def median(self) -> float:
        """Kaplan and Meier's median. It is infinite where it lies beyond what the runs spent."""
        return float(_medians(self.paid[None], self.reached[None])[0])

    @property
    def largest(self) -> float:
        """The most that a run paid; where the median is infinite, it is above this."""
        return float(self.paid.max())


@dataclass(frozen=True)
class CostRatio:
    """A ratio of two median costs.

    Attributes:
        value: the ratio, or its bound.
        bound: what value is. It is empty for the ratio itself. ">" is a lower bound, since too few of our runs got
            there. "<" is an upper bound, since too few of theirs did.
        low, high: of the 95% interval. `high` is infinite where the interval has no end; NaN: there is no interval.
    """

    value: float
    bound: Literal["", ">", "<"] = ""
    low: float = float("nan")
    high: float = float("nan")


def ratio_of_medians(ours: Costs, theirs: Costs) -> CostRatio | None:
    """The median cost of one method over that of another, without an interval.

    Returns:
        None where neither method has a median, or the other's is 0.
    """
    mine, other = ours.median, theirs.median
    if other == 0.0 or (np.isinf(mine) and np.isinf(other)):
        return None
    if np.isinf(mine):
        return CostRatio(ours.largest / other, ">")
    if np.isinf(other):
        return CostRatio(mine / theirs.largest, "<")
    return CostRatio(mine / other)


def cost_ratio(ours: Costs, theirs: Costs, repetitions: int = REPETITIONS, seed: int = 0) -> CostRatio | None:
    """The ratio of medians (see `ratio_of_medians`), with its 95% interval by the bootstrap.

    It has an interval where it is no bound and both methods have enough runs.

    Where a draw's median of the other method is infinite, the most that was paid stands for it. That makes the ratio
    too large rather than too small.
    """
    found = ratio_of_medians(ours, theirs)
    if found is None or found.bound or min(len(ours.paid), len(theirs.paid)) < MIN_RUNS:
        return found
    generator = np.random.default_rng(seed)
    drawn = []
    for costs in (ours, theirs):
        picks = generator.integers(len(costs.paid), size=(repetitions, len(costs.paid)))
        paid = costs.paid[picks]
        medians = _medians(paid, costs.reached[picks])
        drawn.append(medians if costs is ours else np.where(np.isinf(medians), paid.max(axis=1), medians))
    tail = (1 - CONFIDENCE) / 2
    # Infinite draws have no mean with others, so the quantiles are draws themselves.
    low, high = np.quantile(drawn[0] / np.maximum(drawn[1], 1e-12), [tail, 1 - tail], method="inverted_cdf")
    return CostRatio(found.value, "", float(low), float(high))


def _medians(paid: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Kaplan and Meier's median of each row of (rows, runs).

    It is the first cost at which no more than half are left.
    """
    order = np.lexsort((~reached, paid), axis=-1)  # of equal costs those that got there come first
    paid, reached = (np.take_along_axis(values, order, axis=-1) for values in (paid, reached))
    at_risk = np.arange(paid.shape[-1], 0, -1)
    half = np.cumprod(1.0 - reached / at_risk, axis=-1) <= 0.5 + 1e-12
    first = np.argmax(half, axis=-1)[..., None]
    return np.where(half.any(axis=-1), np.take_along_axis(paid, first, axis=-1)[..., 0], np.inf)
