"""Pooling of biased means: closed forms against numbers by hand and against search; the toy's own closed forms."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.algorithms.research.bias_variance import optimal_low_samples, pooled_mse, precision_weight

positive = st.floats(0.01, 100.0)


def test_by_hand() -> None:
    """b² = 1, σ_l² = 4, σ_h² = 9, 8 low and 3 high samples: errors 1 + ½ and 3."""
    assert pooled_mse(0.5, 1.0, 4.0, 9.0, 8, 3) == pytest.approx(0.25 * 1.5 + 0.25 * 3.0)
    assert precision_weight(1.0, 4.0, 9.0, 8, 3) == pytest.approx(3.0 / 4.5)
    # (2 / 1) (3 √4 − 2)
    assert optimal_low_samples(1.0, 4.0, 9.0, 1.0, 4.0, 100.0) == pytest.approx(8.0)
    assert optimal_low_samples(1.0, 4.0, 9.0, 1.0, 4.0, 5.0) == 5.0


@given(positive, positive, positive, st.integers(1, 1000), st.integers(1, 1000), st.floats(0.0, 1.0))
def test_no_other_weight_has_less_error(
    bias: float, low: float, high: float, n_low: int, n_high: int, other: float
) -> None:
    best = precision_weight(bias, low, high, n_low, n_high)
    error = pooled_mse(best, bias, low, high, n_low, n_high)
    assert error <= pooled_mse(other, bias, low, high, n_low, n_high) * (1.0 + 1e-9)
    assert 1.0 / error == pytest.approx(n_low / (bias * n_low + low) + n_high / high)


@settings(deadline=None)
@given(positive, positive, positive, st.floats(0.2, 200.0), st.floats(10.0, 1e4), st.floats(0.0, 1.0))
def test_no_other_split_of_the_same_cost_has_less_error(
    bias: float, low: float, high: float, ratio: float, budget: float, share: float
) -> None:
    def error(n_low: float) -> float:
        n_high = (budget - n_low) / ratio
        return 1.0 / (n_low / (bias * n_low + low) + n_high / high)

    best = optimal_low_samples(bias, low, high, 1.0, ratio, budget)
    assert 0.0 <= best <= budget
    assert error(best) <= error(share * budget) * (1.0 + 1e-9)


@given(positive, positive, positive, positive, st.floats(0.0, 10.0), st.floats(0.01, 2.0))
def test_the_cap_bounds_the_bias_that_is_let_in(
    bias: float, low: float, high: float, n: float, gradient: float, cap: float
) -> None:
    weight = precision_weight(bias, low, high, n, n, gradient, cap)
    assert weight * math.sqrt(bias) <= cap * math.sqrt(gradient) + 1e-9
    free = precision_weight(bias, low, high, n, n)
    assert weight == free or weight == pytest.approx(cap * math.sqrt(gradient / bias))


def test_estimates_below_zero() -> None:
    """A bias that cannot be seen is none; a gradient that cannot be seen lets no bias in."""
    assert precision_weight(-1.0, 4.0, 4.0, 6, 2) == precision_weight(0.0, 4.0, 4.0, 6, 2, -1.0, 0.5) == 0.75
    assert precision_weight(0.1, 4.0, 4.0, 6, 2, -1.0, 0.5) == 0.0
    assert (
        optimal_low_samples(-1.0, 4.0, 4.0, 1.0, 2.0, 77.0) == optimal_low_samples(0.0, 4.0, 4.0, 1.0, 2.0, 77.0) == 77
    )
    assert optimal_low_samples(-1.0, 4.0, 4.0, 2.0, 1.0, 77.0) == 0.0  # low is the dearer one


def test_edges() -> None:
    assert precision_weight(1.0, 4.0, 9.0, 0, 5) == 0.0 and precision_weight(1.0, 4.0, 9.0, 5, 0) == 1.0
    assert math.isnan(precision_weight(math.nan, 4.0, 9.0, 5, 5))
    assert math.isnan(precision_weight(1.0, 4.0, 9.0, 5, 5, math.nan, 0.5))
    for nan in range(5):
        arguments = [1.0, 4.0, 9.0, 1.0, 4.0]
        arguments[nan] = math.nan
        assert math.isnan(optimal_low_samples(*arguments, most=10.0))  # type: ignore[misc]
    assert optimal_low_samples(1e-300, 4.0, 9.0, 1.0, 4.0, 10.0) == 10.0
    assert optimal_low_samples(1.0, 0.0, 9.0, 1.0, 4.0, 10.0) == 0.0


# --- the toy ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import two_quadratics

    yield two_quadratics
    sys.modules.pop("two_quadratics")


def test_closed_forms_of_the_toy(toy: ModuleType) -> None:
    """Its variances, which the tests below rest on, against numbers drawn from its definition, one step at a time."""
    problem = toy.make_problem(0.7, 0.3, 1.2, num_actions=3)
    for side in (problem.low, problem.high):
        z = torch.randn(400_000, 3, dtype=torch.float64)
        reward = -0.5 * (side.mean + problem.sigma * z - side.optimum).square().sum(1)
        reward += side.noise * torch.randn(len(reward), dtype=torch.float64)
        advantage = reward - reward.mean()
        assert advantage.std().item() == pytest.approx(problem.advantage_deviation(side), rel=0.01)
        gradients = torch.cat((advantage[:, None] * z / problem.sigma, advantage[:, None] * (z * z - 1.0)), dim=1)
        assert gradients.var(0).sum().item() / problem.horizon == pytest.approx(problem.variance(side), rel=0.03)
        expected = torch.cat((side.optimum - side.mean, torch.full((3,), -(problem.sigma**2)))).double()
        torch.testing.assert_close(gradients.mean(0), expected, rtol=0.0, atol=0.02)


@pytest.mark.parametrize(("bias", "noise_low", "noise_high", "n_low"), [(0.0, 1.0, 1.0, 16), (0.8, 2.0, 0.5, 24)])
def test_estimators_recover_what_is_known(
    bias: float, noise_low: float, noise_high: float, n_low: int, toy: ModuleType
) -> None:
    problem = toy.make_problem(bias, noise_low, noise_high)
    assert problem.bias_squared == pytest.approx(bias**2, rel=1e-6)
    measured = toy.mean_and_error(list(toy.measure(problem, 200, n_low, 16)))
    known = problem.known()
    assert measured.keys() == known.keys()
    for name, (mean, error) in measured.items():
        assert abs(mean - known[name]) < 4.0 * error + 1e-5 * abs(known[name]), name


@pytest.mark.parametrize("ratio", [1.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("bias", [0.0, 0.1, 0.3, 1.0])
def test_split_is_that_of_a_search(bias: float, ratio: float, toy: ModuleType) -> None:
    problem = toy.make_problem(bias, 0.5, 2.0)
    moments = (problem.bias_squared, problem.variance(problem.low), problem.variance(problem.high))
    budget = 100.0 * ratio
    split = optimal_low_samples(*moments, 1.0, ratio, budget)
    found, error = toy.search(moments, 1.0, ratio, budget)
    assert split == pytest.approx(found, abs=budget / 20000)
    assert toy.least_mse(moments, split, 100.0 - split / ratio) == pytest.approx(error, rel=1e-6)


def test_error_of_simulated_gradients_is_the_predicted_one(toy: ModuleType) -> None:
    problem = toy.make_problem(0.3, 0.5, 2.0)
    moments = (problem.bias_squared, problem.variance(problem.low), problem.variance(problem.high))
    mean, error = toy.pooled_error(problem, 40, 10, 2000)
    assert abs(mean - toy.least_mse(moments, 40, 10)) < 4.0 * error


@pytest.mark.slow
def test_the_placebo_stays_where_noise_takes_it(toy: ModuleType) -> None:
    """Without a gap D is the placebo's; with one it is the distance of the optima, and the placebo's is not."""
    none, gap = (torch.stack([toy.divergences_of_training(gap, seed) for seed in range(6)]) for gap in (0.0, 0.5))
    difference = none[:, 0] - none[:, 1]
    assert abs(difference.mean()) < 4.0 * difference.std() / math.sqrt(len(none))
    divergence, placebo, at_optima = gap.mean(0).tolist()
    assert divergence == pytest.approx(at_optima, rel=0.2)
    assert placebo < 0.2 * divergence
