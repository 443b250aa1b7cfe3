"""The one-sided gate: by hand, its guarantee, its estimate of the cosine, and the update's θ-gradient by autograd."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
from test_dual_ppo import NUM_ENVS, make_algorithm, roll_out, train
from torch import Tensor

from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
from dualfid_robot.algorithms.research.gradient_gate import MEMORY, GradientGate, debiased_cosine

Halves = list[list[Tensor]]
SIZES = (4, 4, 4, 4)


def halves(*gradient: Tensor) -> Halves:
    """An exact gradient: both halves say the same, and each is half of the mean."""
    return [[0.5 * part for part in gradient] for _ in range(2)]


def gated(gate: GradientGate, low: Halves, high: Halves, weights: tuple[float, float] = (1.0, 1.0)) -> list[Tensor]:
    """g_θ as ``GateFactors`` says."""
    factors = gate(low, high, SIZES)
    g_low, g_high = ([a + b for a, b in zip(*side, strict=True)] for side in (low, high))
    return [
        weights[1] * h + weights[0] * (factors.low[block] * g - factors.along_high[block] * h)
        for g, h, block in zip(g_low, g_high, gate.blocks, strict=True)
    ]


@pytest.mark.parametrize(("kind", "agreeing"), [("project", (3.0, 2.0)), ("cosine", (2.6, 1.2))])
def test_by_hand(kind: Literal["project", "cosine"], agreeing: tuple[float, float]) -> None:
    """Block 0: g_h = (3, 4), g_l = (−3, 0): ⟨g_l, g_h⟩ = −9 of 25, P(g_l) = (−3 + 27/25, 36/25); cosine drops it.
    Block 1: g_h = (2, 0), g_l = (1, 2)/... with cos = 0.6: kept, or scaled by 0.6."""
    gate = GradientGate([0, 1], kind)
    low = halves(torch.tensor([-3.0, 0.0]), torch.tensor([1.0, 4.0 / 3.0]))
    high = halves(torch.tensor([3.0, 4.0]), torch.tensor([2.0, 0.0]))
    first, second = gated(gate, low, high)
    kept = torch.tensor([-3.0 + 27.0 / 25.0, 36.0 / 25.0]) if kind == "project" else torch.zeros(2)
    torch.testing.assert_close(first, torch.tensor([3.0, 4.0]) + kept)
    scale = 1.0 if kind == "project" else 0.6
    torch.testing.assert_close(second, torch.tensor([2.0 + scale, scale * 4.0 / 3.0]))
    assert first @ torch.tensor([3.0, 4.0]) == pytest.approx(25.0)
    metrics = gate.take_metrics()
    assert metrics["gate/cosine"].item() == pytest.approx((-0.6 + 0.6) / 2, abs=1e-6)
    assert metrics["gate/projected"].item() == 0.5


def test_a_block_is_a_layer() -> None:
    """A weight that agrees and a bias that conflicts are one block: what counts is their common product."""
    high = halves(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]))
    low = halves(torch.tensor([[3.0, 5.0]]), torch.tensor([-1.0]))  # 3 − 2 > 0
    together = gated(GradientGate([0, 0], "project"), low, high)
    assert together[0].tolist() == [[4.0, 5.0]] and together[1].tolist() == [1.0]
    apart = gated(GradientGate([0, 1], "project"), low, high)
    assert apart[0].tolist() == [[4.0, 5.0]] and apart[1].tolist() == [2.0]
    blocks = make_algorithm().policy
    numbers = blocks.blocks(blocks.base_parameters())
    names = [name for name, p in blocks.named_parameters() if any(p is q for q in blocks.base_parameters())]
    by_layer: dict[int, set[str]] = {}
    for name, number in zip(names, numbers, strict=True):
        by_layer.setdefault(number, set()).add(name.rpartition(".")[0])
    assert len(by_layer) == 3 + 2 + 1 and all(len(layers) == 1 for layers in by_layer.values())


@pytest.mark.parametrize("kind", ["project", "cosine"])
def test_the_base_never_moves_against_the_high_objective(kind: Literal["project", "cosine"]) -> None:
    """⟨g_θ, g_h⟩ ≥ ‖g_h‖² in every block for exact gradients; without the gate it is negative now and then."""
    generator = torch.Generator().manual_seed(0)
    harmed = 0
    for weight in (0.2, 1.0, 19.0):
        for _ in range(50):
            g_low, g_high = torch.randn(2, 3, 7, generator=generator).unbind()
            gate = GradientGate([0, 1, 2], kind)
            result = gated(gate, halves(*g_low.unbind()), halves(*g_high.unbind()), (weight, 1.0))
            for g, low, high in zip(result, g_low, g_high, strict=True):
                assert (g @ high).item() >= (high @ high).item() * (1.0 - 1e-5)
                harmed += int((high + weight * low) @ high < 0.0)
    assert harmed > 20


def test_the_cosine_of_noisy_gradients_is_unbiased() -> None:
    """True cosine 0.8, noise of norm 4 in each half of a gradient of norm 1: the plain cosine is near 0, that of the
    smoothed products is 0.8."""
    generator = torch.Generator().manual_seed(1)
    true_low = torch.zeros(400)
    true_low[0] = 1.0
    true_high = torch.zeros(400)
    true_high[:2] = torch.tensor([0.8, 0.6])
    gate = GradientGate([0], "cosine")
    products, plain = torch.zeros(3, dtype=torch.float64), []
    for _ in range(3000):
        noisy = [[[0.5 * (mean + 0.2 * torch.randn(400, generator=generator))] for _ in range(2)]
                 for mean in (true_low, true_high)]  # fmt: skip
        gate(noisy[0], noisy[1], SIZES)
        products += gate._products[:, 0]
        plain.append(torch.cosine_similarity(noisy[0][0][0] + noisy[0][1][0], noisy[1][0][0] + noisy[1][1][0], dim=0))
    assert torch.stack(plain).mean().item() < 0.2
    averaged = debiased_cosine(*products[:, None].unbind())
    assert averaged.item() == pytest.approx(0.8, abs=0.04)
    torch.testing.assert_close(products / 3000, torch.tensor([0.8, 1.0, 1.0]).double(), rtol=0.05, atol=0.0)


def test_halves_of_different_sizes() -> None:
    """Means g of a half of 1 and a half of 3 samples: the parts are g/4 and 3g/4, and the norm is still ‖g‖²."""
    g = torch.tensor([3.0, 4.0])
    gate = GradientGate([0], "project")
    gate([[0.25 * g], [0.75 * g]], [[0.5 * g], [0.5 * g]], (1, 3, 2, 2))
    torch.testing.assert_close(gate._products[:, 0] / (1.0 - MEMORY), torch.full((3,), 25.0).double())
    before = gate._products.clone()
    gate([[torch.zeros(2)], [g]], [[0.5 * g], [0.5 * g]], (0, 4, 2, 2))  # one environment has no second half
    assert torch.equal(gate._products, before)


def test_unknown_norms_leave_the_sign() -> None:
    values = torch.tensor([3.0, -3.0, 0.0, 3.0, -3.0]).double()
    low = torch.tensor([-1.0, 1.0, 0.0, 4.0, 4.0]).double()
    high = torch.tensor([1.0, -1.0, 0.0, 9.0, 0.25]).double()
    assert debiased_cosine(values, low, high).tolist() == pytest.approx([1.0, -1.0, 1.0, 0.5, -1.0])


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


@pytest.mark.parametrize("weighting", ["sum", "share"])
@pytest.mark.parametrize("kind", ["project", "cosine"])
@pytest.mark.parametrize("most", [1000, 50])
def test_the_updates_gradient_against_autograd(kind: str, weighting: str, most: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("dualfid_robot.algorithms.minibatches.MAX_CHUNK_ROWS", most)
    algorithm = trained(gradient_gate=kind, loss_weighting=weighting)
    assert algorithm.gate is not None
    algorithm.gate._products.zero_()
    n_low = 9
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low, seed=77)
    storage.rewards[:, :n_low].normal_(generator=torch.Generator().manual_seed(2))  # so that some blocks conflict
    algorithm.compute_returns(storage, storage.observations[0])
    low, high, adapter = reference_gradients(algorithm, storage, n_low)
    weights = (n_low / NUM_ENVS, 1.0 - n_low / NUM_ENVS) if weighting == "share" else (1.0, 1.0)
    metrics = read_back(algorithm.update(storage, 0.0))
    cosines = debiased_cosine(*algorithm.gate._products.unbind()).tolist()
    assert min(cosines) < 0.0 < max(cosines)  # both branches
    assert metrics["gate/cosine"] == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)
    layers = [f"{net}.layers.{i}" for net, count in (("actor", 3), ("critic", 2)) for i in range(count)]
    for name, block in ((n, layers.index(n.rpartition(".")[0]) if "layers" in n else 5) for n in low):
        names = [n for n in low if n.startswith(f"{layers[block]}.")] if block < 5 else ["log_std"]
        dot = sum((low[n] * high[n]).sum() for n in names)
        square = sum(high[n].square().sum() for n in names)
        kept = low[name]
        if cosines[block] < 0.0:
            kept = kept - dot / square * high[name]
        if kind == "cosine":
            kept = max(cosines[block], 0.0) * kept
        ours = dict(algorithm.policy.named_parameters())[name].grad
        torch.testing.assert_close(ours, weights[1] * high[name] + weights[0] * kept, rtol=2e-3, atol=2e-6)
    for name, expected in adapter.items():
        ours = dict(algorithm.policy.named_parameters())[name].grad
        torch.testing.assert_close(ours, weights[1] * expected, rtol=2e-3, atol=2e-6)


def test_halves_are_different_environments() -> None:
    algorithm = make_algorithm(gradient_gate="project")
    storage = algorithm.make_storage(NUM_ENVS)
    storage.begin(11)
    storage.log_probs.copy_(torch.arange(8.0 * NUM_ENVS).view(8, NUM_ENVS))  # names the sample
    minibatches = algorithm._shuffled_minibatches(storage, halves=True)
    groups: list[set[int]] = [set(), set(), set(), set()]
    seen = []
    for chunks in minibatches:
        for chunk in chunks:
            assert chunk.n_low == sum(chunk.sizes[:2]) and len(chunk.sizes) == 4
            for group, part in enumerate(chunk.batch.log_probs.long().split(chunk.sizes)):
                groups[group] |= {sample % NUM_ENVS for sample in part.tolist()}
                seen += part.tolist()
    assert sorted(seen) == list(range(8 * NUM_ENVS)) and len(minibatches) == 4
    assert groups[0] | groups[1] == set(range(11)) and groups[2] | groups[3] == set(range(11, NUM_ENVS))
    assert not groups[0] & groups[1] and not groups[2] & groups[3]


@pytest.mark.parametrize("n_low", [0, 1, 23, 24])
def test_extreme_allocations(n_low: int) -> None:
    """Without one of the fidelities there is nothing to gate: the same as without a gate, to the bit."""
    algorithm = make_algorithm(gradient_gate="cosine")
    metrics = train(algorithm, 3, n_low)
    assert all(math.isfinite(value) for value in metrics.values())
    assert ("gate/cosine" in metrics) == (0 < n_low < NUM_ENVS)
    if n_low in (0, NUM_ENVS):
        plain = make_algorithm()
        assert train(plain, 3, n_low) == metrics


def test_the_gates_state_goes_on() -> None:
    whole, part, resumed = (make_algorithm(seed, gradient_gate="project") for seed in (0, 0, 99))
    expected = train(whole, 4)
    train(part, 2)
    resumed.policy.load_state_dict(copy.deepcopy(part.policy.state_dict()))
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    assert train(resumed, 2, first=2) == expected
    assert make_algorithm().state_dict().keys() == {"base_optimizer", "adapter_optimizer", "generator"}
    resumed.load_state_dict(make_algorithm().state_dict())  # made without a gate


@pytest.mark.slow
def test_with_contrary_rewards_the_gate_protects_the_high_fidelity() -> None:
    """Low's best action is the negative of high's and both share one policy: as many low rows as high ones drag it to
    the middle without a gate, and hardly with one."""
    errors = {}
    for gate in ("none", "project", "cosine"):
        algorithm = make_algorithm(
            adapter="none", gradient_gate=gate, horizon_length=16, minibatch_size=192, mini_epochs=4, gamma=0.0
        )
        train(algorithm, 40)
        obs = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3))
        target = 0.5 * torch.stack((obs[:, 0], -obs[:, 1]), 1)
        errors[gate] = (algorithm.policy.action_mean(obs, "base") - target).square().sum(1).mean().item()
    assert errors["none"] > 0.2
    assert errors["project"] < 0.5 * errors["none"] and errors["cosine"] < 0.2 * errors["none"]
