"""The placebo adapter: what it shares, that it disturbs nothing, and that it drifts as φ does where there is no gap."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from test_dual_ppo import NUM_ENVS, make_algorithm, roll_out, snapshot, train
from torch import Tensor

from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
from dualfid_robot.algorithms.research.placebo import Placebo
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.errors import ConfigError


def placebo_of(algorithm: DualPPO) -> Placebo:
    assert algorithm.placebo is not None
    return algorithm.placebo


@pytest.mark.parametrize("n_low", [0, 5, 12, NUM_ENVS])
def test_theta_and_phi_learn_the_same_to_the_bit(n_low: int) -> None:
    """Gradients, parameters, order of samples and metrics are those of a run without a placebo."""
    plain, watched = make_algorithm(), make_algorithm(placebo=True)
    expected, metrics = train(plain, 3, n_low), train(watched, 3, n_low)
    assert set(metrics) - set(expected) == ({"divergence/placebo"} if n_low else set())
    assert {name: metrics[name] for name in expected} == expected
    for a, b in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert torch.equal(a, b)
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)  # type: ignore[arg-type]


def test_it_shares_theta_and_the_statistics() -> None:
    algorithm = make_algorithm(placebo=True)
    policy, twin = algorithm.policy, placebo_of(algorithm).policy
    for ours, theirs in zip(policy.base_parameters(), twin.base_parameters(), strict=True):
        assert ours is theirs
    assert twin.normalizer is policy.normalizer and twin.return_normalizer is policy.return_normalizer
    adapters = list(zip(policy.adapter_parameters(), twin.adapter_parameters(), strict=True))
    assert all(torch.equal(a, b) and a is not b for a, b in adapters)
    train(algorithm, 2)
    assert any(not torch.equal(a, b) for a, b in adapters)


@pytest.mark.parametrize("n_low", [0, NUM_ENVS])
def test_without_high_rows_or_low_rows_it_rests(n_low: int) -> None:
    algorithm = make_algorithm(placebo=True, adapter_weight_decay=0.1, normalize_value=False)
    before = snapshot(placebo_of(algorithm).policy.adapter_parameters())
    train(algorithm, 2, n_low)
    for old, new in zip(before, placebo_of(algorithm).policy.adapter_parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("n_low", [5, 16])
def test_one_step_against_autograd(n_low: int) -> None:
    """On min(n_low, n_high) low rows, drawn by its own generator, with advantages of their own, importance weights,
    ratios from 1 and values in low's units, at the θ of the step."""
    algorithm = make_algorithm(
        placebo=True, minibatch_size=NUM_ENVS * 8, mini_epochs=1, truncate_grads=False, lr_schedule="constant"
    )
    train(algorithm, 3, n_low)
    placebo = placebo_of(algorithm)
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low, seed=9)
    generator = torch.Generator()
    generator.set_state(placebo._generator.get_state())
    rows = torch.randperm(n_low, generator=generator)[: min(n_low, NUM_ENVS - n_low)]
    reference = copy.deepcopy(placebo.policy)
    low_returns, high_returns = storage.returns[:, :n_low].flatten(), storage.returns[:, n_low:].flatten()
    values_before = torch.stack([read_values(reference, storage, t, rows) for t in range(8)])
    ratio = reference.update_return_statistics(low_returns, high_returns)
    head = reference.critic.output_layer
    with (
        torch.no_grad()
    ):  # the head's δ0 must follow low's statistics, and update_return_statistics has φ follow high's
        head.lora_b.copy_(placebo.policy.critic.output_layer.lora_b * ratio[0])  # type: ignore[union-attr, operator]
        head.bias_delta.copy_(placebo.policy.critic.output_layer.bias_delta * ratio[0])  # type: ignore[union-attr, operator]
    torch.testing.assert_close(
        torch.stack([read_values(reference, storage, t, rows) for t in range(8)]), values_before, rtol=1e-4, atol=1e-4
    )
    obs = storage.observations[:, rows].flatten(0, 1)
    mean, value = reference.evaluate(reference.normalizer(obs), 0)
    log_prob = torch.distributions.Normal(mean, reference.log_std.exp()).log_prob(
        storage.actions[:, rows].flatten(0, 1)
    )
    own = log_prob.sum(-1).detach()
    importance = torch.exp(own - storage.log_probs[:, rows].flatten()).clamp_max(10.0)
    assert ((importance - 1.0).abs() > 0.01).any()
    ratios = torch.exp(log_prob.sum(-1) - own)
    advantages = storage.advantages[:, rows].flatten()
    advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
    returns = reference.return_normalizer.normalize(storage.returns[:, rows].flatten(), len(obs))
    bounds = (mean.abs() - 1.1).clamp_min(0.0).square().sum(-1)
    config = algorithm.config
    loss = -(importance * advantages * ratios).mean() + config.bounds_loss_coef * bounds.mean()
    loss = loss + 0.5 * config.critic_coef * (value - returns).square().mean()
    expected = torch.autograd.grad(loss, reference.adapter_parameters())
    algorithm.update(storage, 0.0)
    for p, gradient in zip(placebo.policy.adapter_parameters(), expected, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad, gradient, rtol=2e-3, atol=2e-6)


def read_values(policy: Any, storage: RolloutStorage, t: int, rows: Tensor) -> Tensor:
    """Values of some low rows by the adapted critic, in units of low's returns."""
    _, value = policy.evaluate(policy.normalizer(storage.observations[t, rows]), 0)
    values: Tensor = policy.return_normalizer.denormalize(value.detach(), len(rows))
    return values


def test_its_learning_rate_is_phis() -> None:
    algorithm = make_algorithm(placebo=True)
    train(algorithm, 4)
    rate = algorithm.adapter_optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
    assert rate is placebo_of(algorithm)._optimizer.param_groups[0]["lr"]
    assert float(rate) != algorithm.config.adapter_learning_rate


def test_its_divergence_is_measured_at_the_updates_start() -> None:
    algorithm = make_algorithm(placebo=True)
    train(algorithm, 5)
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, 12)
    expected = policy_divergence(placebo_of(algorithm).policy, storage.low_observations)
    assert expected is not None and expected > 0.0
    assert read_back(algorithm.update(storage, 0.0))["divergence/placebo"] == expected.item()


def test_resuming_continues_exactly() -> None:
    whole, part, resumed = (make_algorithm(seed, placebo=True) for seed in (0, 0, 99))
    expected = train(whole, 4)
    train(part, 2)
    resumed.policy.load_state_dict(copy.deepcopy(part.policy.state_dict()))
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    assert train(resumed, 2, first=2) == expected
    for a, b in zip(*(placebo_of(x).policy.adapter_parameters() for x in (whole, resumed)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("gap", "bounds"), [(False, (0.4, 2.5)), (True, (20.0, math.inf))])
def test_phi_drifts_as_the_placebo_does_unless_there_is_a_gap(gap: bool, bounds: tuple[float, float]) -> None:
    """D / D_placebo, of the last half of a run, is near 1 where both fidelities are the same, and large where they ask
    for different actions."""
    algorithm = make_algorithm(placebo=True, gamma=0.0, minibatch_size=512, adapter_learning_rate=3e-4)
    storage = algorithm.make_storage(256)
    divergences, placebos = [], []
    for i in range(50):
        roll_out(algorithm, storage, 128, seed=i)
        if not gap:  # the reward of both: the low one's
            target = 0.5 * storage.observations[..., :2]
            storage.rewards.copy_(-(storage.actions - target).square().sum(-1))
            algorithm.compute_returns(storage, storage.observations[0])
        divergence = policy_divergence(algorithm.policy, storage.low_observations)
        assert divergence is not None
        divergences.append(divergence.item())
        placebos.append(read_back(algorithm.update(storage, 0.0))["divergence/placebo"])
    ratio = sum(divergences[25:]) / sum(placebos[25:])
    assert bounds[0] < ratio < bounds[1]


def test_without_its_weights_it_would_only_follow_the_bases_progress() -> None:
    """The surrogate's gradient is one under φ0's own actions: where π_{θ,φ0} has gone past the best action that π_θ is
    still short of, φ0 must go back. Reward −(a − 1)², μ_θ = 0.5, μ_{θ,φ0} = 1.5; unweighted, it would go on."""
    algorithm = make_algorithm(placebo=True, minibatch_size=NUM_ENVS * 8, mini_epochs=1, gamma=0.0)
    twin = placebo_of(algorithm).policy
    with torch.no_grad():
        algorithm.policy.actor.output_layer.bias.fill_(0.5)
        assert twin.actor.output_layer.bias_delta is not None
        twin.actor.output_layer.bias_delta.fill_(1.0)
    storage = algorithm.make_storage(NUM_ENVS)
    before = twin.actor.output_layer.bias_delta.detach().clone()
    roll_out(algorithm, storage, 12)
    storage.rewards.copy_(-(storage.actions - 1.0).square().sum(-1))
    algorithm.compute_returns(storage, storage.observations[0])
    algorithm.update(storage, 0.0)
    assert (twin.actor.output_layer.bias_delta < before).all()
    assert (algorithm.policy.actor.output_layer.bias > 0.5).all()


def test_a_bit_has_a_placebo_and_one_policy_has_none() -> None:
    algorithm = make_algorithm(adapter="bit", placebo=True)
    metrics = train(algorithm, 3)
    assert metrics["divergence/placebo"] > 0.0
    with pytest.raises(ConfigError, match=r"adapter\.kind=none.*placebo"):
        make_algorithm(adapter="none", placebo=True)
