"""A run that stops and goes on is the run that did not stop."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import forked
import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.train.trainer import Trainer

SMALL_ANT = (
    "task=Ant",
    "num_envs=64",
    "train.params.config.minibatch_size=256",
    "task.env.episodeLength=20",
    "allocation.warmup_iterations=2",
    "allocation.rule.alpha=100",
)


def parameters_after(config: DictConfig, legs: list[int], folder: Path, reload: bool = True) -> dict[str, torch.Tensor]:
    """Parameters after legs of so many iterations; after each the run is saved and, with `reload`, goes on in a
    new trainer that loads what was saved."""
    checkpoint = folder / "state.pth"
    trainer = Trainer(Experiment(config))
    for leg, count in enumerate(legs):
        if leg and reload:
            trainer.close()
            trainer = Trainer(Experiment(config))
            trainer.resume(checkpoint)
        for _ in range(count):
            trainer.iterate()
        trainer.save(checkpoint)
    trainer.close()
    return load_checkpoint(checkpoint)["policy"]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_two_halves_give_the_same_bits_as_the_whole(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    config = compose_config(*SMALL_ANT, "simulator/low=mujoco_reduced")
    assert_same_bits(parameters_after(config, [6], tmp_path), parameters_after(config, [3, 3], tmp_path))


@pytest.mark.parametrize("rule", ["inverse_sigmoid", "schedule"])
def test_rules_go_on_from_what_they_have_measured(
    rule: str, compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    overrides = [setting for setting in SMALL_ANT if "rule" not in setting]
    config = compose_config(*overrides, "simulator/low=mujoco_reduced", f"allocation={rule}")
    assert_same_bits(parameters_after(config, [4], tmp_path), parameters_after(config, [2, 2], tmp_path))


def test_measured_costs_go_on_too(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    """What depends on seconds never repeats to the bit, but what is known of them is resumed exactly."""
    small = ("task=Cartpole", "num_envs=64", "train.params.config.minibatch_size=1024", "simulator/low=mujoco_reduced")
    config = compose_config(*small, "allocation.warmup_iterations=0")
    saved, resumed = Trainer(Experiment(config)), Trainer(Experiment(config))
    for _ in range(3):
        saved.iterate()
    saved.save(tmp_path / "state.pth")
    resumed.resume(tmp_path / "state.pth")
    signals = saved.filter.state_dict()
    assert resumed.filter.state_dict() == pytest.approx(signals, rel=0.0, abs=0.0, nan_ok=True)
    assert all(math.isfinite(signals[f"cost_{part}"]) for part in ("low", "high", "learner"))
    assert resumed.allocator.state_dict() == saved.allocator.state_dict()
    for trainer in (saved, resumed):
        trainer.close()


def test_with_pybullet_a_loaded_run_goes_on_as_the_run_that_saved(
    compose_config: Callable[..., DictConfig], tmp_path: Path
) -> None:
    """Bullet's state cannot be read to the last bit, so saving itself makes a run go on from what was read."""
    pytest.importorskip("pybullet")
    config = compose_config(*SMALL_ANT, "simulator/low=pybullet")
    saved_only = parameters_after(config, [3, 3], tmp_path, reload=False)
    assert_same_bits(saved_only, parameters_after(config, [3, 3], tmp_path))


def test_another_seed_gives_other_parameters(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    one = parameters_after(compose_config(*SMALL_ANT, "seed=1"), [1], tmp_path)
    other = parameters_after(compose_config(*SMALL_ANT, "seed=2"), [1], tmp_path)
    assert not torch.equal(one["networks.0.layers.0.weight"], other["networks.0.layers.0.weight"])


def train(*arguments: str) -> tuple[str, tuple[str, ...]]:
    """What `forked.run_script` takes."""
    return "train.py", (*SMALL_ANT, "simulator/low=mujoco_reduced", *arguments)


def wait_for_lines(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.is_file() and len(path.read_text().splitlines()) >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not reach {lines} lines")


def only_run(folder: Path) -> Path:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        runs = list(folder.glob("runs/*"))
        if runs:
            assert len(runs) == 1
            return runs[0]
        time.sleep(0.05)
    raise AssertionError("no run began")


STOPPED = ("max_iterations=12", "train.params.config.save_frequency=4")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    forked.completed(forked.run_script, train(*STOPPED), folder).check_returncode()
    return only_run(folder) / "nn" / "last.pth"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_goes_on_exactly(number: signal.Signals, undisturbed: Path, tmp_path: Path) -> None:
    """Stopped by any signal and resumed by `resume=True`, the run ends with the parameters of one that was not."""
    errors = tmp_path / "errors"
    process = forked.start(forked.run_script, train(*STOPPED), tmp_path, errors)
    run = only_run(tmp_path)
    wait_for_lines(run / "metrics.jsonl", 5)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    if number == signal.SIGKILL:
        assert process.exitcode == -signal.SIGKILL
        assert load_checkpoint(run / "nn" / "last.pth")["iteration"] % 4 == 0
    else:
        assert process.exitcode == 0, errors.read_text()
        assert 5 <= load_checkpoint(run / "nn" / "last.pth")["iteration"] < 12
    forked.completed(forked.run_script, train(*STOPPED, "resume=True"), tmp_path).check_returncode()

    ended = load_checkpoint(only_run(tmp_path) / "nn" / "last.pth")
    expected = load_checkpoint(undisturbed)
    assert ended["iteration"] == expected["iteration"] == 12
    assert_same_bits(expected["policy"], ended["policy"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(1, 13))


def test_a_best_policy_is_kept_when_a_curriculum_lowers_the_return(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Returns from before `save_best_after` are no mark for those that may be saved."""
    config = compose_config(*SMALL_ANT, "simulator/low=mujoco_reduced", "train.params.config.save_best_after=2")
    trainer = Trainer(Experiment(config))
    saved = []
    monkeypatch.setattr(trainer, "save", lambda path: saved.append(trainer.iteration))
    for trainer.books.iteration, reached in enumerate([90.0, 100.0, 30.0, 20.0, 40.0, 40.0], 1):
        trainer._last_metrics = {"return/high": reached}
        trainer._save_best(tmp_path)
    assert saved == [3, 5] and trainer.best_return == 40.0
    trainer.close()
