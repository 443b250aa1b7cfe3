"""What of the two losses reaches θ: precision weights, and a base that learns from the low fidelity alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_dual_ppo import NUM_ENVS, make_algorithm, roll_out, snapshot, train
from test_gradient_gate import reference_gradients, trained

from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import GRADIENT_MOMENTS, NOTHING_MEASURED, Signals

MEASURED = Signals(bias_squared=4.0, variance_low=90.0, variance_high=300.0, gradient_squared=25.0)


def rollout(algorithm: DualPPO, n_low: int) -> RolloutStorage:
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low, seed=77)
    return storage


@pytest.mark.parametrize(("cap", "weight"), [(10.0, 20.0 / 34.0), (0.1, 0.25)])
def test_precision_weights_by_hand(cap: float, weight: float) -> None:
    """n_l = 9, n_h = 15: errors 4 + 90/9 = 14 and 300/15 = 20, so w = 20/34; the cap 0.1 · 5/2 = 0.25.
    θ: g_h + w/(1−w) g_l; φ: g_h as ever."""
    algorithm = trained(loss_weighting="precision", precision_cap=cap)
    storage = rollout(algorithm, 9)
    low, high, adapter = reference_gradients(algorithm, storage, 9)
    metrics = read_back(algorithm.update(storage, 0.0, MEASURED))
    odds = weight / (1.0 - weight)
    assert metrics["loss_weight/low"] == pytest.approx(odds)
    gradients = {name: p.grad for name, p in algorithm.policy.named_parameters()}
    for name in low:
        torch.testing.assert_close(gradients[name], high[name] + odds * low[name], rtol=2e-3, atol=2e-6)
    for name in adapter:
        torch.testing.assert_close(gradients[name], adapter[name], rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("n_low", [0, 12, NUM_ENVS])
def test_precision_is_sum_until_something_is_measured(n_low: int) -> None:
    plain, precise = make_algorithm(), make_algorithm(loss_weighting="precision")
    expected, metrics = train(plain, 2, n_low), train(precise, 2, n_low)
    assert metrics.pop("loss_weight/low") == 1.0 and metrics == expected
    assert precise.requires == GRADIENT_MOMENTS and plain.requires == frozenset()


@pytest.mark.parametrize("n_low", [0, NUM_ENVS])
def test_a_fidelity_alone_has_weight_one(n_low: int) -> None:
    algorithm = make_algorithm(loss_weighting="precision")
    storage = rollout(algorithm, n_low)
    assert read_back(algorithm.update(storage, 0.0, MEASURED))["loss_weight/low"] == 1.0


def test_odds_stay_finite() -> None:
    """No bias and no variance to be seen in low: w = 1 would be infinite odds."""
    algorithm = make_algorithm(loss_weighting="precision")
    storage = rollout(algorithm, 12)
    perfect = Signals(bias_squared=-1.0, variance_low=0.0, variance_high=1.0, gradient_squared=1.0)
    assert read_back(algorithm.update(storage, 0.0, perfect))["loss_weight/low"] == pytest.approx(0.95 / 0.05)


def test_precision_weights_and_the_gate_together() -> None:
    """g_θ = g_h + w/(1−w) P(g_l): where nothing conflicts and nothing is scaled, what precision alone gives."""
    gated = trained(loss_weighting="precision", precision_cap=10.0, gradient_gate="project")
    storage = rollout(gated, 9)
    low, high, _ = reference_gradients(gated, storage, 9)
    assert gated.gate is not None
    gated.gate._products.fill_(1e6)  # all blocks agree
    gated.update(storage, 0.0, MEASURED)
    gradients = {name: p.grad for name, p in gated.policy.named_parameters()}
    for name in low:
        torch.testing.assert_close(gradients[name], high[name] + 20.0 / 14.0 * low[name], rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("most", [1000, 50])
@pytest.mark.parametrize(("weighting", "weights"), [("sum", (1.0, 1.0)), ("share", (9 / 24, 15 / 24))])
def test_a_base_that_learns_from_low(
    weighting: str, weights: tuple[float, float], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """∇_θ is that of L_low alone, ∇_φ that of L_high."""
    monkeypatch.setattr("dualfid_robot.algorithms.minibatches.MAX_CHUNK_ROWS", most)
    algorithm = trained(base_learns_from="low", loss_weighting=weighting)
    storage = rollout(algorithm, 9)
    low, _, adapter = reference_gradients(algorithm, storage, 9)
    algorithm.update(storage, 0.0)
    gradients = {name: p.grad for name, p in algorithm.policy.named_parameters()}
    for weight, expected in zip(weights, (low, adapter), strict=True):
        for name in expected:
            torch.testing.assert_close(gradients[name], weight * expected[name], rtol=2e-3, atol=2e-6)


def test_without_low_rows_only_the_adapter_is_tuned() -> None:
    """Low first, then high alone, as the rule `switch` has it: θ stays as it is to the bit, value head included."""
    algorithm = make_algorithm(base_learns_from="low")
    train(algorithm, 3, n_low=NUM_ENVS)
    base, adapter = (snapshot(p) for p in (algorithm._base, algorithm._adapter))
    metrics = train(algorithm, 3, n_low=0)
    assert all(math.isfinite(value) for value in metrics.values()) and metrics["grad_norm/base"] == 0.0
    for old, new in zip(base, algorithm._base, strict=True):
        assert torch.equal(old, new)
    assert all(not torch.equal(old, new) for old, new in zip(adapter, algorithm._adapter, strict=True))


def test_with_low_rows_alone_it_is_the_same_as_learning_from_both() -> None:
    assert train(make_algorithm(base_learns_from="low"), 3, NUM_ENVS) == train(make_algorithm(), 3, NUM_ENVS)


def test_nothing_measured_is_the_default() -> None:
    results: list[dict[str, float]] = []
    for arguments in ((), (NOTHING_MEASURED,), (MEASURED,)):
        algorithm: Any = make_algorithm()
        results.append(read_back(algorithm.update(rollout(algorithm, 12), 0.0, *arguments)))
    assert results[0] == results[1] == results[2]
