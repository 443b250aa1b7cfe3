"""The control variate against closed forms: what it costs in bias (nothing) and saves in variance."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from default_settings import ppo_config
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dualfid_robot.algorithms.communicator import Communicator
from dualfid_robot.algorithms.research.control_variate import (
    ControlVariate,
    correlation_and_coefficient,
    first_episode,
    paired_order,
    sample_weights,
)
from dualfid_robot.algorithms.research.mfpg import MFPG
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic

N_LOW, N_HIGH = 40, 8
R, SIGMA_HIGH, SIGMA_LOW, MEAN_HIGH, MEAN_LOW = 0.8, 2.0, 3.0, 0.5, -4.0
DRAWS = 4000


def storage_of(n_low: int, n_high: int, horizon: int = 1) -> RolloutStorage:
    storage = RolloutStorage(horizon, n_low + n_high, 1, 1)
    storage.begin(n_low)
    storage.log_probs.fill_(1.0)  # so that a row's X is the sum of its advantages
    return storage


def gaussian_rows(generator: torch.Generator, r: float = R) -> Tensor:
    """(1, N) a number for each row, its gradient: correlated between partners, otherwise independent."""
    rows = torch.randn(N_LOW + N_HIGH, generator=generator)
    rows[:N_HIGH] = r * rows[N_LOW:] + math.sqrt(1.0 - r * r) * rows[:N_HIGH]
    rows[:N_LOW] = MEAN_LOW + SIGMA_LOW * rows[:N_LOW]
    rows[N_LOW:] = MEAN_HIGH + SIGMA_HIGH * rows[N_LOW:]
    return rows[None]


def combined(weights: Tensor, rows: Tensor, n_low: int) -> Tensor:
    """The two fidelities' means of weighted rows, added: what the loss does."""
    weighted = (weights * rows).sum(0)
    return weighted[:n_low].mean() + weighted[n_low:].mean()


@pytest.mark.parametrize("c", [0.0, -R * SIGMA_HIGH / SIGMA_LOW, 0.4])
def test_variance_of_correlated_gaussians(c: float) -> None:
    """σ_h² / n_h · (1 + n_free / n_low · (c² σ_l² + 2 c r σ_h σ_l) / σ_h²), least at c = −r σ_h / σ_l."""
    generator = torch.Generator().manual_seed(0)
    weights = sample_weights(torch.ones(1, N_LOW + N_HIGH), N_LOW, N_HIGH, torch.tensor(c))
    estimates = torch.stack([combined(weights, gaussian_rows(generator), N_LOW) for _ in range(DRAWS)])
    share = (N_LOW - N_HIGH) / N_LOW
    variance = SIGMA_HIGH**2 + share * (c**2 * SIGMA_LOW**2 + 2 * c * R * SIGMA_HIGH * SIGMA_LOW)
    variance /= N_HIGH
    assert abs(float(estimates.mean()) - MEAN_HIGH) < 4 * math.sqrt(variance / DRAWS)
    assert float(estimates.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / DRAWS))
    if c == -R * SIGMA_HIGH / SIGMA_LOW:
        assert variance == pytest.approx(SIGMA_HIGH**2 / N_HIGH * (1 - R**2 * share))


def test_the_estimated_coefficient_is_nearly_as_good() -> None:
    generator = torch.Generator().manual_seed(1)
    variate, storage = ControlVariate(), storage_of(N_LOW, N_HIGH)
    estimates, coefficients, correlations = [], [], []
    for _ in range(DRAWS):
        rows = gaussian_rows(generator)
        estimates.append(combined(variate.weights(storage, rows, 0.0), rows, N_LOW))
        metrics = variate.metrics()
        coefficients.append(metrics["control_variate/coefficient"])
        correlations.append(metrics["control_variate/correlation"])
    optimum = SIGMA_HIGH**2 / N_HIGH * (1 - R**2 * (N_LOW - N_HIGH) / N_LOW)
    estimate = torch.stack(estimates)
    assert float(torch.stack(coefficients).median()) == pytest.approx(-R * SIGMA_HIGH / SIGMA_LOW, rel=0.03)
    assert float(torch.stack(correlations).mean()) == pytest.approx(R, abs=0.02)
    assert optimum * 0.9 < float(estimate.var()) < optimum * 1.15
    # c follows the same draws a little, so the bias is only small: less than a tenth of one estimate's deviation
    assert abs(float(estimate.mean()) - MEAN_HIGH) < 0.1 * math.sqrt(optimum)


def test_a_misleading_low_fidelity_is_left_out() -> None:
    """Its own variance is what a wrong c would add."""
    generator = torch.Generator().manual_seed(2)
    variate, storage = ControlVariate(), storage_of(N_LOW, N_HIGH)
    for _ in range(30):
        rows = gaussian_rows(generator, r=-0.95)
        weights = variate.weights(storage, rows, 0.0)
        assert combined(weights, rows, N_LOW) == rows[0, N_LOW:].mean()
    assert variate.metrics()["control_variate/correlation"] < -0.8


def test_one_draw_of_the_other_sign_switches_it_off_for_that_iteration() -> None:
    generator = torch.Generator().manual_seed(2)
    variate, storage = ControlVariate(), storage_of(N_LOW, N_HIGH)
    for r, expected in ((0.9, True), (0.9, True), (-0.99, False), (0.9, True)):
        variate.weights(storage, gaussian_rows(generator, r), 0.0)
        assert (variate.metrics()["control_variate/coefficient"] < 0.0) == expected


def walk(generator: torch.Generator, draws: int, horizon: int = 6) -> tuple[Tensor, Tensor]:
    """Many rollouts at once: per-step gradients (T, N, draws), and the steps that end an episode (T, N, draws).

    Partners share noise; an episode ends at a threshold of the position, which differs between the fidelities, and the
    gradient depends on position and noise. New episodes begin elsewhere.
    """
    n_low, n_high = 6, 2
    noise = torch.randn(horizon, n_low + n_high, draws, generator=generator)
    noise[:, :n_high] = noise[:, n_low:]
    fidelity = torch.ones(n_low + n_high, 1)
    fidelity[:n_low] = 0.7
    position = torch.zeros(n_low + n_high, draws)
    gradients, ends = [], []
    for t in range(horizon):
        position = position + fidelity * noise[t] + 0.2
        gradients.append(position * noise[t] + fidelity)
        ended = position > 1.0
        ends.append(ended)
        position = torch.where(ended, -2.0 * fidelity, position)
    return torch.stack(gradients), torch.stack(ends)


def test_episodes_that_end_leave_it_unbiased() -> None:
    """Cutting partners where the *high* row ends, too, would not."""
    n_low, n_high, draws = 6, 2, 200_000
    gradients, ends = walk(torch.Generator().manual_seed(0), draws)
    cumulative = ends.int().cumsum(0)
    alive = (cumulative == ends.int()).float()
    high = gradients[:, n_low:].sum(0).mean(0)

    def correction(counted: Tensor) -> Tensor:
        kept = (gradients * counted).sum(0)
        return kept[:n_high].mean(0) - kept[:n_low].mean(0)

    ours = correction(alive)
    assert ours.mean().abs() < 4 * ours.std() / math.sqrt(draws)
    both = alive.clone()
    both[:, :n_high] *= alive[:, n_low:]
    biased = correction(both)
    assert biased.mean().abs() > 20 * biased.std() / math.sqrt(draws)
    # and the variance is the closed form's, with r and c from the partners' sums alone
    high_rows, low_rows = gradients[:, n_low:].sum(0), (gradients * alive)[:, :n_high].sum(0)
    r = torch.corrcoef(torch.stack((high_rows.flatten(), low_rows.flatten())))[0, 1]
    c = -r * high_rows.std() / low_rows.std()
    assert r > 0.3
    remaining = (high + c * ours).var() / high.var()
    assert float(remaining) == pytest.approx(1.0 - float(r) ** 2 * (n_low - n_high) / n_low, abs=0.005)

    # the weights of one draw say just this
    storage = storage_of(n_low, n_high, horizon=6)
    for draw in range(50):
        storage.terminated.copy_(ends[:, :, draw])
        storage.truncated.copy_(ends[:, :, draw] & (torch.rand(6, 8) < 0.5))
        assert torch.equal(first_episode(storage), alive[:, :, draw])
        weights = sample_weights(alive[:, :, draw], n_low, n_high, torch.tensor(-0.6))
        expected = high[draw] - 0.6 * ours[draw]
        torch.testing.assert_close(combined(weights, gradients[:, :, draw], n_low), expected, atol=1e-5, rtol=1e-5)


def test_summaries_are_sums_over_the_first_episode() -> None:
    """X_h counts all steps, as the gradient does; X_l those until the low row's end."""
    storage = storage_of(4, 2, horizon=3)
    generator = torch.Generator().manual_seed(5)
    high_sums, low_sums, variate = [], [], ControlVariate()
    weighted, total = np.zeros(5), 0.0
    for _ in range(7):
        advantages = torch.randn(3, 6, generator=generator)
        advantages[:, :2] += advantages[:, 4:]
        storage.log_probs.copy_(-torch.rand(3, 6, generator=generator))
        storage.terminated.copy_(torch.rand(3, 6, generator=generator) < 0.3)
        variate.weights(storage, advantages, 0.2)
        x = (advantages * (storage.log_probs + 0.2)).double().numpy()
        low = np.zeros(2)
        for row in range(2):
            for t in range(3):
                low[row] += x[t, row]
                if storage.terminated[t, row]:
                    break
        high = x[:, 4:].sum(0)
        high_sums.append(high)
        low_sums.append(low)
        batch = np.array([high.mean(), low.mean(), (high**2).mean(), (low**2).mean(), (high * low).mean()])
        weighted, total = 0.95 * weighted + 0.05 * batch, 0.95 * total + 0.05
    mean_high, mean_low, squared_high, squared_low, product = weighted / total
    covariance = product - mean_high * mean_low
    expected = covariance / math.sqrt((squared_high - mean_high**2) * (squared_low - mean_low**2))
    assert float(variate.metrics()["control_variate/correlation"]) == pytest.approx(expected, rel=1e-5)


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=3, max_size=20).filter(
        lambda pairs: all(np.std(column) > 1e-2 for column in zip(*pairs, strict=True))
    )
)
def test_correlation_and_coefficient_are_numpys(pairs: list[tuple[float, float]]) -> None:
    high, low = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    moments = torch.stack([high.mean(), low.mean(), high.square().mean(), low.square().mean(), (high * low).mean()])
    r, c = correlation_and_coefficient(moments)
    assert float(r) == pytest.approx(np.corrcoef(high, low)[0, 1], abs=1e-4)
    slope = np.polyfit(low, high, 1)[0]
    assert float(c) == pytest.approx(-slope, rel=1e-4, abs=1e-4)


def test_rows_that_do_not_vary_are_no_control_variate() -> None:
    variate, storage = ControlVariate(), storage_of(4, 2)
    weights = variate.weights(storage, torch.full((1, 6), 0.1), 0.0)
    assert torch.equal(weights, torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0]]))
    assert variate.metrics()["control_variate/correlation"] == 0.0


def test_the_same_rollout_twice_has_correlation_one() -> None:
    rows = torch.randn(1, 48)
    rows[:, :8] = rows[:, 40:]
    variate = ControlVariate()
    weights = variate.weights(storage_of(40, 8), rows, 0.0)
    metrics = variate.metrics()
    assert float(metrics["control_variate/correlation"]) == pytest.approx(1.0, abs=1e-9)
    assert float(metrics["control_variate/coefficient"]) == pytest.approx(-1.0, abs=1e-9)
    # and the estimate is the mean over all low rows: the high ones add nothing
    torch.testing.assert_close(combined(weights, rows, 40), rows[0, :40].mean())


@pytest.mark.parametrize(("n_low", "n_high"), [(9, 1), (12, 5), (40, 8)])
def test_weights_of_low_rows_cancel_and_those_of_high_rows_stay(n_low: int, n_high: int) -> None:
    weights = sample_weights(torch.ones(3, n_low + n_high), n_low, n_high, torch.tensor(-0.7))
    assert torch.equal(weights[:, n_low:], torch.ones(3, n_high))
    assert float(weights[:, :n_low].sum()) == pytest.approx(0.0, abs=1e-5)
    # g_pair − g_all of rows that are 1 where they are partners
    partners = (torch.arange(n_low) < n_high).float()
    expected = -0.7 * (1.0 - n_high / n_low)
    assert float((weights[0, :n_low] * partners).mean()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("horizon", "n_low", "n_high", "pieces"), [(16, 54, 10, 4), (5, 9, 1, 3), (4, 8, 8, 3)])
def test_partners_are_in_the_same_mini_batch(horizon: int, n_low: int, n_high: int, pieces: int) -> None:
    num_envs = n_low + n_high
    low, high = paired_order(horizon, num_envs, n_low, pieces, torch.Generator().manual_seed(0))
    assert len(low) == len(high) == pieces
    together = torch.cat([*low, *high]).sort().values
    assert torch.equal(together, torch.arange(horizon * num_envs))
    for low_part, high_part in zip(low, high, strict=True):
        assert torch.equal(low_part[: len(high_part)], high_part - n_low)
        assert (low_part % num_envs < n_low).all() and (high_part % num_envs >= n_low).all()
        assert (low_part[len(high_part) :] % num_envs >= n_high).all()
        assert abs(len(high_part) - horizon * n_high / pieces) < 1
        assert abs(len(low_part) - horizon * n_low / pieces) < 2
    other, _ = paired_order(horizon, num_envs, n_low, pieces, torch.Generator().manual_seed(1))
    assert not torch.equal(torch.cat(low), torch.cat(other))


def test_a_restored_state_goes_on_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    one, storage = ControlVariate(), storage_of(N_LOW, N_HIGH)
    for _ in range(5):
        one.weights(storage, gaussian_rows(generator), 0.0)
    other = ControlVariate()
    other.load_state_dict(one.state_dict())
    rows = gaussian_rows(generator)
    assert torch.equal(one.weights(storage, rows, 0.0), other.weights(storage, rows, 0.0))
    assert torch.equal(one.weights(storage, rows, 0.0), other.weights(storage, rows, 0.0))


class Recorded(Communicator):
    """Keeps what this rank has to say; averages it with what another one had said."""

    def __init__(self, other: Recorded | None = None) -> None:
        self.other = other
        self.said: list[Tensor] = []

    def average_(self, tensors: Sequence[Tensor]) -> None:
        self.said = [tensor.clone() for tensor in tensors]
        for tensor, others in zip(tensors, self.other.said if self.other else self.said, strict=True):
            tensor.add_(others).div_(2.0)


def test_two_processes_estimate_what_one_with_all_their_rows_does() -> None:
    rows = gaussian_rows(torch.Generator().manual_seed(4))
    low, high = rows[:, :N_LOW], rows[:, N_LOW:]
    half_high = N_HIGH // 2
    free = low[:, N_HIGH:].chunk(2, dim=1)
    halves = [
        torch.cat(
            (low[:, part * half_high :][:, :half_high], free[part], high[:, part * half_high :][:, :half_high]), 1
        )
        for part in (0, 1)
    ]
    alone, storage = ControlVariate(), storage_of(N_LOW, N_HIGH)
    alone.weights(storage, rows, 0.0)
    second = Recorded()
    ControlVariate(second).weights(storage_of(N_LOW // 2, half_high), halves[1], 0.0)
    first = ControlVariate(Recorded(second))
    first.weights(storage_of(N_LOW // 2, half_high), halves[0], 0.0)
    for name, value in alone.metrics().items():
        assert float(value) == pytest.approx(float(first.metrics()[name]), rel=1e-6), name


def rollout(policy: DualActorCritic, storage: RolloutStorage, n_low: int, generator: torch.Generator) -> Tensor:
    """Fill a storage: partners see nearly what their high rows see, and are rewarded alike; the last observations."""
    n_high = storage.num_envs - n_low
    storage.begin(n_low)

    def alike(x: Tensor) -> Tensor:
        x[:n_high] = x[n_low:] + 0.1 * x[:n_high]
        return x

    for _ in range(storage.horizon):
        obs = alike(torch.randn(storage.num_envs, policy.num_obs, generator=generator))
        actions, noise, log_probs, values = policy.act(obs, n_low, generator, n_high)
        assert torch.equal(log_probs[:n_high], log_probs[n_low:])
        assert not torch.equal(log_probs[n_high : 2 * n_high], log_probs[n_low:])
        rewards = alike(torch.randn(storage.num_envs, generator=generator))
        terminated, truncated = (torch.rand(2, storage.num_envs, generator=generator) < 0.1).unbind()
        storage.add(obs, actions, noise, log_probs, values, rewards, terminated, truncated & ~terminated, obs)
    return torch.randn(storage.num_envs, policy.num_obs, generator=generator)


def test_the_gradient_of_an_update_against_autograd() -> None:
    """∇[L_high + c (L_pair − L_all)] for the policy, written out with plain layers and means; L_high alone for the
    critic, the entropy and the bounds."""
    n_low, n_high, horizon = 24, 6, 8
    generator = torch.Generator().manual_seed(7)
    policy = DualActorCritic(5, 2, actor_hidden=(16,), critic_hidden=(16,), adapter="none", generator=generator)
    with torch.no_grad():  # so that ratios and bounds matter
        policy.actor.output_layer.weight.mul_(150.0)
    config = ppo_config(
        horizon_length=horizon,
        minibatch_size=(n_low + n_high) * horizon,
        mini_epochs=1,
        truncate_grads=False,
        lr_schedule="constant",
        entropy_coef=0.01,
        bounds_loss_coef=0.1,
        mixed_precision=False,
        control_variate=True,
    )
    algorithm = MFPG(policy, config)
    storage = algorithm.make_storage(n_low + n_high)
    algorithm.compute_returns(storage, rollout(policy, storage, n_low, generator))
    with torch.no_grad():  # the policy has moved since, as in later passes
        policy.actor.output_layer.bias.add_(0.15)
    twin = copy.deepcopy(policy)
    metrics = algorithm.update(storage, 0.0)
    c = float(metrics["control_variate/coefficient"])
    assert c < -0.2

    high_returns = storage.returns[:, n_low:]
    twin.update_return_statistics(high_returns.flatten()[:0], high_returns.flatten())
    x = twin.normalizer(storage.observations).flatten(0, 1)
    mean, value = (y.view(horizon, n_low + n_high, -1) for y in twin.evaluate(x, n_low * horizon))
    advantages = storage.advantages.clone()
    for rows in (slice(0, n_low), slice(n_low, None)):
        advantages[:, rows] -= advantages[:, rows].mean()
        advantages[:, rows] /= advantages[:, rows].std(correction=0) + 1e-8
    distribution = torch.distributions.Normal(mean, twin.log_std.exp())
    ratio = (distribution.log_prob(storage.actions).sum(-1) - storage.log_probs).exp()
    surrogate = -torch.minimum(advantages * ratio, advantages * ratio.clamp(0.8, 1.2))
    assert ((ratio - ratio.clamp(0.8, 1.2)).abs() > 0).float().mean() > 0.05
    for row in range(n_low):
        ends = (storage.terminated | storage.truncated)[:, row].nonzero()
        if len(ends):
            surrogate[int(ends[0]) + 1 :, row] = 0.0
    high = surrogate[:, n_low:].mean()
    loss = high + c * (surrogate[:, :n_high].mean() - surrogate[:, :n_low].mean())
    loss = loss - 0.01 * distribution.entropy().sum(-1)[:, n_low:].mean()
    loss = loss + 0.1 * (mean - mean.clamp(-1.1, 1.1)).square().sum(-1)[:, n_low:].mean()
    normalized = (high_returns - twin.return_normalizer.mean[1].float()) / twin.return_normalizer.std[1].float()
    old = (storage.values[:, n_low:] - twin.return_normalizer.mean[1].float()) / twin.return_normalizer.std[1].float()
    value = value.squeeze(-1)[:, n_low:]
    clipped = old + (value - old).clamp(-0.2, 0.2)
    loss = loss + 2.0 * 0.5 * torch.maximum((value - normalized).square(), (clipped - normalized).square()).mean()
    loss.backward()
    for (name, ours), expected in zip(policy.named_parameters(), twin.parameters(), strict=True):
        assert ours.grad is not None and expected.grad is not None, name
        torch.testing.assert_close(ours.grad, expected.grad, atol=2e-6, rtol=2e-4, msg=name)


def test_the_mean_gradient_is_that_of_the_high_rows() -> None:
    """Over many rollouts of one policy, the update's mean gradient is that of the high rows, with less variance."""
    n_low, n_high, horizon = 20, 4, 4
    generator = torch.Generator().manual_seed(11)
    policy = DualActorCritic(3, 2, actor_hidden=(8,), critic_hidden=(8,), adapter="none", generator=generator)
    storage = RolloutStorage(horizon, n_low + n_high, 3, 2)
    gradients: dict[str, list[Tensor]] = {"high": [], "combined": []}
    for _ in range(800):
        last = rollout_with_rewarded_actions(policy, storage, n_low, generator)
        storage.compute_returns(policy.values(last, n_low), 0.9, 0.9)
        mean = policy.action_mean(storage.observations.flatten(0, 1), "base").view(storage.actions.shape)
        # gradient to the action head's bias, per sample
        terms = storage.advantages[..., None] * (storage.actions - mean) / policy.log_std.detach().exp().square()
        factors = sample_weights(first_episode(storage), n_low, n_high, torch.tensor(-0.8))[..., None] * terms
        gradients["high"].append(terms[:, n_low:].mean((0, 1)))
        gradients["combined"].append(factors[:, :n_low].mean((0, 1)) + factors[:, n_low:].mean((0, 1)))
    high, combined_gradient = (torch.stack(gradients[name]) for name in ("high", "combined"))
    difference = combined_gradient - high
    assert (difference.mean(0).abs() < 4 * difference.std(0) / math.sqrt(len(difference))).all()
    assert (high.mean(0).abs() > 10 * high.std(0) / math.sqrt(len(high))).all()  # there is something to be biased
    assert combined_gradient.var(0).sum() < 0.6 * high.var(0).sum()


def rollout_with_rewarded_actions(
    policy: DualActorCritic, storage: RolloutStorage, n_low: int, generator: torch.Generator
) -> Tensor:
    """A world that moves by the actions, another one in each fidelity; a bound on the state ends episodes."""
    n_high = storage.num_envs - n_low
    storage.begin(n_low)
    obs = torch.randn(n_high, 3, generator=generator).repeat(n_low // n_high + 1, 1)
    gain = torch.where(torch.arange(storage.num_envs) < n_low, 0.8, 1.0)
    for _ in range(storage.horizon):
        actions, noise, log_probs, values = policy.act(obs, n_low, generator, n_high)
        moved = obs + 0.5 * gain[:, None] * torch.nn.functional.pad(actions, (0, 1))
        rewards = moved[:, 0] - 0.3 * moved[:, 1] + (gain - 0.9)
        terminated = moved[:, 0].abs() > 2.0
        storage.add(obs, actions, noise, log_probs, values, rewards, terminated, torch.zeros_like(terminated), moved)
        obs = torch.where(terminated[:, None], torch.zeros_like(moved), moved)
    return obs


def test_rows_that_share_only_their_state_are_not_correlated() -> None:
    """Partners whose advantages are the same numbers, decided by the state, but whose actions have nothing in common:
    their gradients are uncorrelated, and so are their summaries."""
    n_low, n_high, horizon = 600, 300, 4
    generator = torch.Generator().manual_seed(13)
    policy = DualActorCritic(3, 2, actor_hidden=(8,), critic_hidden=(8,), adapter="none", generator=generator)
    config = ppo_config(horizon_length=horizon, minibatch_size=(n_low + n_high) * horizon, control_variate=True)
    algorithm = MFPG(policy, config)
    storage = algorithm.make_storage(n_low + n_high)
    storage.begin(n_low)
    zeros = torch.zeros(n_low + n_high)
    for _ in range(horizon):
        obs = torch.randn(n_low + n_high, 3, generator=generator)
        storage.add(obs, *policy.act(obs, n_low, generator), zeros, zeros.bool(), zeros.bool(), obs)
    storage.advantages.copy_(torch.randn(n_high, generator=generator).repeat(3))
    metrics = algorithm.update(storage, 0.0)
    assert metrics["control_variate/correlation"].abs() < 4 / math.sqrt(n_high)
