"""The two policies of one network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.policies.actor_critic import DualActorCritic

two_networks_or_one = pytest.mark.parametrize("critic", [[24], None], ids=["two networks", "one"])


def make_policy(seed: int = 0, trained: bool = True, **settings: Any) -> DualActorCritic:
    generator = torch.Generator().manual_seed(seed)
    sizes: dict[str, Any] = {"actor_hidden": [32, 16], "critic_hidden": [24], "rank": 4}
    policy = DualActorCritic(11, 3, generator=generator, **(sizes | settings))
    if trained:
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
        policy.normalizer.update(torch.randn(50, 11) * 2.0 + 1.0, torch.randn(50, 11))
        policy.return_normalizer.update(torch.randn(50) * 2.0, torch.randn(50) + 5.0)
    return policy


@two_networks_or_one
def test_both_policies_start_equal_to_the_bit(critic: list[int] | None) -> None:
    policy = make_policy(trained=False, critic_hidden=critic)
    obs = torch.randn(64, 11)
    base, adapted = policy.both_means(obs)
    assert torch.equal(base, adapted)
    assert torch.equal(policy.action_mean(obs, "base"), policy.action_mean(obs, "adapted"))
    assert torch.equal(policy.values(obs, 64), policy.values(obs, 0))
    trained = make_policy(critic_hidden=critic)
    base, adapted = trained.both_means(obs)
    assert (base - adapted).abs().max() > 0.01
    torch.testing.assert_close(base, trained.action_mean(obs, "base"))


@two_networks_or_one
def test_acting_agrees_with_the_training_path_and_with_torch_distributions(critic: list[int] | None) -> None:
    policy = make_policy(critic_hidden=critic)
    obs = torch.randn(20, 11)
    actions, noise, log_probs, values = policy.act(obs, 8, torch.Generator().manual_seed(5))
    mean, value = policy.evaluate(policy.normalizer(obs), 8)
    torch.testing.assert_close(noise, (actions - mean) / policy.log_std.exp(), rtol=1e-4, atol=1e-5)
    expected = Normal(mean, policy.log_std.exp()).log_prob(actions).sum(-1)
    torch.testing.assert_close(log_probs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(values, policy.return_normalizer.denormalize(value, 8))
    torch.testing.assert_close(policy.values(obs, 8), values)
    torch.testing.assert_close(mean[:8], policy.action_mean(obs[:8], "base"))
    torch.testing.assert_close(mean[8:], policy.action_mean(obs[8:], "adapted"))


def test_samples_have_the_stated_distribution() -> None:
    policy = make_policy()
    obs = torch.randn(1, 11).expand(40_000, 11)
    actions = policy.act(obs, 0).actions
    torch.testing.assert_close(actions.mean(0), policy.action_mean(obs[:1], "adapted")[0], rtol=0.0, atol=0.05)
    torch.testing.assert_close(actions.std(0), policy.log_std.exp(), rtol=0.02, atol=0.0)


def test_paired_rows_have_the_same_noise() -> None:
    """Low row i and high row i of 5 pairs; all others as without pairs."""
    policy = make_policy()
    obs = torch.randn(20, 11)
    plain, paired = (policy.act(obs, 12, torch.Generator().manual_seed(5), pairs).actions for pairs in (0, 5))
    mean = torch.cat((policy.action_mean(obs[:12], "base"), policy.action_mean(obs[12:], "adapted")))
    assert torch.equal(plain[5:], paired[5:]) and not torch.equal(plain[:5], paired[:5])
    torch.testing.assert_close((paired - mean)[:5], (paired - mean)[12:17], rtol=1e-4, atol=1e-5)
    log_probs = policy.act(obs, 12, torch.Generator().manual_seed(5), 5).log_probs
    expected = Normal(mean, policy.log_std.exp()).log_prob(paired).sum(-1)
    torch.testing.assert_close(log_probs, expected, rtol=1e-4, atol=1e-5)


@two_networks_or_one
@pytest.mark.parametrize("policy_name", ["base", "adapted"])
def test_merged_actor_equals_the_policy(policy_name: str, critic: list[int] | None) -> None:
    policy = make_policy(critic_hidden=critic)
    obs = torch.randn(20, 11)
    plain = policy.merged_actor(policy_name)  # type: ignore[arg-type]
    torch.testing.assert_close(plain(obs), policy.action_mean(obs, policy_name))  # type: ignore[arg-type]
    assert not [name for name, _ in plain.named_modules() if "dual" in name.lower()]


def change_weights(policy: DualActorCritic, way: str) -> None:
    if way == "fused optimizer":  # leaves the parameters' version counters as they were
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.1, fused=True)
        policy.evaluate(torch.randn(20, policy.num_obs), 10)[0].sum().backward()
        optimizer.step()
    elif way == "load_state_dict":
        policy.load_state_dict(make_policy(1).state_dict())
    elif way == "through .data":
        policy.actor.output_layer.bias_delta.data.fill_(1.0)
    elif way == "replaced .data":
        policy.actor.output_layer.bias.data = torch.ones(3)
    else:
        policy.hidden_dtype = torch.bfloat16


@pytest.mark.parametrize("way", ["fused optimizer", "load_state_dict", "through .data", "replaced .data", "dtype"])
def test_stale_weights_are_never_used_silently(way: str) -> None:
    """Whatever way the weights change, the next action comes from the new ones; in frozen_weights() it is an error."""
    policy = make_policy(0)
    obs = torch.randn(20, 11)
    before = policy.action_mean(obs, "adapted")
    with policy.frozen_weights():
        assert policy._merged() is policy._merged()
        assert torch.equal(policy.action_mean(obs, "adapted"), before)
    change_weights(policy, way)
    after = policy.action_mean(obs, "adapted")
    assert not torch.equal(after, before)
    tolerance = 0.1 if way == "dtype" else 1e-5
    torch.testing.assert_close(after, policy.merged_actor("adapted")(obs), rtol=tolerance, atol=tolerance)

    policy = make_policy(0)
    with pytest.raises(RuntimeError, match="stale"), policy.frozen_weights():
        change_weights(policy, way)
    assert policy._frozen is None


def test_parameters_are_split_completely() -> None:
    policy = make_policy()
    base, adapter = policy.base_parameters(), policy.adapter_parameters()
    assert {id(p) for p in policy.parameters()} == {id(p) for p in base} | {id(p) for p in adapter}
    assert not {id(p) for p in base} & {id(p) for p in adapter}
    # three actor and two critic layers; the heads (3 and 1 outputs, rank 4) have no A
    assert len(adapter) == 5 * 3 - 2 and len(base) == 5 * 2 + 1
    low_only, _ = policy.evaluate(torch.randn(9, 11), 9)
    low_only.sum().backward()
    assert all(p.grad is None for p in adapter)


@two_networks_or_one
@pytest.mark.parametrize("sizes", [(40, 60), (100, 0), (0, 100)])
def test_new_return_statistics_change_no_prediction(sizes: tuple[int, int], critic: list[int] | None) -> None:
    policy = make_policy(critic_hidden=critic)
    obs = torch.randn(30, 11)
    before, means = policy.values(obs, 10), policy.both_means(obs)
    policy.update_return_statistics(torch.randn(sizes[0]) * 30.0 + 100.0, torch.randn(sizes[1]) * 3.0 - 50.0)
    torch.testing.assert_close(policy.values(obs, 10), before, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(policy.both_means(obs), means, strict=True))


def test_adapter_stays_zero_without_high_data() -> None:
    policy = make_policy(trained=False)
    for scale in (10.0, 20.0, 5.0):
        policy.update_return_statistics(torch.randn(50) * scale + scale, torch.zeros(0))
    assert not policy.critic.output_layer.lora_b.any() and not policy.critic.output_layer.bias_delta.any()


def test_state_round_trip_and_copies() -> None:
    policy, other = make_policy(0), make_policy(1)
    obs = torch.randn(20, 11)
    other.load_state_dict(policy.state_dict())
    clone = copy.deepcopy(policy)
    for twin in (other, clone):
        for ours, theirs in zip(
            policy.act(obs, 7, torch.Generator().manual_seed(0)),
            twin.act(obs, 7, torch.Generator().manual_seed(0)),
            strict=True,
        ):
            assert torch.equal(ours, theirs)


def test_adapter_ratio() -> None:
    policy = make_policy(trained=False)
    assert policy.adapter_ratio().item() == 0.0
    head = policy.actor.output_layer
    with torch.no_grad():
        head.lora_b.fill_(2.0)  # 3 x 16 entries: norm² = 192
    layers = [layer for network in (policy.actor, policy.critic) for layer in network.dual_layers()]
    total = sum(layer.weight.square().sum().item() for layer in layers)
    assert policy.adapter_ratio().item() == pytest.approx((192.0 / total) ** 0.5, rel=1e-5)


def test_first_actions_are_noise_and_first_values_are_small() -> None:
    policy = make_policy(trained=False)
    obs = 5.0 * torch.randn(500, 11)
    assert policy.action_mean(obs, "adapted").abs().max() < 0.2
    assert policy.values(obs, 250).abs().max() < 0.2


def observations_that_differ_in_private() -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches (20, 11) that agree in all but the last 4 columns."""
    obs = torch.randn(20, 11)
    return obs, torch.cat((obs[:, :7], 3.0 * torch.randn(20, 4)), 1)


def test_only_the_critic_sees_privileged_columns() -> None:
    policy = make_policy(num_privileged=4)
    obs, other = observations_that_differ_in_private()
    for name in ("base", "adapted"):
        assert torch.equal(policy.action_mean(obs, name), policy.action_mean(other, name))  # type: ignore[arg-type]
    for ours, theirs in zip(policy.both_means(obs), policy.both_means(other), strict=True):
        assert torch.equal(ours, theirs)
    first, second = (policy.act(x, 8, torch.Generator().manual_seed(3)) for x in (obs, other))
    assert torch.equal(first.actions, second.actions) and torch.equal(first.log_probs, second.log_probs)
    assert ((first.values - second.values).abs() > 1e-4).all()
    assert ((policy.values(obs, 8) - policy.values(other, 8)).abs() > 1e-4).all()
    x = policy.normalizer(obs).requires_grad_()
    mean, value = policy.evaluate(x, 8)
    (of_actor,) = torch.autograd.grad(mean.square().sum(), x)
    (of_critic,) = torch.autograd.grad(value.square().sum(), x)
    assert not of_actor[:, 7:].any() and of_actor[:, :7].all()
    assert of_critic.all()


def test_the_divergence_does_not_see_privileged_columns() -> None:
    policy = make_policy(num_privileged=4)
    first, second = (policy_divergence(policy, x) for x in observations_that_differ_in_private())
    assert first is not None and second is not None
    assert first > 0.0 and torch.equal(first, second)


@pytest.mark.parametrize("policy_name", ["base", "adapted"])
def test_a_merged_actor_takes_the_policys_columns(policy_name: str) -> None:
    policy = make_policy(num_privileged=4)
    obs = torch.randn(20, 11)
    plain = policy.merged_actor(policy_name)  # type: ignore[arg-type]
    torch.testing.assert_close(plain(obs[:, :7]), policy.action_mean(obs, policy_name))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        plain(obs)
