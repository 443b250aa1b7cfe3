"""Against rliable, against published worked examples, and against closed forms."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dualfid_robot.studies import statistics

SPATIAL_TEST = np.array(  # Efron & Tibshirani 1993, table 14.1, column A
    [48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6, 0, 33, 28, 34, 4, 32, 24, 47, 41, 24, 26, 30, 41], dtype=float
)
scores = st.lists(st.integers(-5, 5), min_size=3, max_size=8).map(lambda values: np.array(values, dtype=float))


def strata_of(matrix: np.ndarray) -> list[np.ndarray]:
    """(runs, tasks) as rliable has it, to one array for each task."""
    return list(matrix.T.copy())


def assert_tails(interval: tuple[float, float], other: np.ndarray, repetitions: int) -> None:
    """The bounds are 2.5% and 97.5% quantiles of the other bootstrap's values up to 4.5 standard errors of both.

    Few runs have few different draws, so a bound may be a step of the distribution: what lies beyond it is at most
    2.5%, what lies there or beyond at least that."""
    error = 4.5 * np.sqrt(0.025 * 0.975 * (1 / repetitions + 1 / len(other)))
    low, high = interval
    assert np.mean(other < low - 1e-9) <= 0.025 + error
    assert np.mean(other <= low + 1e-9) >= 0.025 - error
    assert np.mean(other > high + 1e-9) <= 0.025 + error
    assert np.mean(other >= high - 1e-9) >= 0.025 - error


# Interquartile mean


def test_a_published_interquartile_mean() -> None:
    """The worked example of Wikipedia's article "Interquartile mean": twelve values, 6.5."""
    assert statistics.interquartile_mean(np.array([5, 8, 4, 38, 8, 6, 9, 7, 7, 3, 1, 6.0])) == 6.5


@given(scores)
def test_interquartile_mean_leaves_out_a_quarter_rounded_down_at_each_end(values: np.ndarray) -> None:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    assert statistics.interquartile_mean(values) == pytest.approx(sum(middle) / len(middle))


@pytest.mark.slow
def test_aggregates_are_those_of_rliable() -> None:
    pytest.importorskip("rliable")
    from rliable import library as rliable
    from rliable import metrics

    generator = np.random.default_rng(0)
    for runs, tasks in ((5, 1), (5, 4), (10, 6)):
        matrix = generator.normal(size=(runs, tasks)) + np.arange(tasks)
        ours = statistics.aggregate(strata_of(matrix), repetitions=20_000)
        assert ours.value == pytest.approx(metrics.aggregate_iqm(matrix), abs=1e-12)
        np.random.seed(1)  # noqa: NPY002 - rliable draws from the global generator
        theirs = rliable.StratifiedBootstrap(matrix).apply(metrics.aggregate_iqm, reps=2000)[:, 0]
        assert_tails((ours.low, ours.high), theirs, 20_000)


@pytest.mark.slow
def test_improvement_is_that_of_rliable() -> None:
    pytest.importorskip("rliable")
    from rliable import library as rliable
    from rliable import metrics

    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(5, 3)) + 0.4, generator.normal(size=(7, 3))
    ours = statistics.improvement(strata_of(x), strata_of(y), repetitions=20_000)
    assert ours.value == pytest.approx(metrics.probability_of_improvement(x, y), abs=1e-12)
    np.random.seed(2)  # noqa: NPY002 - rliable draws from the global generator
    bootstrap = rliable.StratifiedIndependentBootstrap(x, y)
    theirs = bootstrap.apply(metrics.probability_of_improvement, reps=1500)[:, 0]
    assert_tails((ours.low, ours.high), theirs, 20_000)


# Bootstrap


def test_a_published_percentile_interval() -> None:
    """Efron & Tibshirani 1993, table 14.2: the 90% percentile interval of the variance (divisor n) of the spatial test
    data, from 2000 draws, is 100.8 to 233.9. Those are within the Monte-Carlo error of 2000 draws of ours."""
    draws = np.random.default_rng(3).choice(SPATIAL_TEST, size=(100_000, 26)).var(axis=1)  # for the density there
    for repetitions in (2000, 100_000):
        found = statistics.bootstrap_interval(
            [SPATIAL_TEST], lambda values, axis: values.var(axis=axis), repetitions, confidence=0.9
        )
        for bound, published, level in zip(found, (100.8, 233.9), (0.05, 0.95), strict=True):
            spread = np.diff(np.quantile(draws, [level - 0.01, level + 0.01]))[0] / 0.02  # 1/density
            error = spread * np.sqrt(0.05 * 0.95 * (1 / 2000 + 1 / repetitions))
            assert bound == pytest.approx(published, abs=3 * error)


def test_interval_of_a_mean_is_that_of_all_possible_draws() -> None:
    """Three runs in each of two strata have 27² equally likely draws: their exact quantiles, by enumeration."""
    strata = [np.array([0.0, 1.0, 5.0]), np.array([10.0, 12.0, 19.0])]
    draws = [[np.mean(draw) for draw in itertools.product(stratum, repeat=3)] for stratum in strata]
    exact = np.sort([(a + b) / 2 for a in draws[0] for b in draws[1]])
    low, high = statistics.bootstrap_interval(strata, lambda values, axis: values.mean(axis=axis), 200_000)
    for tail in (exact < low - 1e-9, exact > high + 1e-9):
        assert np.mean(tail) <= 0.026
    for tail in (exact <= low + 1e-9, exact >= high - 1e-9):
        assert np.mean(tail) >= 0.024


def test_strata_are_not_mixed() -> None:
    """Runs that do not differ within a stratum leave nothing to resample, however far strata are apart."""
    estimate = statistics.aggregate([np.full(4, 1.0), np.full(4, 100.0)], repetitions=200)
    assert (estimate.low, estimate.high) == (estimate.value, estimate.value)


def test_runs_that_stand_in_two_strata_are_drawn_once() -> None:
    """The mean over a stratum and itself varies as over one, not by 1/√2 less."""
    stratum = np.random.default_rng(0).normal(size=8)
    mean: Callable[[np.ndarray, int], np.ndarray] = lambda values, axis: values.mean(axis=axis)  # noqa: E731
    once = np.diff(statistics.bootstrap_interval([stratum], mean, 50_000))[0]
    twice = np.diff(statistics.bootstrap_interval([stratum, stratum], mean, 50_000))[0]
    copied = np.diff(statistics.bootstrap_interval([stratum, stratum.copy()], mean, 50_000))[0]
    assert twice == pytest.approx(once, rel=0.03)
    assert copied == pytest.approx(once / np.sqrt(2), rel=0.03)


def test_curves_are_resampled_as_wholes() -> None:
    """(runs, points): a point's interval is that of its column, from the same draws."""
    curves = np.random.default_rng(0).normal(size=(6, 3))
    found = statistics.bootstrap_interval([curves], repetitions=3000, seed=5)
    for point in range(3):
        alone = statistics.bootstrap_interval([curves[:, point].copy()], repetitions=3000, seed=5)
        np.testing.assert_allclose(found[:, point], alone)


def test_same_seed_same_interval_and_any_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [np.random.default_rng(0).normal(size=5) for _ in range(3)]
    first = statistics.aggregate(strata, repetitions=1000)
    assert statistics.aggregate(strata, repetitions=1000) == first
    monkeypatch.setattr(statistics, "_CHUNK", 1)
    assert statistics.aggregate(strata, repetitions=1000).low == pytest.approx(first.low, abs=0.2)


def test_fewer_than_three_runs_have_no_interval() -> None:
    few, many = np.array([1.0, 2.0]), np.arange(5.0)
    assert not statistics.aggregate([many, few], repetitions=50).has_interval
    assert not statistics.improvement([many], [few], repetitions=50).has_interval
    assert not statistics.difference([few], [many], repetitions=50).has_interval
    assert statistics.aggregate([many, np.arange(3.0)], repetitions=50).has_interval


def test_difference_of_normal_samples_has_the_width_of_theory() -> None:
    """The bootstrap's spread of an interquartile mean of large normal samples: its asymptotic variance is 1.195 σ²/n
    (quarter-trimmed mean; Lehmann 1983, table 5.4.1: efficiency 0.84); of a difference twice that."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=2000), generator.normal(size=2000)
    found = statistics.difference([x], [y], repetitions=2000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(2 * 1.195 / 2000), rel=0.1)
    assert found.low < 0 < found.high


# Probability of improvement


def test_published_mann_whitney_u() -> None:
    """The tortoises and hares of Wikipedia's article "Mann-Whitney U test" (finish T HHHHH TTTTT H: U = 11 of 36 for
    the tortoises), and SciPy's worked example of ages at a diagnosis (U = 17 of 20)."""
    places = {animal: np.array([12.0 - i for i, a in enumerate("THHHHHTTTTTH") if a == animal]) for animal in "TH"}
    assert statistics.probability_of_improvement([places["T"]], [places["H"]]) == pytest.approx(11 / 36)
    men, women = np.array([19.0, 22, 16, 29, 24]), np.array([20.0, 11, 17, 12])
    assert statistics.probability_of_improvement([men], [women]) == pytest.approx(17 / 20)
    assert statistics.improvement_p_value([men], [women], 100_000) == pytest.approx(0.1111, abs=0.004)


@given(scores, scores)
def test_improvement_is_u_over_mn_with_ties_half(x: np.ndarray, y: np.ndarray) -> None:
    u = stats.mannwhitneyu(x, y).statistic
    assert statistics.probability_of_improvement([x], [y]) == pytest.approx(u / (len(x) * len(y)))


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=4))
def test_the_other_way_round_is_one_less_it(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    x, y = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    both = statistics.probability_of_improvement(x, y) + statistics.probability_of_improvement(y, x)
    assert both == pytest.approx(1.0)


def test_paired_compares_run_by_run() -> None:
    """Each run is better than its own pair, though not than the others."""
    y = np.array([1.0, 2, 3, 4])
    assert statistics.probability_of_improvement([y + 0.5], [y], paired=True) == 1.0
    assert statistics.probability_of_improvement([y + 0.5], [y]) == 10 / 16
    assert statistics.probability_of_improvement([y], [y], paired=True) == 0.5
    with pytest.raises(ValueError, match="unequal number: 4 and 3"):
        statistics.improvement([y], [y[:3]], paired=True)


def test_paired_interval_is_a_binomials() -> None:
    """Seven of ten pairs won: draws of ten pairs have Binomial(10, 0.7) wins."""
    x, y = np.array([1.0] * 7 + [0.0] * 3), np.full(10, 0.5)
    found = statistics.improvement([x], [y], paired=True, repetitions=100_000)
    low, high = stats.binom.ppf([0.025, 0.975], 10, 0.7) / 10
    assert (found.value, found.low, found.high) == (0.7, pytest.approx(low), pytest.approx(high))


# p-values


def test_p_value_of_one_stratum_is_mann_whitneys_exact_one() -> None:
    generator = np.random.default_rng(0)
    for m, n, shift in ((5, 5, 0.5), (5, 5, 2.5), (6, 9, 1.0)):
        x, y = generator.normal(size=m) + shift, generator.normal(size=n)
        exact = stats.mannwhitneyu(x, y, method="exact").pvalue
        error = 4 * np.sqrt(exact * (1 - exact) / 40_000) + 1 / 40_000
        assert statistics.improvement_p_value([x], [y], 40_000) == pytest.approx(exact, abs=error)


def test_p_value_of_two_strata_by_enumeration() -> None:
    strata: list[tuple[np.ndarray, np.ndarray]]
    strata = [(np.array([3.0, 5, 6]), np.array([1.0, 2, 4])), (np.array([9.0, 7]), np.array([8.0, 6]))]

    def all_values(x: np.ndarray, y: np.ndarray) -> list[float]:
        pool = np.concatenate([x, y])
        found: list[float] = []
        for chosen in itertools.combinations(range(len(pool)), len(x)):
            others = [i for i in range(len(pool)) if i not in chosen]
            found.append(np.mean([[pool[i] > pool[j] for j in others] for i in chosen]) - 0.5)
        return found

    sums = np.array([a + b for a in all_values(*strata[0]) for b in all_values(*strata[1])])
    observed = sum(float(np.greater(x[:, None], y).mean()) - 0.5 for x, y in strata)
    exact = np.mean(np.abs(sums) >= abs(observed) - 1e-9)
    found = statistics.improvement_p_value([x for x, _ in strata], [y for _, y in strata], 40_000)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 40_000))


def test_p_values_are_uniform_where_there_is_no_difference() -> None:
    """Also where all strata share the baseline's runs, of which independent strata would find too much: with 300
    studies the share below 0.1 is 0.1 ± 3.5 standard errors."""
    generator = np.random.default_rng(0)
    shared, copied = [], []
    for _ in range(300):
        y = generator.normal(size=5)
        x = [generator.normal(size=5) for _ in range(4)]
        shared.append(statistics.improvement_p_value(x, [y] * 4, 400))
        copied.append(statistics.improvement_p_value(x, [y.copy() for _ in range(4)], 400))
    error = 3.5 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(np.array(shared) <= 0.1) == pytest.approx(0.1, abs=error)
    assert np.mean(np.array(copied) <= 0.1) > 0.1 + error


def test_holms_published_example() -> None:
    """The worked example of Wikipedia's article "Holm-Bonferroni method": 0.01, 0.04, 0.03, 0.005."""
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], alpha: float) -> None:
    """Holm 1979: go from the smallest, stop at the first p_(k) > α/(n - k + 1)."""
    rejected = set()
    for k, index in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[index] * (len(p_values) - k) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(statistics.holm(p_values) <= alpha)) == rejected


# Negative transfer


@settings(max_examples=50)
@given(st.integers(1, 9))
def test_negative_transfer_counts_runs_below_the_baselines_first_quartile(below: int) -> None:
    baseline = np.arange(1.0, 6.0)  # 25th percentile 2
    ours = np.array([1.9] * below + [2.0] * (10 - below))
    assert statistics.negative_transfer([ours], [baseline]) == pytest.approx(below / 10)
    assert statistics.negative_transfer([ours, baseline], [baseline] * 2) == pytest.approx((below / 10 + 0.2) / 2)
