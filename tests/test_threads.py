"""Blocks of work on threads, and how many CPUs a process may use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from default_settings import ppo_config

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.policies import mlp
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.threads import Threads, set_threads, threads, usable_cpus


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    set_threads(1)
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_every_item_is_done_once_by_a_known_worker(count: int) -> None:
    found: list[tuple[int, int]] = []
    several = Threads(count)
    several.map(lambda worker, item: found.append((worker, item)), range(50))
    several.close()
    assert sorted(item for _, item in found) == list(range(50))
    assert {worker for worker, _ in found} <= set(range(count))


@pytest.mark.alone
def test_threads_work_at_once_and_take_what_others_leave() -> None:
    """Two items that wait for each other finish; while one thread is held up, the other does all the rest."""
    both = threading.Barrier(2, timeout=10.0)
    several = Threads(2)
    several.map(lambda worker, item: both.wait(), range(2))
    done: list[int] = []

    def task(worker: int, item: int) -> None:
        if item == 0:
            while len(done) < 19:
                time.sleep(0.001)
        else:
            done.append(item)

    several.map(task, range(20))
    several.close()
    assert sorted(done) == list(range(1, 20))


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_task_raises_reaches_the_caller(count: int) -> None:
    several = Threads(count)
    with pytest.raises(ZeroDivisionError):
        several.map(lambda worker, item: 1 // item, [1, 0, 2])
    several.map(lambda worker, item: item, [1, 2])
    several.close()


def groups(path: Path, membership: str, files: dict[str, str]) -> dict[str, Path]:
    """A made-up /proc and /sys/fs/cgroup."""
    (path / "proc" / "self").mkdir(parents=True)
    (path / "proc" / "self" / "cgroup").write_text(membership)
    for name, text in files.items():
        file = path / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return {"proc": path / "proc", "cgroups": path / "cgroup"}


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 6),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "300000 100000\n"}, 3),
        ("0::/not/seen/here\n", {"cpu.max": "300000 100000\n"}, 3),
        (
            "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n",
            {
                "cpu,cpuacct/docker/x/cpu.cfs_quota_us": "200000\n",
                "cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ("", {}, 6),
    ],
)
def test_a_quota_bounds_the_cpus(
    membership: str, files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    assert usable_cpus(**groups(tmp_path, membership, files)) == cpus


def test_set_threads() -> None:
    assert set_threads(3) == threads().count == 3
    assert torch.get_num_threads() == 1
    assert set_threads(0) == usable_cpus()


@pytest.mark.parametrize("mixed_precision", [False, True])
def test_results_do_not_depend_on_the_threads(mixed_precision: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout and two updates with one, two and three threads: the same to the bit."""
    monkeypatch.setattr(mlp, "BLOCK_ROWS", 20)
    states = []
    for count in (1, 2, 3):
        set_threads(count)
        generator = torch.Generator().manual_seed(0)
        policy = DualActorCritic(6, 2, actor_hidden=[32, 16], critic_hidden=[32], rank=4, generator=generator)
        config = ppo_config(horizon_length=8, minibatch_size=256, mini_epochs=2, mixed_precision=mixed_precision)
        algorithm = DualPPO(policy, config)
        storage = algorithm.make_storage(64)
        never = torch.zeros(64, dtype=torch.bool)
        for _ in range(2):
            storage.begin(25)
            for _ in range(8):
                obs = torch.randn(64, 6, generator=generator)
                actions, noise, log_probs, values = policy.act(obs, 25, generator)
                storage.add(obs, actions, noise, log_probs, values, -actions.square().sum(1), never, never, obs)
            algorithm.compute_returns(storage, obs)
            algorithm.update(storage, 0.0)
        states.append([*policy.state_dict().values(), storage.values, storage.advantages])
    for others in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(states[0], others, strict=True))
