"""Statistics of a few runs on several tasks: aggregates, their uncertainty, comparisons of two methods.

A stratum holds the runs of one method in one place (a task in one gap at one budget). It is an array whose first axis
is runs. Methods are compared in the same strata. Runs are resampled within strata only. An interval therefore says what
other seeds would give, and nothing of other tasks. A method without a low simulator has the same runs in several
strata, one for each gap. The same array object is drawn only once.

Sources: Agarwal et al. 2021, arXiv 2108.13264 (interquartile mean, stratified bootstrap, probability of improvement).
Its program is `rliable`, with which the tests compare. Efron & Tibshirani 1993, An Introduction to the Bootstrap,
chapter 13 (percentile interval). Mann & Whitney 1947 (U). Phipson & Smyth 2010 (p-values of sampled permutations). Holm
1979.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

REPETITIONS = 50_000  # rliable's default for tables
CONFIDENCE = 0.95
MIN_RUNS = 3  # fewer in any stratum give no interval, and even three a too narrow one ("Coverage" in docs/studies.md)
_CHUNK = 1 << 21  # resampled numbers that are held at once

Strata = Sequence[np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval. `low` and `high` are NaN for too few runs."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


def interquartile_mean(scores: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half, without a quarter of the scores (rounded down) at each end (arXiv 2108.13264, §4.3).

    Fewer than four scores give their mean.
    """
    return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))


def aggregate(
    strata: Strata,
    statistic: Callable[[np.ndarray, int], np.ndarray] = interquartile_mean,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """A statistic of all runs of all strata together, and its 95% interval by the stratified bootstrap.

    Args:
        strata: (runs,) each.
        statistic: of an array along an axis.
    """
    value = float(statistic(np.concatenate(strata), 0))
    if not enough(strata):
        return Estimate(value)
    low, high = bootstrap_interval(strata, statistic, repetitions, seed)
    return Estimate(value, float(low), float(high))


def enough(*groups: Strata) -> bool:
    """Whether every stratum has the runs that an interval needs."""
    return all(len(stratum) >= MIN_RUNS for strata in groups for stratum in strata)


def bootstrap_interval(
    strata: Strata,
    statistic: Callable[[np.ndarray, int], np.ndarray] = interquartile_mean,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> np.ndarray:
    """Percentile interval of a statistic when runs are drawn anew, with replacement, within each stratum.

    Args:
        strata: (runs, ...) each, such as (runs,) scores or (runs, points) curves.
        statistic: of an array along an axis.

    Returns:
        (2, ...): lower and upper bound.
    """
    generator = np.random.default_rng(seed)
    size = sum(stratum.size for stratum in strata)
    found = []
    for count in _chunks(repetitions, size):
        picks = _draws(generator, strata, count)
        drawn = [stratum[pick] for stratum, pick in zip(strata, picks, strict=True)]
        found.append(statistic(np.concatenate(drawn, axis=1), 1))
    return _percentiles(np.concatenate(found), confidence)


def difference(ours: Strata, theirs: Strata, repetitions: int = REPETITIONS, seed: int = 0) -> Estimate:
    """Interquartile mean of one method less that of another, and its 95% interval by the stratified bootstrap."""
    return _compared(np.subtract, ours, theirs, repetitions, seed)


def ratio(ours: Strata, theirs: Strata, repetitions: int = REPETITIONS, seed: int = 0) -> Estimate:
    """Interquartile mean of one method over that of another, and its 95% interval by the stratified bootstrap.

    NaN where the other's is not positive; no interval where one of its runs is not.
    """
    if interquartile_mean(np.concatenate(theirs)) <= 0.0:
        return Estimate(float("nan"))
    if min(float(stratum.min()) for stratum in theirs) <= 0.0:
        return Estimate(float(interquartile_mean(np.concatenate(ours)) / interquartile_mean(np.concatenate(theirs))))
    return _compared(np.divide, ours, theirs, repetitions, seed)


def _compared(combine: np.ufunc, ours: Strata, theirs: Strata, repetitions: int, seed: int) -> Estimate:
    """Both interquartile means, combined."""
    both = [*ours, *theirs]
    middle = sum(len(stratum) for stratum in ours)

    def statistic(scores: np.ndarray, axis: int) -> np.ndarray:
        left, right = np.split(scores, [middle], axis=axis)
        return np.asarray(combine(interquartile_mean(left, axis), interquartile_mean(right, axis)))

    value = float(statistic(np.concatenate(both), 0))
    if not enough(ours, theirs):
        return Estimate(value)
    low, high = bootstrap_interval(both, statistic, repetitions, seed)
    return Estimate(value, float(low), float(high))


def probability_of_improvement(ours: Strata, theirs: Strata, paired: bool = False) -> float:
    """P(X > Y) + P(X = Y)/2 of a run of each method, averaged over strata: Mann and Whitney's U/(mn).

    Args:
        ours, theirs: (runs,) each.
        paired: compare only runs in the same place of both arrays (the same seed), not every run with every other.
    """
    return float(np.mean([_wins(x, y, paired).mean() for x, y in zip(ours, theirs, strict=True)]))


def improvement(
    ours: Strata, theirs: Strata, paired: bool = False, repetitions: int = REPETITIONS, seed: int = 0
) -> Estimate:
    """The probability of improvement and its 95% interval by the stratified bootstrap (arXiv 2108.13264, §4.3).

    Runs of both methods are drawn independently, paired runs as pairs.
    """
    value = probability_of_improvement(ours, theirs, paired)
    if not enough(ours, theirs):
        return Estimate(value)
    generator = np.random.default_rng(seed)
    wins = [_wins(x, y, paired) for x, y in zip(ours, theirs, strict=True)]
    found = []
    for count in _chunks(repetitions, sum(won.size for won in wins)):
        total = np.zeros(count)
        columns = _draws(generator, theirs, count)
        rows = columns if paired else _draws(generator, ours, count)
        for won, row, column in zip(wins, rows, columns, strict=True):
            drawn = won[row] if paired else won[row[:, :, None], column[:, None, :]]
            total += drawn.reshape(count, -1).mean(axis=1)
        found.append(total / len(wins))
    low, high = _percentiles(np.concatenate(found), CONFIDENCE)
    return Estimate(value, float(low), float(high))


def improvement_p_value(ours: Strata, theirs: Strata, repetitions: int = REPETITIONS, seed: int = 0) -> float:
    """Two-sided p-value of "in every stratum both methods' runs come from one distribution", by permutation.

    The statistic is the distance of the (unpaired) probability of improvement from ½. Labels are permuted within
    strata, and p = (1 + permutations at least as far)/(1 + permutations). With one stratum this is Mann and Whitney's
    exact test up to Monte-Carlo error. Strata that share one method's runs are no independent evidence. They are joined
    into one, with the weight of them all, before labels are permuted.
    """
    generator = np.random.default_rng(seed)
    joined = _joined(ours, theirs)
    observed = abs(sum(weight * (_wins(x, y, False).mean() - 0.5) for x, y, weight in joined))
    as_far = 0
    for count in _chunks(repetitions, sum(len(x) + len(y) for x, y, _ in joined)):
        total = np.zeros(count)
        for x, y, weight in joined:
            ranks = np.broadcast_to(stats.rankdata(np.concatenate([x, y])), (count, len(x) + len(y)))
            rank_sums = generator.permuted(ranks, axis=1)[:, : len(x)].sum(axis=1)
            total += weight * ((rank_sums - len(x) * (len(x) + 1) / 2) / (len(x) * len(y)) - 0.5)
        as_far += int(np.count_nonzero(np.abs(total) >= observed - 1e-9))
    return (1 + as_far) / (1 + repetitions)


def _joined(ours: Strata, theirs: Strata) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Joins strata that share one method's runs. Returns both methods' runs of each group and its number of strata."""
    shared = theirs if len({id(y) for y in theirs}) <= len({id(x) for x in ours}) else ours
    groups: dict[int, list[int]] = {}
    for index, stratum in enumerate(shared):
        groups.setdefault(id(stratum), []).append(index)
    return [(_once(ours, places), _once(theirs, places), len(places)) for places in groups.values()]


def _once(strata: Strata, places: Sequence[int]) -> np.ndarray:
    return np.concatenate(list({id(strata[place]): strata[place] for place in places}.values()))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values. Rejecting those ≤ α rejects any true hypothesis with a probability of at most α.

    The k-th smallest of n becomes the largest of (n - j + 1) p_(j), j ≤ k, at most 1 (Holm 1979).
    """
    given = np.asarray(p_values, dtype=float)
    order = np.argsort(given)
    scaled = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(scaled, 1.0)
    return adjusted


def negative_transfer(ours: Strata, baseline: Strata) -> float:
    """Share of runs below the 25th percentile of the baseline's runs, averaged over strata.

    The baseline's own share is up to a quarter. With n runs of each, a method without effect has about (n + 3) / (4 n +
    4): 33 % for n = 5. The percentile is one of a sample, at position 1 + (n - 1) / 4.
    """
    shares = [np.mean(x < np.percentile(y, 25)) for x, y in zip(ours, baseline, strict=True)]
    return float(np.mean(shares))


def _wins(x: np.ndarray, y: np.ndarray, paired: bool) -> np.ndarray:
    """1 where x is larger, ½ where both are equal: (pairs,) or (runs of x, runs of y)."""
    if paired and len(x) != len(y):
        raise ValueError(f"paired runs of unequal number: {len(x)} and {len(y)}")
    y = y if paired else y[None]
    x = x if paired else x[:, None]
    return np.where(x > y, 1.0, np.where(x == y, 0.5, 0.0))


def _draws(generator: np.random.Generator, strata: Strata, count: int) -> list[np.ndarray]:
    """Indices (count, runs) for each stratum, the same ones for the same array."""
    found: dict[int, np.ndarray] = {}
    for stratum in strata:
        if id(stratum) not in found:
            found[id(stratum)] = generator.integers(len(stratum), size=(count, len(stratum)))
    return [found[id(stratum)] for stratum in strata]


def _percentiles(found: np.ndarray, confidence: float) -> np.ndarray:
    tail = (1 - confidence) / 2
    return np.quantile(found, [tail, 1 - tail], axis=0)


def _chunks(repetitions: int, size: int) -> Iterator[int]:
    """Split repetitions into parts that fit in memory."""
    step = max(1, _CHUNK // max(size, 1))
    for start in range(0, repetitions, step):
        yield min(step, repetitions - start)
