"""Moments of policy gradients: the estimator against known Gaussians, the gradients against the update's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dualfid_robot.algorithms.ppo_loss import LossCoefficients, MiniBatch, ppo_loss_gradient
from dualfid_robot.algorithms.research.gradient_moments import (
    GROUPS,
    MAX_ENVIRONMENTS,
    GradientMoments,
    gradient_moments,
    group_gradients,
    policy_gradient_moments,
)
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic

NUM_OBS, NUM_ACTIONS, HORIZON = 5, 2, 4


@pytest.mark.parametrize(("bias", "gradient"), [(0.0, 0.0), (0.3, 0.2), (2.0, 5.0)])
def test_every_moment_is_unbiased(bias: float, gradient: float) -> None:
    """Means over 4000 measurements of 3-dimensional samples with σ_l² = 5.25, σ_h² = 1.5."""
    repeats, group_low, group_high = 4000, 4, 2
    std_low, std_high = torch.tensor([0.5, 1.0, 2.0]), torch.tensor([0.5, 0.5, 1.0])
    centre_high = torch.tensor([gradient, 0.0, 0.0])
    centre_low = centre_high + torch.tensor([0.0, 0.6 * bias, 0.8 * bias])
    low = centre_low + std_low * torch.randn(repeats, 6, group_low, 3)
    high = centre_high + std_high * torch.randn(repeats, 3, group_high, 3)
    measured = torch.vmap(lambda x, y: tuple(gradient_moments(x, y, group_low, group_high)))(low.mean(2), high.mean(2))
    expected = GradientMoments(*map(torch.tensor, (bias**2, 5.25, 1.5, gradient**2)))
    for name, value, known in zip(GradientMoments._fields, measured, expected, strict=True):
        error = value.std() / math.sqrt(repeats)
        assert abs(value.mean() - known) < 4.0 * error, name
    assert bias > 0.0 or (measured[0] < 0.0).any()  # an unbiased estimate of 0 is not clamped


def make_policy(num_privileged: int = 0) -> DualActorCritic:
    generator = torch.Generator().manual_seed(3)
    policy = DualActorCritic(
        NUM_OBS,
        NUM_ACTIONS,
        num_privileged=num_privileged,
        actor_hidden=[8, 6],
        critic_hidden=[4],
        rank=2,
        init_log_std=-0.7,
        generator=generator,
    )
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    policy.normalizer.mean.add_(0.3)
    policy.normalizer.var.mul_(4.0)
    return policy


def acted(policy: DualActorCritic, num_envs: int, n_low: int) -> RolloutStorage:
    storage = RolloutStorage(HORIZON, num_envs, NUM_OBS, NUM_ACTIONS)
    storage.begin(n_low)
    ended = torch.zeros(num_envs, dtype=torch.bool)
    for _ in range(HORIZON):
        obs = torch.randn(num_envs, NUM_OBS)
        actions, log_probs, values = policy.act(obs, n_low)
        storage.add(obs, actions, log_probs, values, torch.zeros(num_envs), ended, ended, obs)
    storage.advantages.normal_()
    return storage


def theta_gradient_of_the_update(policy: DualActorCritic, storage: RolloutStorage, rows: Tensor, n_low: int) -> Tensor:
    """What `ppo_loss_gradient` and autograd give for θ's actor on these rows at ratio 1, n_low of them low."""
    obs, actions, log_probs, advantages = (
        x[:, rows].movedim(0, 1).flatten(0, 1)
        for x in (storage.observations, storage.actions, storage.log_probs, storage.advantages)
    )
    nothing = torch.zeros(len(obs))
    batch = MiniBatch(policy.normalizer(obs), actions, log_probs, advantages, nothing, nothing)
    mean, value = policy.evaluate(batch.obs, n_low * HORIZON)
    weights = (1.0 / len(obs), 1.0 / len(obs))
    coefficients = LossCoefficients(0.2, 0.0, False, 0.0, 0.0)
    gradient = ppo_loss_gradient(
        mean.detach(), policy.log_std.detach(), value.detach(), batch, n_low * HORIZON, weights, coefficients
    )
    theta = [p for layer in policy.actor.dual_layers() for p in (layer.weight, layer.bias)]
    return torch.cat([*(g.flatten() for g in torch.autograd.grad(mean, theta, gradient.mean)), gradient.log_std])


@pytest.mark.parametrize("privileged", [0, 2])
@pytest.mark.parametrize("activation", ["elu", "tanh", "relu"])
def test_group_gradients_are_those_of_the_update(
    privileged: int, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy(privileged)
    for layer in list(policy.actor.dual_layers())[:-1]:
        layer.activation = activation
    storage = acted(policy, 2 * GROUPS + 3 * GROUPS, 2 * GROUPS)
    taken: list[Tensor] = []

    def keep(low: Tensor, high: Tensor, group_low: int, group_high: int) -> GradientMoments:
        assert (group_low, group_high) == (2, 3)
        taken.extend((low, high))
        return gradient_moments(low, high, group_low, group_high)

    monkeypatch.setattr("dualfid_robot.algorithms.research.gradient_moments.gradient_moments", keep)
    assert policy_gradient_moments(policy, storage, storage.advantages) is not None
    low, high = taken
    for k in range(GROUPS):
        rows = torch.arange(k, 2 * GROUPS, GROUPS)
        torch.testing.assert_close(low[k], theta_gradient_of_the_update(policy, storage, rows, 2), rtol=1e-4, atol=1e-6)
        rows = torch.arange(2 * GROUPS + k, 5 * GROUPS, GROUPS)
        torch.testing.assert_close(
            high[k], theta_gradient_of_the_update(policy, storage, rows, 0), rtol=1e-4, atol=1e-6
        )


def test_group_gradients_against_a_linear_gaussian_by_hand() -> None:
    """μ = W x + b, one action: ∂(−A log π) = −A (z / σ) x for W, −A z / σ for b, −A (z² − 1) for log σ."""
    weight, bias, log_std = torch.tensor([[0.5, -1.0]]), torch.tensor([0.25]), torch.tensor([math.log(0.5)])
    x, a, advantage = torch.tensor([[[2.0, 1.0]]]), torch.tensor([[[0.75]]]), torch.tensor([[3.0]])
    # μ = 0.25, z = 1, z / σ = 2
    got = group_gradients([(weight, bias)], ["identity"], log_std, x, a, advantage)
    torch.testing.assert_close(got, torch.tensor([[-12.0, -6.0, -6.0, 0.0]]))


@pytest.mark.parametrize(("n_low", "n_high"), [(0, 8), (1, 7), (7, 1), (8, 0)])
def test_too_few_environments_of_a_fidelity(n_low: int, n_high: int) -> None:
    policy = make_policy()
    storage = acted(policy, n_low + n_high, n_low)
    assert policy_gradient_moments(policy, storage, storage.advantages) is None


def test_few_and_many_environments() -> None:
    policy = make_policy()
    for n_low, n_high in ((2, 3), (5, 2 * MAX_ENVIRONMENTS + 7)):
        storage = acted(policy, n_low + n_high, n_low)
        moments = policy_gradient_moments(policy, storage, storage.advantages)
        assert moments is not None and torch.isfinite(torch.stack(moments)).all()
        assert moments.variance_low > 0.0 and moments.variance_high > 0.0
        assert not any(p.grad is not None for p in policy.parameters())


def test_equal_fidelities_have_no_bias() -> None:
    """Advantages of pure noise with the same policy on both sides: b² and ‖G‖² average to 0, the variances agree."""
    policy = make_policy()
    with torch.no_grad():
        for p in policy.adapter_parameters():
            p.zero_()
    measured = []
    for _ in range(60):
        storage = acted(policy, 48, 24)
        moments = policy_gradient_moments(policy, storage, storage.advantages)
        assert moments is not None
        measured.append(torch.stack(moments))
    values = torch.stack(measured)
    mean, error = values.mean(0), values.std(0) / math.sqrt(len(values))
    assert abs(mean[0]) < 4.0 * error[0] and abs(mean[3]) < 4.0 * error[3]
    difference = values[:, 1] - values[:, 2]
    assert abs(difference.mean()) < 4.0 * difference.std() / math.sqrt(len(values))
