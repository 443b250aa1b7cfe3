"""The dial: W + λ·s·B·A, from the base policy at 0 over the adapted one at 1."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.policies.dual_linear import DualLinear
from dualfid_robot.transfer.matrix import dial_name


def policy(seed: int = 0) -> DualActorCritic:
    generator = torch.Generator().manual_seed(seed)
    made = DualActorCritic(5, 2, actor_hidden=(16, 12), critic_hidden=(8,), rank=3, alpha=6.0, generator=generator)
    with torch.no_grad():
        for layer in made.actor.dual_layers():
            layer.lora_b.copy_(torch.randn(layer.lora_b.shape, generator=generator))
            layer.bias_delta.copy_(torch.randn(layer.bias_delta.shape, generator=generator))
    return made


def test_both_policies_lie_on_it_to_the_bit() -> None:
    both, obs = policy(), torch.randn(64, 5)
    assert torch.equal(both.action_mean(obs, 0.0), both.action_mean(obs, "base"))
    assert torch.equal(both.action_mean(obs, 1.0), both.action_mean(obs, "adapted"))
    assert not torch.equal(both.action_mean(obs, 0.5), both.action_mean(obs, "adapted"))
    assert torch.equal(policy_agent(both, 0.5)(obs), both.action_mean(obs, 0.5))


def test_the_weights_by_hand() -> None:
    """s = alpha / √rank = 3; B·A = [[2, 4], [-1, -2], [0, 0]]; so at λ = 1/2 the weights gain 3/2 of that."""
    layer = DualLinear(2, 3, rank=1, alpha=3.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 7.0]]))
        layer.lora_a.copy_(torch.tensor([[1.0, 2.0]]))  # type: ignore[union-attr]
        layer.lora_b.copy_(torch.tensor([[2.0], [-1.0], [0.0]]))
        layer.bias_delta.copy_(torch.tensor([0.2, 0.0, -4.0]))
        layer.bias.fill_(1.0)
    half = layer.merged(dial=0.5)
    assert torch.equal(half.weight_high, torch.tensor([[4.0, 6.0], [-1.5, -2.0], [5.0, 7.0]]))
    assert torch.allclose(half.bias_high, torch.tensor([1.1, 1.0, -1.0]), atol=1e-7)
    assert torch.equal(half.weight_low, layer.weight) and torch.equal(half.bias_low, layer.bias)


def test_a_full_rank_adapter_by_hand() -> None:
    """A layer with no more outputs than the rank has no A: its B is the difference."""
    layer = DualLinear(2, 1, rank=4, alpha=8.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
        layer.lora_b.copy_(torch.tensor([[4.0, 2.0]]))
    assert layer.lora_a is None
    assert torch.equal(layer.merged(dial=1.5).weight_high, torch.tensor([[7.0, 2.0]]))


@settings(max_examples=50, deadline=None)
@given(dial=st.floats(0.0, 1.5), seed=st.integers(0, 100))
def test_weights_are_linear_in_it(dial: float, seed: int) -> None:
    for layer in policy(seed).double().actor.dual_layers():
        ends, found = layer.merged(), layer.merged(dial=dial)
        for low, high, between in zip(ends[:2], ends[2:], found[2:], strict=True):
            torch.testing.assert_close(between, (1 - dial) * low + dial * high, rtol=1e-12, atol=1e-12)


def test_a_policy_of_these_weights_in_numpy() -> None:
    """The whole network at λ = 0.7 against arithmetic of its own in float64."""
    both, obs = policy(4), torch.randn(20, 5)
    x = (obs.double() / math.sqrt(1 + 1e-5)).clamp(-5, 5).numpy()
    layers = list(both.actor.dual_layers())
    for layer in layers:
        adapter = layer.lora_b.detach().double().numpy()
        if layer.lora_a is not None:
            adapter = 6.0 / math.sqrt(3) * adapter @ layer.lora_a.detach().double().numpy()
        weight = layer.weight.detach().double().numpy() + 0.7 * adapter
        bias = (layer.bias.detach() + 0.7 * layer.bias_delta.detach()).double().numpy()
        x = x @ weight.T + bias
        if layer is not layers[-1]:
            x = torch.nn.functional.elu(torch.from_numpy(x)).numpy()
    torch.testing.assert_close(both.action_mean(obs, 0.7).double(), torch.from_numpy(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dial", "name"), [(0.0, "base"), (1.0, "adapted"), (0.25, "dial 0.25")])
def test_names(dial: float, name: str) -> None:
    assert dial_name(dial) == name
