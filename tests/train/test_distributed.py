"""Training by two processes: refusals, agreement with one process, stopping, resuming, and a process that dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import torch.distributed as dist
from omegaconf import DictConfig

from dualfid_robot.algorithms.communicator import ALONE, Communicator, ProcessGroup
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.train.trainer import Trainer, _seeds

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=32", "train.params.config.minibatch_size=256")


def test_multi_gpu_without_torchrun_names_the_command(run_script: Run, tmp_path: Path) -> None:
    result = run_script("train.py", *SMALL, "multi_gpu=True")
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2 and len(lines) == 1, result.stderr
    assert lines[0].startswith("error: multi_gpu=True: ")
    assert (
        "torchrun --standalone --nproc_per_node=<GPUs> -m dualfid_robot train task=Cartpole multi_gpu=True" in lines[0]
    )
    assert not list(tmp_path.iterdir())


def test_torchrun_without_multi_gpu_is_refused(
    run_script: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    for arguments, message in (((), "error: multi_gpu=False: "), (("test=True", "multi_gpu=True"), "error: test=True")):
        result = run_script("train.py", *SMALL, *arguments)
        assert result.returncode == 2 and result.stderr.startswith(message), result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_multi_gpu_is_true_or_false(run_script: Run) -> None:
    result = run_script("train.py", *SMALL, "multi_gpu=yes_please")
    assert result.returncode == 2
    assert result.stderr.strip() == "error: multi_gpu=yes_please: True or False is expected"


def test_seeds_of_ranks_are_their_own() -> None:
    seeds = [seed for run in range(5) for rank in range(5) for seed in _seeds(run, rank)]
    assert len(set(seeds)) == len(seeds) == 100
    assert _seeds(42, 1) == _seeds(42, 1)


class OtherPolicy(Communicator):
    """A second rank whose policy is not this one's."""

    size = 2

    def collect(self, value: Any) -> list[Any]:
        return [value, (value[0], "another digest")]


def test_ranks_that_drifted_apart_are_noticed(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL)), OtherPolicy())
    with pytest.raises(RuntimeError, match="the processes' policies differ"):
        trainer.save(tmp_path / "x.pth")
    trainer.close()
    assert not list(tmp_path.iterdir())


# --- two ranks with half the environments each, and one with all, in the simulators ----------------------------------

LOCKSTEP = (
    "task=Ant",
    "simulator/low=mujoco_reduced",
    "allocation=fixed",
    "train.params.config.horizon_length=4",
    "train.params.config.mixed_precision=false",
)
SIZE, NUM_ENVS, NUM_LOW, ITERATIONS = 2, 64, 30, 4  # 16 steps: no ant falls


def lockstep_experiment(ranks: int) -> Experiment:
    sizes = (f"num_envs={NUM_ENVS // ranks}", f"train.params.config.minibatch_size={NUM_ENVS * 4 // ranks}")
    with hydra_apart():
        return Experiment(compose_config([*LOCKSTEP, *sizes]))


def part_of(state: Any, rank: int) -> Any:
    """A rank's worlds of the state of a pool."""
    if isinstance(state, dict):
        return {name: value if name == "generator" else part_of(value, rank) for name, value in state.items()}
    half = len(state) // SIZE
    return state[rank * half : (rank + 1) * half]


def learn_in_lockstep(ranks: Communicator, folder: Path) -> dict[str, torch.Tensor]:
    """Train from the initial states that the single process saved, with the noise that it draws for all rows."""
    trainer = Trainer(lockstep_experiment(ranks.size), ranks)
    assert trainer.allocator.n_low == NUM_LOW // ranks.size
    if ranks is ALONE:
        torch.save(trainer.env.state_dict(), folder / "initial.pt")
    else:
        state = torch.load(folder / "initial.pt", weights_only=False)
        for pool, of_pool in zip(trainer.env.pools, state["pools"], strict=True):
            pool.load_state_dict(part_of(of_pool, ranks.rank))
    rows = torch.arange(NUM_ENVS)
    own = torch.cat([side.tensor_split(ranks.size)[ranks.rank] for side in (rows[:NUM_LOW], rows[NUM_LOW:])])
    noise = torch.Generator().manual_seed(3)
    original = torch.randn

    def randn(shape: torch.Size, **options: Any) -> torch.Tensor:
        return original(NUM_ENVS, *shape[1:], generator=noise)[own]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", randn)
        for _ in range(ITERATIONS):
            metrics = trainer.iterate()
    assert "return/low" not in metrics and "return/high" not in metrics  # no reset, whose random states would differ
    trainer.close()
    return {name: value.clone() for name, value in trainer.policy.state_dict().items()}


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=SIZE)
    torch.save(learn_in_lockstep(ProcessGroup(), folder), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_in_the_simulators_learn_what_one_learns(tmp_path: Path) -> None:
    expected = learn_in_lockstep(ALONE, tmp_path)
    torch.multiprocessing.spawn(run_rank, (tmp_path,), nprocs=SIZE)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(SIZE))
    initial = Trainer(lockstep_experiment(1))
    before = initial.policy.state_dict()
    assert max((before[name] - value).abs().max().item() for name, value in expected.items()) > 1e-2
    initial.close()
    for name, value in expected.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=0.0, atol=1e-5, msg=name)


# --- torchrun --------------------------------------------------------------------------------------------------------


LENGTH, FEW = 30, "train.params.config.mini_epochs=2"


def torchrun(*arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={SIZE}"]
    return [*launcher, str(ROOT / "train.py"), *SMALL, FEW, "multi_gpu=True", *arguments]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a run of two processes in an empty folder; what still lives at the end is killed."""
    processes = []

    def started(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            torchrun(*arguments), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def start_ranks(tmp_path: Path) -> Iterator[Callable[..., list[ForkServerProcess]]]:
    """Start the two processes of a run with the environment that torchrun gives them; they are forked, which is
    quicker. What they say of errors goes to the file `errors`."""
    processes: list[ForkServerProcess] = []

    def started(*arguments: str) -> list[ForkServerProcess]:
        settings = (*SMALL, FEW, "multi_gpu=True", *arguments)
        with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
            free.bind(("127.0.0.1", 0))
            common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            sizes = {name: str(SIZE) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
            free.close()
            for rank in range(SIZE):
                for name, value in {**common, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)}.items():
                    patch.setenv(name, value)
                processes.append(forked.start(forked.run_script, ("train.py", settings), tmp_path, tmp_path / "errors"))
        return processes[-SIZE:]

    yield started
    for process in processes:
        process.kill()
        process.join()


def statuses(ranks: list[ForkServerProcess]) -> list[int | None]:
    """How they ended, once they have."""
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def rows_of(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_for_iterations(folder: Path, count: int, is_alive: Callable[[], bool]) -> Path:
    """The run's folder, once so many iterations are logged."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and is_alive():
        runs = list(folder.glob("runs/*"))
        if runs and len(rows_of(runs[0])) >= count:
            return runs[0]
        time.sleep(0.02)
    raise AssertionError(f"no iteration {count}")


def ranks_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the ranks that torchrun started, rank 0 first."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(
    start: Callable[..., subprocess.Popen[bytes]],
    start_ranks: Callable[..., list[ForkServerProcess]],
    run_script: Run,
    tmp_path: Path,
) -> None:
    """Two processes make one run. It is stopped through torchrun and then by a signal to its second process alone.
    Resumed, it ends as one that was not stopped. Saving checks that both ranks hold the same policy to the bit."""
    length = f"max_iterations={LENGTH}"
    process = start(length)
    run = wait_for_iterations(tmp_path, 3, lambda: process.poll() is None)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    stopped = load_checkpoint(run / "nn" / "last.pth")
    assert 3 <= stopped["iteration"] < LENGTH and stopped["iteration"] == len(rows_of(run)), errors.decode()
    assert b"SIGTERM: saved after iteration" in errors

    refused = run_script("train.py", *SMALL, length, f"checkpoint={run}")
    assert refused.returncode == 2 and "start one process per GPU with torchrun" in refused.stderr

    ranks = start_ranks(length, "resume=True")
    wait_for_iterations(tmp_path, stopped["iteration"] + 1, lambda: ranks[0].is_alive())
    ranks[1].terminate()
    said = tmp_path / "errors"
    assert statuses(ranks) == [0, 0], said.read_text()
    stopped = load_checkpoint(run / "nn" / "last.pth")
    assert stopped["iteration"] == len(rows_of(run)) < LENGTH and len(stopped["other_ranks"]) == 1
    assert f"SIGTERM: saved after iteration {stopped['iteration']}" in said.read_text()

    assert statuses(start_ranks(length, "resume=True")) == [0, 0], said.read_text()
    assert list(tmp_path.glob("runs/*")) == [run]
    rows = rows_of(run)
    assert [row["iteration"] for row in rows] == list(range(1, LENGTH + 1))
    assert [row["samples"] for row in rows] == [2 * 32 * 16 * k for k in range(1, LENGTH + 1)]
    counted = [row[f"counted_seconds/{part}"] for row in rows for part in ("low", "high", "learner")]
    assert rows[-1]["cost_seconds"] == pytest.approx(sum(counted))
    assert rows[-1]["wall_seconds"] == pytest.approx(sum(row["seconds/iteration"] for row in rows))
    for row in rows:
        parts = row["seconds/low"] + row["seconds/high"] + row["seconds/learner"]
        assert parts == pytest.approx(row["seconds/iteration"])

    assert statuses(start_ranks(length, "experiment=whole")) == [0, 0], said.read_text()
    expected = load_checkpoint(next(tmp_path.glob("runs/whole_*")) / "nn" / "last.pth")
    ended = load_checkpoint(run / "nn" / "last.pth")
    for name, value in expected["policy"].items():
        assert torch.equal(ended["policy"][name], value), name
    (other,) = ended["other_ranks"]
    assert torch.equal(other["generator"], expected["other_ranks"][0]["generator"])
    assert not torch.equal(other["generator"], ended["generator"])
    assert not torch.equal(other["env"]["pools"][-1]["observations"], ended["env"]["pools"][-1]["observations"])


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start("max_iterations=100000")
    wait_for_iterations(tmp_path, 3, lambda: process.poll() is None)
    first, second = ranks_of(process)
    os.kill(second, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not Path(f"/proc/{first}").exists()
