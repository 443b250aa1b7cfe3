"""GAE against numbers worked out by hand and against the definition as a sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.algorithms.rollout import RolloutStorage


def filled(rewards: list, values: list, terminated: list, truncated: list, final_values: list) -> RolloutStorage:
    """A storage of one environment."""
    storage = RolloutStorage(len(rewards), 1, 2, 1)
    storage.begin(0)
    nothing = torch.zeros(1, 2)
    for t in range(len(rewards)):
        storage.add(
            nothing,
            torch.zeros(1, 1),
            torch.zeros(1, 1),
            torch.zeros(1),
            torch.tensor([values[t]]),
            torch.tensor([rewards[t]]),
            torch.tensor([terminated[t]]),
            torch.tensor([truncated[t]]),
            nothing,
        )
    storage.final_values[:, 0] = torch.tensor(final_values)
    return storage


def test_by_hand_without_ends() -> None:
    """γ = ½, λ = ½: δ = (1 + 2 − 2, 2 + 3 − 4, 3 + 4 − 6) = (1, 1, 1);  A = (1 + ¼·1¼, 1 + ¼, 1)."""
    storage = filled([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [False] * 3, [False] * 3, [0.0] * 3)
    storage.compute_returns(torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert storage.advantages[:, 0].tolist() == [1.3125, 1.25, 1.0]
    assert storage.returns[:, 0].tolist() == [3.3125, 5.25, 7.0]


def test_by_hand_termination_in_the_middle() -> None:
    """Nothing after the termination at t = 1 counts: δ_1 = 2 − 4 = −2, A_0 = 1 + ¼·(−2)."""
    storage = filled([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [False, True, False], [False] * 3, [99.0] * 3)
    storage.compute_returns(torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert storage.advantages[:, 0].tolist() == [0.5, -2.0, 1.0]


def test_by_hand_truncation_in_the_middle() -> None:
    """V(final) = 10 stands in for V(s_2) = 6, of the next episode: δ_1 = 2 + ½·10 − 4 = 3, A_0 = 1 + ¼·3."""
    storage = filled([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [False] * 3, [False, True, False], [99.0, 10.0, 99.0])
    storage.compute_returns(torch.tensor([8.0]), gamma=0.5, lam=0.5)
    assert storage.advantages[:, 0].tolist() == [1.75, 3.0, 1.0]


def test_by_hand_ends_at_the_last_step() -> None:
    for terminated, truncated, expected in ((True, False, -3.0), (False, True, 2.0), (True, True, -3.0)):
        storage = filled([3.0], [6.0], [terminated], [truncated], [10.0])
        storage.compute_returns(torch.tensor([8.0]), gamma=0.5, lam=0.5)
        assert storage.advantages.item() == expected


def test_without_bootstrap_and_with_scaled_rewards() -> None:
    storage = filled([1.0, 2.0], [2.0, 4.0], [False, False], [True, False], [10.0, 0.0])
    storage.compute_returns(torch.tensor([8.0]), gamma=0.5, lam=0.5, reward_scale=3.0, value_bootstrap=False)
    assert storage.advantages[:, 0].tolist() == [1.0, 6.0]  # 3·1 − 2;  3·2 + ½·8 − 4
    assert storage.rewards[:, 0].tolist() == [1.0, 2.0]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 1.0), lam=st.floats(0.0, 1.0))
def test_against_the_sum(seed: int, gamma: float, lam: float) -> None:
    """A_t = Σ_k (γλ)^k δ_{t+k}, up to and including the end of the episode."""
    rng = np.random.default_rng(seed)
    horizon, n = 12, 5
    storage = RolloutStorage(horizon, n, 1, 1)
    rewards, values, final_values = (rng.normal(size=(horizon, n)) for _ in range(3))
    terminated, truncated = (rng.random((horizon, n)) < 0.15 for _ in range(2))
    last = rng.normal(size=n)
    for name, array in (("rewards", rewards), ("values", values), ("final_values", final_values)):
        getattr(storage, name).copy_(torch.from_numpy(array))
    storage.terminated.copy_(torch.from_numpy(terminated))
    storage.truncated.copy_(torch.from_numpy(truncated))
    storage.compute_returns(torch.from_numpy(last).float(), gamma, lam)
    for i in range(n):
        for t in range(horizon):
            expected, factor = 0.0, 1.0
            for k in range(t, horizon):
                following = values[k + 1, i] if k + 1 < horizon else last[i]
                if terminated[k, i]:
                    following = 0.0
                elif truncated[k, i]:
                    following = final_values[k, i]
                expected += factor * (rewards[k, i] + gamma * following - values[k, i])
                factor *= gamma * lam
                if terminated[k, i] or truncated[k, i]:
                    break
            assert storage.advantages[t, i].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_truncated_rows_are_ordered_low_first() -> None:
    storage = RolloutStorage(3, 5, 2, 1)
    storage.begin(2)
    storage.truncated[0, 4] = storage.truncated[1, 1] = storage.truncated[2, 0] = storage.truncated[2, 3] = True
    steps, rows, n_low = storage.truncated_rows()
    assert list(zip(steps.tolist(), rows.tolist(), strict=True)) == [(1, 1), (2, 0), (0, 4), (2, 3)]
    assert n_low == 2


def test_views_follow_the_boundary_and_misuse_is_refused() -> None:
    storage = RolloutStorage(2, 6, 3, 1)
    storage.begin(4)
    assert storage.low_observations.shape == (2, 4, 3) and storage.high_observations.shape == (2, 2, 3)
    step = (
        torch.ones(6, 3),
        torch.ones(6, 1),
        torch.ones(6, 1),
        *[torch.ones(6)] * 3,
        *[torch.zeros(6, dtype=torch.bool)] * 2,
    )
    storage.add(*step, torch.ones(6, 3))
    storage.add(*step, torch.ones(6, 3))
    with pytest.raises(RuntimeError, match="already holds 2"):
        storage.add(*step, torch.ones(6, 3))
    with pytest.raises(ValueError, match="n_low = 7"):
        storage.begin(7)
