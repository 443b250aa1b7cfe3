"""A base that learns from the low fidelity alone."""

from __future__ import annotations

import math

import pytest
import torch
from test_dual_ppo import NUM_ENVS, make_algorithm, snapshot, train
from test_theta_gradient import reference_gradients, rollout, trained


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
