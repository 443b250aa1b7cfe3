"""A fidelity bit and one policy for both, against plain torch networks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from test_dual_ppo import NUM_ACTIONS, NUM_ENVS, NUM_OBS, make_algorithm, roll_out, snapshot, train
from torch import Tensor, nn

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.exporter import network_of
from dualfid_robot.policies.actor_critic import AdapterKind, DualActorCritic, DualMLP


def plain_network(network: DualMLP, bit: bool) -> nn.Sequential:
    """The same weights in torch's own layers; with `bit`, one more input column whose weights are the first δb."""
    modules: list[nn.Module] = []
    layers = list(network.dual_layers())
    for i, layer in enumerate(layers):
        weight = layer.weight.detach().clone()
        if bit and i == 0:
            assert layer.bias_delta is not None
            weight = torch.cat((weight, layer.bias_delta.detach()[:, None]), 1)
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, layer.bias.detach().clone()
        modules += [linear] if i == len(layers) - 1 else [linear, nn.ELU()]
    return nn.Sequential(*modules)


def filled(kind: AdapterKind, seed: int = 0) -> DualActorCritic:
    """A policy of which no parameter is zero."""
    generator = torch.Generator().manual_seed(seed)
    policy = DualActorCritic(7, 3, actor_hidden=[16, 12], critic_hidden=[10], rank=4, adapter=kind, generator=generator)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return policy


@pytest.mark.parametrize("n_low", [0, 5, 20])
@pytest.mark.parametrize("kind", ["bit", "none"])
def test_outputs_and_gradients_are_a_plain_networks(kind: AdapterKind, n_low: int) -> None:
    """With "bit": of a network with one more input, 0 in low rows and 1 in high ones, also that column's gradient."""
    policy = filled(kind)
    x = torch.randn(20, 7)
    inputs = x
    if kind == "bit":
        inputs = torch.cat((x, (torch.arange(20) >= n_low).float()[:, None]), 1)
    outputs = policy.evaluate(x, n_low)
    for network, ours in ((policy.actor, outputs[0]), (policy.critic, outputs[1].unsqueeze(-1))):
        plain = plain_network(network, kind == "bit")
        theirs = plain(inputs)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        weights = torch.randn(ours.shape)
        (ours * weights).sum().backward(retain_graph=True)
        (theirs * weights).sum().backward()
        linears = [module for module in plain if isinstance(module, nn.Linear)]
        for i, (layer, linear) in enumerate(zip(network.dual_layers(), linears, strict=True)):
            assert layer.weight.grad is not None and linear.weight.grad is not None
            expected = linear.weight.grad
            if kind == "bit" and i == 0:
                assert layer.bias_delta is not None
                got = layer.bias_delta.grad if layer.bias_delta.grad is not None else torch.zeros(layer.bias.shape)
                torch.testing.assert_close(got, expected[:, -1], rtol=1e-4, atol=1e-5)
                expected = expected[:, :-1]
            else:
                assert layer.lora_a is None and layer.lora_b is None and layer.bias_delta is None
            torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(layer.bias.grad, linear.bias.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bit", "none"])
def test_acting_agrees_with_training(kind: AdapterKind) -> None:
    policy = filled(kind)
    obs = torch.randn(20, 7)
    actions, _, log_probs, values = policy.act(obs, 8, torch.Generator().manual_seed(5))
    mean, value = policy.evaluate(policy.normalizer(obs), 8)
    expected = torch.distributions.Normal(mean, policy.log_std.exp()).log_prob(actions).sum(-1)
    torch.testing.assert_close(log_probs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, policy.return_normalizer.denormalize(value, 8))
    torch.testing.assert_close(mean[:8], policy.action_mean(obs[:8], "base"))
    torch.testing.assert_close(mean[8:], policy.action_mean(obs[8:], "adapted"))
    same = torch.equal(policy.action_mean(obs, "base"), policy.action_mean(obs, "adapted"))
    assert same == (kind == "none")
    for name in ("base", "adapted"):
        torch.testing.assert_close(policy.merged_actor(name)(obs), policy.action_mean(obs, name))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bit", "none"])
def test_the_dial_of_an_export(kind: AdapterKind) -> None:
    """Between the bit's 0 and 1 it is the bit; with one policy it changes nothing."""
    policy = filled(kind)
    obs = torch.randn(20, 7)
    network = network_of(policy, "dial")
    for dial in (0.0, 0.7, 1.0):
        torch.testing.assert_close(network(obs, torch.tensor([dial])), policy.action_mean(obs, dial))


def test_all_kinds_start_from_the_same_base() -> None:
    """So that methods can be compared seed by seed."""
    kinds: tuple[AdapterKind, ...] = ("lora", "bit", "none")
    policies = [DualActorCritic(7, 3, adapter=kind, generator=torch.Generator().manual_seed(4)) for kind in kinds]
    counts = [len(policy.adapter_parameters()) for policy in policies]
    assert counts == [4 * 3 * 2 - 2, 2, 0]  # both heads have no A
    for policy in policies[1:]:
        for a, b in zip(policies[0].base_parameters(), policy.base_parameters(), strict=True):
            assert torch.equal(a, b)


def test_shared_return_statistics_weigh_both_fidelities_equally() -> None:
    """10 low returns of 0 and 1000 high ones of 10: mean 5, deviation 5. No prediction changes."""
    for kind in ("bit", "none"):
        policy = filled(kind)  # type: ignore[arg-type]
        obs = torch.randn(30, 7)
        before = policy.values(obs, 12)
        ratio = policy.update_return_statistics(torch.zeros(10), torch.full((1000,), 10.0))
        assert policy.return_normalizer.mean.tolist() == [5.0, 5.0]
        assert policy.return_normalizer.std.tolist() == [5.0, 5.0] and ratio.tolist() == pytest.approx([0.2, 0.2])
        torch.testing.assert_close(policy.values(obs, 12), before, rtol=1e-4, atol=1e-4)
        policy.update_return_statistics(torch.zeros(0), torch.full((7,), 11.0))  # ½ of the mixture, ½ of this
        assert policy.return_normalizer.mean.tolist() == [8.0, 8.0]
        torch.testing.assert_close(policy.values(obs, 12), before, rtol=1e-4, atol=1e-4)


def one_step(kind: AdapterKind, n_low: int, **changes: Any) -> tuple[DualPPO, DualActorCritic, Any]:
    """An algorithm after one gradient step on all samples, its policy before, and the rollout."""
    algorithm = make_algorithm(
        adapter=kind,
        **{
            "minibatch_size": NUM_ENVS * 8,
            "mini_epochs": 1,
            "truncate_grads": False,
            "normalize_value": False,
            "normalize_input": False,
            "normalize_advantage": False,
            "bounds_loss_coef": 0.0,
            **changes,
        },
    )
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, 12)
    storage.n_low = n_low
    before = copy.deepcopy(algorithm.policy)
    algorithm.update(storage, 0.0)
    return algorithm, before, storage


@pytest.mark.parametrize("n_low", [0, 7, NUM_ENVS])
def test_one_policy_with_shares_is_plain_ppo_on_all_rows(n_low: int) -> None:
    """The gradient of an update by autograd on torch's own layers, the rows pooled, whatever the allocation."""
    algorithm, before, storage = one_step("none", n_low, loss_weighting="share")
    actor, critic = plain_network(before.actor, False), plain_network(before.critic, False)
    log_std = before.log_std.detach().clone().requires_grad_()
    x, actions = before.normalizer(storage.observations).flatten(0, 1), storage.actions.flatten(0, 1)
    log_prob = torch.distributions.Normal(actor(x), log_std.exp()).log_prob(actions).sum(-1)
    ratio = torch.exp(log_prob - storage.log_probs.flatten())
    value, returns, values = critic(x).squeeze(-1), storage.returns.flatten(), storage.values.flatten()
    limited = values + (value - values).clamp(-0.2, 0.2)
    error = torch.max((value - returns).square(), (limited - returns).square())
    advantages = storage.advantages.flatten()
    surrogate = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    (surrogate.mean() + 0.5 * algorithm.config.critic_coef * error.mean()).backward()
    policy = algorithm.policy
    torch.testing.assert_close(policy.log_std.grad, log_std.grad, rtol=1e-3, atol=1e-6)
    for network, plain in ((policy.actor, actor), (policy.critic, critic)):
        linears = [module for module in plain if isinstance(module, nn.Linear)]
        for layer, linear in zip(network.dual_layers(), linears, strict=True):
            torch.testing.assert_close(layer.weight.grad, linear.weight.grad, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(layer.bias.grad, linear.bias.grad, rtol=1e-3, atol=1e-5)
    assert len(policy.adapter_parameters()) == 0


@pytest.mark.parametrize("kind", ["bit", "none"])
@pytest.mark.parametrize("n_low", [0, 1, 12, NUM_ENVS])
def test_updates_of_every_allocation(kind: AdapterKind, n_low: int) -> None:
    algorithm = make_algorithm(adapter=kind, adapter_weight_decay=0.1 if kind == "bit" else 0.0)
    metrics = train(algorithm, 3, n_low)
    assert all(math.isfinite(value) for value in metrics.values())
    of_adapter = {"grad_norm/adapter", "learning_rate/adapter", "adapter/ratio"}
    assert of_adapter & set(metrics) == (of_adapter if kind == "bit" else set())
    assert all(p.any() for p in algorithm.policy.adapter_parameters()) == (kind == "none" or n_low < NUM_ENVS)


@pytest.mark.parametrize("kind", ["bit", "none"])
def test_resuming_continues_exactly(kind: AdapterKind) -> None:
    whole, part, resumed = (make_algorithm(seed, adapter=kind) for seed in (0, 0, 99))
    expected = train(whole, 4)
    train(part, 2)
    resumed.policy.load_state_dict(copy.deepcopy(part.policy.state_dict()))
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    assert train(resumed, 2, first=2) == expected


@pytest.mark.parametrize("kind", ["bit", "none"])
def test_what_the_base_does_not_learn_needs_an_adapter(kind: AdapterKind) -> None:
    with pytest.raises(ConfigError, match=f"adapter.kind={kind}: must be lora with base_learns_from=low"):
        make_algorithm(adapter=kind, base_learns_from="low")


def test_a_decay_needs_an_adapter() -> None:
    with pytest.raises(ConfigError, match=r"adapter_weight_decay=0\.1: must be 0 where there is no adapter"):
        make_algorithm(adapter="none", adapter_weight_decay=0.1)


def test_the_bit_learns_a_constant_difference() -> None:
    """Rewards −(a ∓ 0.5)²: the policies' means come apart by about 1 through the bit alone."""
    algorithm = make_algorithm(adapter="bit", gamma=0.0, learning_rate=1e-3, adapter_speed=10.0)
    storage = algorithm.make_storage(NUM_ENVS)
    before: list[Tensor] = snapshot(algorithm.policy.adapter_parameters())
    assert not any(p.any() for p in before)
    for i in range(100):
        roll_out(algorithm, storage, 12, seed=i)
        target = torch.where(torch.arange(NUM_ENVS) < 12, -0.5, 0.5)[:, None].expand(-1, NUM_ACTIONS)
        storage.rewards.copy_(-(storage.actions - target).square().sum(-1))
        algorithm.compute_returns(storage, storage.observations[0])
        algorithm.update(storage, 0.0)
    obs = torch.randn(500, NUM_OBS, generator=torch.Generator().manual_seed(3))
    low, high = algorithm.policy.both_means(obs)
    assert (high - low).mean().item() == pytest.approx(1.0, abs=0.3)
