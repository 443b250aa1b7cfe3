"""The update: what reaches whom, how samples are split, determinism, resuming, and learning."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from default_settings import ppo_config
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.research import algorithm_class
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.statistics import standardised
from dualfid_robot.errors import ConfigError, NotFiniteError
from dualfid_robot.policies.actor_critic import AdapterKind, DualActorCritic
from dualfid_robot.settings import parse_settings

NUM_OBS, NUM_ACTIONS, NUM_ENVS = 6, 2, 24
SMALL: dict[str, Any] = {
    "horizon_length": 8,
    "minibatch_size": 48,
    "mini_epochs": 2,
    "mixed_precision": False,
    "kl_threshold": 0.008,
}


def make_algorithm(
    seed: int = 0,
    ranks: Communicator = ALONE,
    device: str = "cpu",
    adapter: AdapterKind = "lora",
    **changes: Any,
) -> DualPPO:
    generator = torch.Generator().manual_seed(seed)
    policy = DualActorCritic(
        NUM_OBS, NUM_ACTIONS, actor_hidden=[32, 16], critic_hidden=[32], rank=4, adapter=adapter, generator=generator
    )
    config = ppo_config(**{**SMALL, **changes})
    return algorithm_class(config)(policy, config, device, seed, ranks)


def roll_out(algorithm: DualPPO, storage: RolloutStorage, n_low: int, seed: int = 0) -> None:
    """One rollout of a contextual bandit with episode ends: the best action is ½ (obs_0, ±obs_1), where the sign is the
    fidelity's, so the two policies must come to differ."""
    device = storage.returns.device
    generator = torch.Generator(device).manual_seed(seed)
    n = storage.num_envs
    sign = torch.ones(n, device=device)
    sign[n_low:] = -1.0
    storage.begin(n_low)
    obs = torch.randn(n, NUM_OBS, generator=generator, device=device)
    for _ in range(storage.horizon):
        actions, noise, log_probs, values = algorithm.policy.act(obs, n_low, generator)
        target = torch.stack((obs[:, 0], sign * obs[:, 1]), 1)
        rewards = -(actions - 0.5 * target).square().sum(1)
        ends = torch.rand(2, n, generator=generator, device=device) < 0.1
        following = torch.randn(n, NUM_OBS, generator=generator, device=device)
        storage.add(obs, actions, noise, log_probs, values, rewards, ends[0], ends[1], following)
        obs = following
    algorithm.compute_returns(storage, obs)


def train(algorithm: DualPPO, iterations: int, n_low: int = 12, first: int = 0) -> dict[str, float]:
    storage = algorithm.make_storage(NUM_ENVS)
    metrics: dict[str, float] = {}
    for i in range(first, first + iterations):
        roll_out(algorithm, storage, n_low, seed=i)
        metrics = read_back(algorithm.update(storage, 0.0))
    return metrics


def snapshot(parameters: list[torch.nn.Parameter]) -> list[Tensor]:
    return [p.detach().clone() for p in parameters]


def test_low_data_alone_never_moves_the_adapter() -> None:
    algorithm = make_algorithm(adapter_weight_decay=0.1)
    before = snapshot(algorithm.policy.adapter_parameters())
    metrics = train(algorithm, 3, n_low=NUM_ENVS)
    for old, new in zip(before, algorithm.policy.adapter_parameters(), strict=True):
        assert torch.equal(old, new) and new.grad is None
    assert metrics["grad_norm/adapter"] == 0.0
    assert not any(name.endswith("/high") for name in metrics)
    assert metrics["learning_rate/adapter"] == pytest.approx(0.1 * metrics["learning_rate/base"])


def test_the_adapters_gradient_does_not_depend_on_low_data() -> None:
    """One gradient step with the same high samples and quite different low ones: φ moves to the same place."""
    results = []
    for low_reward in (0.0, 1000.0):
        algorithm = make_algorithm(minibatch_size=NUM_ENVS * 8, mini_epochs=1, truncate_grads=False)
        storage = algorithm.make_storage(NUM_ENVS)
        roll_out(algorithm, storage, 10)
        storage.rewards[:, :10] += low_reward * torch.randn(8, 10, generator=torch.Generator().manual_seed(1))
        algorithm.compute_returns(storage, storage.observations[0])
        algorithm.update(storage, 0.0)
        results.append(algorithm)
    value_heads = [a.policy.critic.output_layer for a in results]
    for a, b in zip(*(r.policy.adapter_parameters() for r in results), strict=True):
        if a is not value_heads[0].lora_b and a is not value_heads[0].bias_delta:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    # the value head's base weights follow the scale of low returns, so there W + δ is what stays the same
    for name, delta in (("weight", "lora_b"), ("bias", "bias_delta")):
        a, b = (getattr(head, name) + getattr(head, delta) for head in value_heads)
        torch.testing.assert_close(a, b, rtol=1e-2, atol=5e-3)
    bases = [snapshot(a.policy.base_parameters()) for a in results]
    assert any(not torch.allclose(a, b, atol=1e-5) for a, b in zip(*bases, strict=True))


@settings(deadline=None, max_examples=30)
@given(n_low=st.integers(0, NUM_ENVS), most=st.sampled_from([7, 16, 1000]))
def test_minibatches_do_not_depend_on_the_allocation(n_low: int, most: int) -> None:
    """Always K = 24·8/48 mini-batches; each with 1/K of either fidelity; every sample exactly once, on its own side."""
    algorithm = make_algorithm()
    storage = algorithm.make_storage(NUM_ENVS)
    storage.begin(n_low)
    storage.log_probs.copy_(torch.arange(8.0 * NUM_ENVS).view(8, NUM_ENVS))  # names the sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dualfid_robot.algorithms.minibatches.MAX_CHUNK_ROWS", most)
        minibatches = algorithm.shuffled_minibatches(storage)
    assert len(minibatches) == 4
    seen: list[int] = []
    for chunks in minibatches:
        low = torch.cat([chunk.batch.log_probs[: chunk.n_low] for chunk in chunks]).long()
        high = torch.cat([chunk.batch.log_probs[chunk.n_low :] for chunk in chunks]).long()
        assert abs(len(low) - 2 * n_low) <= len(chunks) and abs(len(high) - 2 * (NUM_ENVS - n_low)) <= len(chunks)
        assert (low % NUM_ENVS < n_low).all() and (high % NUM_ENVS >= n_low).all()
        assert all(chunk.batch.log_probs.shape[0] <= most + 2 for chunk in chunks)
        seen += low.tolist() + high.tolist()
    assert sorted(seen) == list(range(8 * NUM_ENVS))


@pytest.mark.parametrize(("n_low", "epochs"), [(0, 8), (6, 7), (12, 6), (18, 5), (24, 4)])
def test_cheap_rows_are_learnt_from_fewer_times(n_low: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    step = DualPPO.step
    monkeypatch.setattr(DualPPO, "step", lambda self, index: (steps.append(index), step(self, index))[1])
    algorithm = make_algorithm(mini_epochs=8, low_passes=0.5)
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low)
    algorithm.update(storage, 0.0)
    assert steps == [0, 1, 2, 3] * epochs


def test_an_iteration_has_at_least_one_epoch() -> None:
    assert ppo_config(mini_epochs=1, low_passes=0.0).num_epochs(24, 0) == 1


def test_chunks_change_nothing() -> None:
    """Accumulating a mini-batch in pieces is the same step as taking it at once."""
    results = []
    for chunk in (1000, 20):
        algorithm = make_algorithm(minibatch_size=NUM_ENVS * 8, lr_schedule="constant")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dualfid_robot.algorithms.minibatches.MAX_CHUNK_ROWS", chunk)
            metrics = train(algorithm, 2)
        results.append((metrics, snapshot(list(algorithm.policy.parameters()))))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-3, abs=1e-5)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_first_ratio_is_one() -> None:
    """On the first pass the policy is the one that acted: KL 0, nothing clipped. Holds only while no statistic changes
    between a rollout and its update."""
    for mixed_precision in (False, True):
        algorithm = make_algorithm(
            minibatch_size=NUM_ENVS * 8, mini_epochs=1, mixed_precision=mixed_precision, learning_rate=1e-2
        )
        for _ in range(3):
            metrics = train(algorithm, 1)
            for side in ("low", "high"):
                assert metrics[f"approx_kl/{side}"] < 1e-6 and metrics[f"clip_fraction/{side}"] == 0.0


@pytest.mark.parametrize("n_low", [0, 1, 23, 24])
def test_extreme_allocations_stay_finite(n_low: int) -> None:
    algorithm = make_algorithm()
    metrics = train(algorithm, 3, n_low=n_low)
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(torch.isfinite(p).all() for p in algorithm.policy.parameters())


def test_standardised_advantages() -> None:
    data = torch.randn(8, 3) * 4.0 + 2.0
    expected = (data.numpy() - data.numpy().mean()) / data.numpy().std()
    np.testing.assert_allclose(standardised(data, ALONE.gather).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert standardised(torch.tensor([[3.0]]), ALONE.gather).tolist() == [[0.0]]
    assert standardised(torch.zeros(8, 0), ALONE.gather).shape == (8, 0)
    std, mean = torch.std_mean(data, correction=0)
    assert torch.equal(standardised(data, ALONE.gather), (data - mean) / (std + 1e-8))


def test_truncated_episodes_use_the_value_of_the_final_observation() -> None:
    """With γ = 1, λ = 0 and no rewards, a truncated step's return is V of its final observation under its policy."""
    algorithm = make_algorithm(gamma=1.0, tau=0.0)
    with torch.no_grad():
        for p in algorithm.policy.critic.parameters():
            p.add_(0.3 * torch.randn(p.shape))
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, 12)
    storage.rewards.zero_()
    algorithm.compute_returns(storage, storage.observations[0])
    truncated = storage.truncated & ~storage.terminated
    checked = 0
    for t in range(8):
        values = algorithm.policy.values(storage.final_observations[t], 12)
        torch.testing.assert_close(storage.returns[t][truncated[t]], values[truncated[t]])
        assert not storage.returns[t][storage.terminated[t]].any()
        checked += int(truncated[t].sum())
    assert checked > 5


@pytest.mark.parametrize("weighting", ["sum", "share"])
def test_loss_weighting(weighting: str) -> None:
    """The gradient of one step against autograd on the two means, weighted as stated."""
    algorithm = make_algorithm(
        minibatch_size=NUM_ENVS * 8,
        mini_epochs=1,
        loss_weighting=weighting,
        truncate_grads=False,
        normalize_value=False,
        normalize_input=False,
        normalize_advantage=False,
        critic_coef=0.0,
        bounds_loss_coef=0.0,
    )
    n_low = 6
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low)
    policy = algorithm.policy
    twin = copy.deepcopy(policy)
    algorithm.update(storage, 0.0)

    order = torch.cat((torch.arange(n_low).repeat(8), torch.arange(n_low, NUM_ENVS).repeat(8)))
    steps = torch.cat((torch.arange(8).repeat_interleave(n_low), torch.arange(8).repeat_interleave(NUM_ENVS - n_low)))
    mean, _ = twin.evaluate(twin.normalizer(storage.observations[steps, order]), 8 * n_low)
    distribution = torch.distributions.Normal(mean, twin.log_std.exp())
    log_probs = distribution.log_prob(storage.actions[steps, order]).sum(-1)
    surrogate = -storage.advantages[steps, order] * torch.exp(log_probs - storage.log_probs[steps, order])
    low, high = surrogate[: 8 * n_low].mean(), surrogate[8 * n_low :].mean()
    (low + high if weighting == "sum" else 0.25 * low + 0.75 * high).backward()
    for ours, theirs in zip(policy.parameters(), twin.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_gradients_of_theta_and_phi_are_clipped_apart() -> None:
    for norm in (1e-3, 1e-4):
        algorithm = make_algorithm(grad_norm=norm, minibatch_size=NUM_ENVS * 8, mini_epochs=1)
        train(algorithm, 2)
        for parameters in (algorithm._base, algorithm._adapter):
            total = torch.sqrt(sum(p.grad.square().sum() for p in parameters if p.grad is not None))  # type: ignore[arg-type]
            assert total.item() == pytest.approx(norm, rel=1e-2)


def test_observation_statistics_weigh_both_fidelities_equally() -> None:
    algorithm = make_algorithm()
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, 4)
    storage.observations[:, 4:] += 10.0
    algorithm.update(storage, 0.0)
    assert algorithm.policy.normalizer.mean.tolist() == pytest.approx([5.0] * NUM_OBS, abs=0.5)
    fixed = make_algorithm(normalize_input=False)
    train(fixed, 1)
    assert not fixed.policy.normalizer.mean.any()


def test_update_is_deterministic() -> None:
    first, second, other = make_algorithm(0), make_algorithm(0), make_algorithm(0)
    other._generator.manual_seed(7)
    assert train(first, 3) == train(second, 3)
    train(other, 3)
    for a, b in zip(first.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.policy.parameters(), other.policy.parameters(), strict=True))


def test_resuming_continues_exactly() -> None:
    """4 iterations at once, and 2 + 2 through state dicts into fresh objects: the same to the bit."""
    whole, part, resumed = make_algorithm(0), make_algorithm(0), make_algorithm(99)
    expected = train(whole, 4)
    train(part, 2)
    resumed.policy.load_state_dict(copy.deepcopy(part.policy.state_dict()))
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    assert train(resumed, 2, first=2) == expected
    for a, b in zip(whole.policy.state_dict().values(), resumed.policy.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kl", [0.0, 0.003, 0.008, 0.02])
def test_adaptive_learning_rates(kl: float) -> None:
    """Threshold 0.008: up below 0.004, down above 0.016, by the greater KL; φ's rate is a multiple of θ's."""
    factor = 1.5 if kl < 0.004 else 1 / 1.5 if kl > 0.016 else 1.0
    samples = 8.0 * 12
    for sums in ([kl, 0.0], [0.0, kl]):
        algorithm = make_algorithm(learning_rate=1e-3, adapter_speed=0.2)
        storage = algorithm.make_storage(NUM_ENVS)
        storage.begin(12)
        algorithm.adapt_learning_rates(torch.tensor(sums) * samples, storage, progress=0.0)
        assert rates(algorithm) == pytest.approx((1e-3 * factor, 2e-4 * factor))
    for _ in range(100):
        algorithm.adapt_learning_rates(torch.tensor([0.0, kl]) * samples, storage, progress=0.0)
    if factor != 1.0:
        assert rates(algorithm)[0] == (1e-2 if factor > 1.0 else 1e-6)


def test_an_annealed_run_takes_ever_smaller_steps() -> None:
    """At its start it is an adaptive one to the bit; KL follows the threshold down, where an adaptive run's stays."""
    kl: dict[str, list[float]] = {}
    for schedule in ("adaptive", "annealed"):
        algorithm = make_algorithm(lr_schedule=schedule, kl_threshold=0.02)
        storage = algorithm.make_storage(NUM_ENVS)
        kl[schedule] = []
        for i in range(100):
            roll_out(algorithm, storage, 12, seed=i)
            metrics = read_back(algorithm.update(storage, i / 100))
            kl[schedule].append(max(metrics["approx_kl/low"], metrics["approx_kl/high"]))
    assert kl["annealed"][0] == kl["adaptive"][0]
    late = {schedule: sum(values[90:]) / 10 for schedule, values in kl.items()}
    assert late["adaptive"] > 0.005 and late["annealed"] < 0.3 * late["adaptive"]


def rates(algorithm: DualPPO) -> tuple[float, ...]:
    optimizers = (algorithm.base_optimizer, algorithm.adapter_optimizer)
    return tuple(float(optimizer.param_groups[0]["lr"]) for optimizer in optimizers)


def test_a_checkpoint_with_plain_learning_rates_is_taken_up() -> None:
    algorithm = make_algorithm()
    train(algorithm, 1)
    state = copy.deepcopy(algorithm.state_dict())
    for name in ("base_optimizer", "adapter_optimizer"):
        state[name]["param_groups"][0]["lr"] = float(state[name]["param_groups"][0]["lr"])
    resumed = make_algorithm()
    resumed.policy.load_state_dict(algorithm.policy.state_dict())
    resumed.load_state_dict(state)
    assert rates(resumed) == rates(algorithm)
    assert train(resumed, 1, first=1) == train(algorithm, 1, first=1)


def evaluate(algorithm: DualPPO) -> tuple[float, float]:
    """Mean squared distance to the best action: base policy in the low, adapted policy in the high fidelity."""
    obs = torch.randn(2000, NUM_OBS, generator=torch.Generator().manual_seed(1234))
    errors = []
    for name, sign in (("base", 1.0), ("adapted", -1.0)):
        target = 0.5 * torch.stack((obs[:, 0], sign * obs[:, 1]), 1)
        mean = algorithm.policy.action_mean(obs, name)  # type: ignore[arg-type]
        errors.append((mean - target).square().sum(1).mean().item())
    return errors[0], errors[1]


@pytest.mark.slow
def test_both_policies_learn_what_differs_between_the_fidelities_in_either_precision() -> None:
    """The best actions disagree in sign between fidelities, so one shared policy could not get below 0.25 on average;
    both must come well below it, with bfloat16 products as with float32."""
    results = {}
    for mixed_precision in (False, True):
        algorithm = make_algorithm(
            mixed_precision=mixed_precision, horizon_length=16, minibatch_size=192, mini_epochs=4, gamma=0.0
        )
        start = evaluate(algorithm)
        train(algorithm, 150)
        results[mixed_precision] = evaluate(algorithm)
        assert max(results[mixed_precision]) < 0.3 * min(start)
        assert max(results[mixed_precision]) < 0.125
    for exact, narrow in zip(results[False], results[True], strict=True):
        assert abs(exact - narrow) < 0.06


def test_bfloat16_update_is_close_to_float32() -> None:
    """From the same rollout, one update's change of the weights points the same way in both precisions."""
    results = []
    for mixed_precision in (False, True):
        algorithm = make_algorithm(
            mixed_precision=mixed_precision, lr_schedule="constant", minibatch_size=192, truncate_grads=False
        )
        storage = algorithm.make_storage(NUM_ENVS)
        source = make_algorithm()
        roll_out(source, storage, 12)
        before = torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])
        metrics = read_back(algorithm.update(storage, 0.0))
        after = torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()])
        results.append((metrics, after - before))
    assert torch.cosine_similarity(results[0][1], results[1][1], dim=0) > 0.97
    for name in ("policy_loss/low", "policy_loss/high", "value_loss/low", "value_loss/high"):
        assert results[0][0][name] == pytest.approx(results[1][0][name], rel=0.02, abs=2e-3)


def test_metrics_are_complete() -> None:
    metrics = train(make_algorithm(), 2)
    per_side = ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "explained_variance")
    assert set(metrics) == {f"{name}/{side}" for name in per_side for side in ("low", "high")} | {
        "policy/entropy",
        "policy/std",
        "grad_norm/base",
        "grad_norm/adapter",
        "learning_rate/base",
        "learning_rate/adapter",
        "adapter/ratio",
    }
    assert metrics["policy/entropy"] == pytest.approx(
        NUM_ACTIONS * (0.5 + 0.5 * math.log(2 * math.pi)) + NUM_ACTIONS * math.log(metrics["policy/std"]), abs=1e-3
    )
    assert 0.0 < metrics["adapter/ratio"] < 1.0


@pytest.mark.parametrize(("row", "side"), [(3, "low"), (20, "high")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_rewards_are_reported(row: int, side: str, value: float) -> None:
    algorithm = make_algorithm()
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, 12)
    storage.rewards[3, row] = value
    algorithm.compute_returns(storage, storage.observations[0])
    with pytest.raises(NotFiniteError, match=side):
        read_back(algorithm.update(storage, 0.0))


class NoHostSynchronisation(TorchDispatchMode):
    """Refuses the operations at which the host would wait for a GPU to learn a value or a size."""

    REFUSED = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "_unique2", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.REFUSED, f"{func} makes the host wait"
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        assert all(i is None or i.dtype != torch.bool for i in indices), f"{func} with a mask makes the host wait"
        return func(*args, **(kwargs or {}))


WAYS: dict[str, dict[str, Any]] = {
    "default": {"adapter_weight_decay": 0.1},
    "base learns from low": {"base_learns_from": "low"},
    "bit": {"adapter": "bit"},
    "one policy": {"adapter": "none", "loss_weighting": "share"},
}


@pytest.mark.parametrize("n_low", [0, 12, NUM_ENVS])
@pytest.mark.parametrize("way", WAYS)
def test_the_host_never_waits_for_a_gpu(way: str, n_low: int) -> None:
    """On the CPU's tensors, with the branches that a GPU takes."""
    algorithm = make_algorithm(**WAYS[way])
    train(algorithm, 1, n_low)
    storage = algorithm.make_storage(NUM_ENVS)
    algorithm.device = torch.device("cuda")
    with NoHostSynchronisation():
        with algorithm.policy.frozen_weights():
            roll_out(algorithm, storage, n_low)
        divergence = policy_divergence(algorithm.policy, storage.low_observations)
        metrics = algorithm.update(storage, 0.0)
    assert (divergence is None) == (n_low == 0)
    assert len(read_back(metrics)) > 8


@pytest.mark.gpu
@pytest.mark.parametrize("n_low", [0, 12, NUM_ENVS])
@pytest.mark.parametrize("way", WAYS)
def test_an_iteration_on_a_gpu_runs_without_host_synchronisation(way: str, n_low: int) -> None:
    algorithm = make_algorithm(device="cuda", **WAYS[way])
    train(algorithm, 2, n_low)  # libraries wait when they are first used
    storage = algorithm.make_storage(NUM_ENVS)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with algorithm.policy.frozen_weights():
            roll_out(algorithm, storage, n_low)
        policy_divergence(algorithm.policy, storage.low_observations)
        metrics = algorithm.update(storage, 0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(read_back(metrics)) > 8


@pytest.mark.gpu
def test_a_gpu_learns_as_the_cpu_does() -> None:
    """One update from the same rollout; only the order of the samples differs, so there is one mini-batch."""
    results = []
    source = make_algorithm()
    rollout = source.make_storage(NUM_ENVS)
    roll_out(source, rollout, 12)
    for device in ("cpu", "cuda"):
        algorithm = make_algorithm(device=device, minibatch_size=NUM_ENVS * 8, truncate_grads=True)
        storage = algorithm.make_storage(NUM_ENVS)
        storage.begin(12)
        for name, tensor in vars(rollout).items():
            if isinstance(tensor, Tensor):
                getattr(storage, name).copy_(tensor)
        algorithm.compute_returns(storage, storage.observations[0])
        metrics = read_back(algorithm.update(storage, 0.0))
        results.append((metrics, [p.detach().cpu() for p in algorithm.policy.parameters()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-3, abs=1e-4)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("n_low", [0, 5, NUM_ENVS])
def test_final_values_of_all_rows_are_those_of_the_truncated_ones(n_low: int) -> None:
    """What a GPU does to learn the values of final observations, and what a CPU does, give the same returns."""
    algorithm = make_algorithm()
    train(algorithm, 2)
    storage = algorithm.make_storage(NUM_ENVS)
    roll_out(algorithm, storage, n_low)
    expected = storage.returns.clone()
    storage.final_values.fill_(math.nan)
    storage.set_final_values(algorithm.policy.values(*storage.all_final_observations()))
    assert storage.truncated.any()
    last_values = algorithm.policy.values(storage.final_observations[-1], n_low)
    storage.compute_returns(last_values, algorithm.config.gamma, algorithm.config.tau)
    torch.testing.assert_close(storage.returns, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"gamma": 1.5}, ("gamma", "1.5", "[0, 1]")),
        ({"tau": -0.1}, ("tau", "-0.1", "[0, 1]")),
        ({"learning_rate": 0.0}, ("learning_rate", "0.0", "above 0")),
        ({"e_clip": "0.2"}, ("e_clip", "=0.2:", "a number")),
        ({"critic_coef": -1}, ("critic_coef", "-1", "in [0, 1e+30]")),
        ({"mini_epochs": 0}, ("mini_epochs", "0", "at least 1")),
        ({"low_passes": 1.5}, ("low_passes", "1.5", "1")),
        ({"horizon_length": 16.0}, ("horizon_length", "16.0", "a whole number")),
        ({"lr_schedule": "linear"}, ("lr_schedule", "=linear:", "['adaptive', 'annealed', 'constant']")),
        ({"loss_weighting": "mean"}, ("loss_weighting", "=mean:", "['sum', 'share']")),
        (
            {"mixed_precision": "yes"},
            ("mixed_precision", "=yes:", "True or False is expected; or allowed are ['auto']"),
        ),
        ({"base_learns_from": "high"}, ("base_learns_from", "=high:", "['both', 'low']")),
        (
            {"control_variate": True, "base_learns_from": "low"},
            ("base_learns_from", "=low:", "both with control_variate=True"),
        ),
        ({"clip_value": 1}, ("clip_value", "1", "True or False")),
        ({"minibatch_size": 50}, ("minibatch_size", "50", "24 · 8 = 192")),
        ({"clip": 0.2}, ("clip", "0.2", "e_clip")),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_settings(PPOConfig, {**asdict(ppo_config(**SMALL)), **changes}, "train.params.config").num_minibatches(
            NUM_ENVS
        )
    for part in ("train.params.config.", *parts):
        assert part in str(error.value)
