"""The update's gradients against autograd: what of the two losses reaches θ and φ."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_dual_ppo import NUM_ENVS, make_algorithm, roll_out, train
from torch import Tensor

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.rollout import RolloutStorage

ONE_STEP: dict[str, Any] = {
    "minibatch_size": NUM_ENVS * 8,
    "mini_epochs": 1,
    "truncate_grads": False,
    "normalize_value": False,
    "normalize_input": False,
    "clip_value": False,
    "bounds_loss_coef": 0.0,
}


def trained(**changes: Any) -> DualPPO:
    """An algorithm whose adapter has begun to differ, with no statistics but 0 and 1."""
    algorithm = make_algorithm(**{**ONE_STEP, **changes})
    train(algorithm, 5)
    return algorithm


def rollout(algorithm: DualPPO, n_low: int) -> RolloutStorage:
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low, seed=77)
    return storage


def reference_gradients(
    algorithm: DualPPO, storage: Any, n_low: int
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """∇_θ L_low, ∇_θ L_high and ∇_φ L_high of the whole rollout by autograd, from a copy of the policy: A has been
    standardised, and returns and values are in the critic's units."""
    policy, config = copy.deepcopy(algorithm.policy), algorithm.config
    sides = []
    for rows, low in ((slice(0, n_low), True), (slice(n_low, NUM_ENVS), False)):

        def flat(x: Tensor, rows: slice = rows) -> Tensor:
            return x[:, rows].flatten(0, 1)

        obs, count = flat(storage.observations), storage.observations[:, rows].shape[:2].numel()
        mean, value = policy.evaluate(policy.normalizer(obs), count if low else 0)
        log_prob = torch.distributions.Normal(mean, policy.log_std.exp()).log_prob(flat(storage.actions)).sum(-1)
        ratio = torch.exp(log_prob - flat(storage.log_probs))
        advantages = flat(storage.advantages)
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        loss = -torch.min(advantages * ratio, advantages * ratio.clamp(1 - config.e_clip, 1 + config.e_clip)).mean()
        loss = loss + 0.5 * config.critic_coef * (value - flat(storage.returns)).square().mean()
        sides.append(loss)
    base = {n: p for n, p in policy.named_parameters() if any(p is q for q in policy.base_parameters())}
    adapter = {n: p for n, p in policy.named_parameters() if n not in base}

    def gradients(loss: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        return dict(zip(parameters, parts, strict=True))

    return gradients(sides[0], base), gradients(sides[1], base), gradients(sides[1], adapter)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1000, 50])
@pytest.mark.parametrize(("weighting", "weights"), [("sum", (1.0, 1.0)), ("share", (9 / 24, 15 / 24))])
def test_theta_gets_both_losses_and_phi_that_of_high(
    weighting: str, weights: tuple[float, float], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """∇_θ is w_low ∇ L_low + w_high ∇ L_high, ∇_φ is w_high ∇ L_high."""
    monkeypatch.setattr("dualfid_robot.algorithms.minibatches.MAX_CHUNK_ROWS", most)
    algorithm = trained(loss_weighting=weighting)
    storage = rollout(algorithm, 9)
    low, high, adapter = reference_gradients(algorithm, storage, 9)
    algorithm.update(storage, 0.0)
    gradients = {name: p.grad for name, p in algorithm.policy.named_parameters()}
    for name in low:
        expected = weights[0] * low[name] + weights[1] * high[name]
        torch.testing.assert_close(gradients[name], expected, rtol=2e-3, atol=2e-6)
    for name in adapter:
        torch.testing.assert_close(gradients[name], weights[1] * adapter[name], rtol=2e-3, atol=2e-6)
