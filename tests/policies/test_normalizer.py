"""Normalisers against NumPy on all the data at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.policies.normalizer import ObservationNormalizer, ReturnNormalizer


def mixture(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the data in which each side has weight one half."""
    weights = np.concatenate((np.full(len(low), 0.5 / len(low)), np.full(len(high), 0.5 / len(high))))
    data = np.concatenate((low, high))
    mean = weights @ data
    return mean, weights @ (data - mean) ** 2


@settings(deadline=None, max_examples=30)
@given(n_low=st.integers(1, 400), n_high=st.integers(1, 400), seed=st.integers(0, 1000))
def test_equal_weights_whatever_the_sizes(n_low: int, n_high: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = rng.normal(3.0, 2.0, (n_low, 4)), rng.normal(-1.0, 0.5, (n_high, 4))
    normalizer = ObservationNormalizer(4)
    normalizer.update(torch.from_numpy(low), torch.from_numpy(high))
    mean, var = mixture(low, high)
    np.testing.assert_allclose(normalizer.mean.numpy(), mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(normalizer.var.numpy(), var, rtol=1e-12, atol=1e-12)


def test_iterations_weigh_the_same() -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.normal(i, 1.0, (50, 3)), rng.normal(-i, 2.0, (50, 3))) for i in range(5)]
    normalizer = ObservationNormalizer(3)
    for low, high in batches:
        normalizer.update(torch.from_numpy(low), torch.from_numpy(high))
    data = np.concatenate([side for batch in batches for side in batch])
    np.testing.assert_allclose(normalizer.mean.numpy(), data.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalizer.var.numpy(), data.var(0), rtol=1e-12)
    assert normalizer.count.item() == 5


def test_statistics_do_not_depend_on_the_allocation() -> None:
    """The same two distributions, once split 90:10 and once 10:90, give the same statistics but for noise."""
    results = []
    for n_low in (90_000, 10_000):
        generator = torch.Generator().manual_seed(0)
        normalizer = ObservationNormalizer(1)
        normalizer.update(
            torch.randn(n_low, 1, generator=generator) + 2.0, 3.0 * torch.randn(100_000 - n_low, 1, generator=generator)
        )
        results.append((normalizer.mean.item(), normalizer.var.item()))
    np.testing.assert_allclose(results, [(1.0, 6.0)] * 2, atol=0.1)  # ½(2 + 0);  ½(1 + 9) + 1


@pytest.mark.parametrize("empty", ["low", "high"])
def test_one_empty_side(empty: str) -> None:
    data, nothing = torch.randn(20, 2, dtype=torch.float64), torch.zeros(0, 2)
    normalizer = ObservationNormalizer(2)
    normalizer.update(*((nothing, data) if empty == "low" else (data, nothing)))
    torch.testing.assert_close(normalizer.mean, data.mean(0))
    torch.testing.assert_close(normalizer.var, data.var(0, correction=0))


def test_forward_normalises_clips_and_survives_constant_inputs() -> None:
    normalizer = ObservationNormalizer(2, clip=5.0)
    obs = torch.tensor([[1e6 + 1.0, 7.0], [1e6 - 1.0, 7.0]], dtype=torch.float64)
    normalizer.update(obs, obs)
    assert normalizer(torch.tensor([[1e6 + 1.0, 7.0]])).tolist() == [pytest.approx([1.0, 0.0], abs=1e-4)]
    assert normalizer(torch.tensor([[2e6, -1e9]])).tolist() == [[5.0, -5.0]]
    assert normalizer(torch.zeros(3, 4, 2)).shape == (3, 4, 2)
    assert normalizer(obs).dtype == torch.float32


def test_returns_have_their_own_statistics() -> None:
    normalizer = ReturnNormalizer()
    low, high = torch.randn(300) * 4.0 + 10.0, torch.randn(20) * 0.5 - 2.0
    normalizer.update(low, high)
    values = torch.cat((low, high))
    normalised = normalizer.normalize(values, 300)
    for side in (normalised[:300], normalised[300:]):
        assert side.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert side.std(correction=0).item() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(normalizer.denormalize(normalised, 300), values)


def test_returns_of_an_unseen_fidelity_follow_the_other() -> None:
    normalizer = ReturnNormalizer()
    empty = torch.zeros(0)
    for _ in range(3):
        normalizer.update(torch.randn(50) * 3.0 + 5.0, empty)
        assert torch.equal(normalizer.mean[0], normalizer.mean[1]) and torch.equal(normalizer.var[0], normalizer.var[1])
    normalizer.update(empty, torch.tensor([-1.0, 1.0]))
    assert normalizer.mean[1].item() == 0.0 and normalizer.var[1].item() == 1.0
    assert normalizer.mean[0].item() == pytest.approx(5.0, abs=2.0)


def test_returns_that_do_not_vary() -> None:
    normalizer = ReturnNormalizer()
    normalizer.update(torch.zeros(10), torch.zeros(10))
    assert normalizer.normalize(torch.tensor([0.0, 0.01]), 1).tolist() == pytest.approx([0.0, 1.0])


def test_state_round_trip() -> None:
    normalizer, copy = ObservationNormalizer(3), ObservationNormalizer(3)
    normalizer.update(torch.randn(5, 3), torch.randn(7, 3))
    copy.load_state_dict(normalizer.state_dict())
    obs = torch.randn(4, 3)
    assert torch.equal(normalizer(obs), copy(obs))
    assert copy.mean.dtype == torch.float64
