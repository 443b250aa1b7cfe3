"""Two Gloo processes with half the rows each against one process with all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from default_settings import allocation_config
from test_dual_ppo import NUM_ENVS, make_algorithm, roll_out
from torch import Tensor

from dualfid_robot.algorithms import dual_ppo
from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.algorithms.communicator import ALONE, Communicator, ProcessGroup
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import read_back
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import SignalFilter

SIZE = 2
SAMPLES = NUM_ENVS * 8
ITERATIONS = 5
VARIANTS: dict[str, dict[str, Any]] = {
    "one mini-batch": {"minibatch_size": SAMPLES},
    "four mini-batches": {"minibatch_size": SAMPLES // 4},
    "share": {"minibatch_size": SAMPLES // 4, "loss_weighting": "share", "truncate_grads": False},
    "bit": {"minibatch_size": SAMPLES // 4, "adapter": "bit"},
    "one policy": {"minibatch_size": SAMPLES // 4, "adapter": "none"},
    "base learns from low": {"minibatch_size": SAMPLES // 4, "base_learns_from": "low"},
}
Outcome = tuple[dict[str, Tensor], dict[str, float], list[int]]


def own_rows(n_low: int, rank: int, size: int) -> Tensor:
    """A rank's rows of N: its part of the low ones, then its part of the high ones."""
    rows = torch.arange(NUM_ENVS)
    return torch.cat([side.tensor_split(size)[rank] for side in (rows[:n_low], rows[n_low:])])


def train(ranks: Communicator, changes: dict[str, Any]) -> Outcome:
    """Some iterations, allocation included, on this rank's rows of rollouts that every rank makes as a whole."""
    sizes = {"minibatch_size": changes["minibatch_size"] // ranks.size}
    algorithm = make_algorithm(ranks=ranks, **(changes | sizes))
    storage = algorithm.make_storage(NUM_ENVS // ranks.size)
    whole = RolloutStorage(storage.horizon, NUM_ENVS, algorithm.policy.num_obs, algorithm.policy.num_actions)
    rule = {"name": "exponential", "alpha": 300.0}
    allocator = Allocator(
        storage.num_envs, allocation_config(rule=rule, warmup_iterations=2, rate_limit=0.2, smoothing=0.5)
    )
    known = SignalFilter(NUM_ENVS, smoothing=0.5)
    allocations, metrics = [], {}
    for iteration in range(ITERATIONS):
        n_low = allocator.n_low * ranks.size
        allocations.append(n_low)
        roll_out(algorithm, whole, n_low, seed=iteration)
        storage.begin(n_low // ranks.size)
        rows = own_rows(whole.n_low, ranks.rank, ranks.size)
        for name in ("observations", "actions", "log_probs", "values", "rewards", "terminated", "truncated"):
            getattr(storage, name).copy_(getattr(whole, name)[:, rows])
        storage.final_observations.copy_(whole.final_observations[:, rows])
        algorithm.compute_returns(storage, whole.final_observations[-1, rows])
        divergence = policy_divergence(algorithm.policy, storage.low_observations)
        assert divergence is not None
        ranks.average_([divergence])
        metrics = read_back(algorithm.update(storage, 0.0))
        allocator.update(known.update({"divergence": divergence.item()}, iteration + 1, 0.0))
    return {name: value.clone() for name, value in algorithm.policy.state_dict().items()}, metrics, allocations


def composed_order(horizon: int, num_envs: int, rows: range, generator: torch.Generator) -> Tensor:
    """The samples in an order whose K-th parts are the K-th parts of both ranks, each shuffled as the rank does it."""
    own = len(rows) // SIZE
    parts = []
    for part in ORIGINAL_ORDER(horizon, own, range(own), generator).tensor_split(PIECES):
        steps, local = part // own, part % own
        parts += [steps * num_envs + rows.start + (rank * own + local) * rows.step for rank in range(SIZE)]
    return torch.cat(parts)


ORIGINAL_ORDER = dual_ppo.shuffled_indices
PIECES = 1


def run_rank(rank: int, folder: Path) -> None:
    """One process of the test."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=SIZE)
    ranks = ProcessGroup()
    check_primitives(ranks)
    torch.save({name: train(ranks, changes) for name, changes in VARIANTS.items()}, folder / f"{rank}.pt")
    dist.destroy_process_group()


def check_primitives(ranks: Communicator) -> None:
    """By hand, for two ranks."""
    assert ranks.size == 2
    tensors = [torch.full((2, 3), float(ranks.rank)), torch.tensor(4.0 + ranks.rank), torch.arange(3.0)[::2]]
    ranks.average_(tensors)
    assert tensors[0].tolist() == [[0.5] * 3] * 2 and tensors[1].item() == 4.5 and tensors[2].tolist() == [0.0, 2.0]
    assert ranks.gather(torch.tensor([1.0, 10.0 * ranks.rank])).tolist() == [[1.0, 0.0], [1.0, 10.0]]
    assert ranks.exchange({"rank": ranks.rank}) == [{"rank": 0}, {"rank": 1}]
    assert ranks.share(lambda: f"from {ranks.rank}") == "from 0"
    collected = ranks.collect((ranks.rank, torch.tensor([ranks.rank])))
    assert collected == ([(0, torch.tensor([0])), (1, torch.tensor([1]))] if ranks.rank == 0 else [])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(run_rank, (folder,), nprocs=SIZE)
    return [torch.load(folder / f"{rank}.pt") for rank in range(SIZE)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_ranks_with_half_the_rows_learn_what_one_learns(
    variant: str, outcomes: list[dict[str, Outcome]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters and statistics to 1e-5; metrics; the allocation. On both ranks the same to the bit."""
    first, second = (outcome[variant] for outcome in outcomes)
    for a, b in zip(first[0].values(), second[0].values(), strict=True):
        assert torch.equal(a, b)
    assert first[1:] == second[1:]

    monkeypatch.setattr(f"{__name__}.PIECES", SAMPLES // VARIANTS[variant]["minibatch_size"])
    monkeypatch.setattr(dual_ppo, "shuffled_indices", composed_order)
    state, metrics, allocations = train(ALONE, VARIANTS[variant])
    assert (len(set(allocations)) > 1 or "n_low" in VARIANTS[variant]) and allocations == first[2]
    for name, expected in state.items():
        torch.testing.assert_close(first[0][name], expected, rtol=0.0, atol=1e-5, check_dtype=True, msg=name)
    assert first[1] == pytest.approx(metrics, rel=1e-3, abs=1e-5)


def test_half_the_rows_alone_teach_something_else(outcomes: list[dict[str, Outcome]]) -> None:
    """So the agreement above is the reduction's doing."""

    class OneOfTwo(Communicator):
        size = 2

    alone, _, _ = train(OneOfTwo(), VARIANTS["one mini-batch"])
    together, _, _ = outcomes[0]["one mini-batch"]
    assert max((alone[name] - together[name]).abs().max().item() for name in alone) > 1e-2


def test_alone_is_everybody() -> None:
    tensor = torch.randn(3)
    before = tensor.clone()
    ALONE.average_([tensor])
    assert torch.equal(tensor, before) and torch.equal(ALONE.gather(tensor), before.unsqueeze(0))
    assert ALONE.exchange(5) == [5] and ALONE.share(lambda: 6) == 6 and ALONE.collect(7) == [7]
