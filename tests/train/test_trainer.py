"""The training loop: modes, metrics, accounting, and learning."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.train.trainer import Trainer

ROOT = Path(__file__).parents[2]

SMALL = ("task=Cartpole", "num_envs=64", "train.params.config.minibatch_size=256", "simulator/low=mujoco_reduced")


@pytest.mark.parametrize(
    ("allocation", "low", "high"), [("high_only", 0, 64), ("low_only", 64, 0), ("fixed", 30, 34), ("schedule", 54, 10)]
)
def test_each_mode_is_a_setting(
    allocation: str, low: int, high: int, compose_config: Callable[..., DictConfig]
) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, f"allocation={allocation}")))
    metrics = trainer.iterate()
    assert (trainer.env.low == []) == (low == 0) and (trainer.env.high is None) == (high == 0)
    assert metrics["allocation/n_low"] == low and metrics["allocation/n_high"] == high
    trainer.close()


def test_adapter_stays_zero_without_high_data(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "allocation=low_only")))
    for _ in range(3):
        metrics = trainer.iterate()
    assert metrics["divergence/D"] == 0.0 and metrics["adapter/ratio"] == 0.0
    trainer.close()


def test_metrics_add_up_and_are_complete(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "max_iterations=5", "allocation.warmup_iterations=1")))
    trainer.train(_folder(tmp_path))
    trainer.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["samples"] for row in rows] == [64 * 16 * k for k in range(1, 6)]
    counted = [row[f"counted_seconds/{part}"] for row in rows for part in ("low", "high", "learner")]
    assert min(counted) > 0.0 and rows[-1]["cost_seconds"] == pytest.approx(sum(counted))
    assert rows[-1]["wall_seconds"] == pytest.approx(sum(row["seconds/iteration"] for row in rows))
    for row in rows:
        assert row["allocation/n_low"] + row["allocation/n_high"] == 64
        parts = row["seconds/low"] + row["seconds/high"] + row["seconds/learner"]
        assert parts == pytest.approx(row["seconds/iteration"])
        assert 0 < row["allocation/rho"] < 1
        assert all(map(math.isfinite, row.values()))
    assert list((tmp_path / "tensorboard").glob("events.*"))
    assert (tmp_path / "config.yaml").is_file() and (tmp_path / "versions.json").is_file()


TERMS = ("alive", "pole_angle", "cart_velocity", "pole_velocity", "failure")  # of Cartpole's reward
REWARDS = {f"reward/{term}/{side}" for term in TERMS for side in ("low", "high")}


def documented_metrics() -> set[str]:
    """Names in the tables of docs/algorithm.md; one that begins with a slash goes on from the name before it."""
    text = (ROOT / "docs" / "algorithm.md").read_text()
    names: set[str] = set()
    stem = ""
    for row in re.findall(r"^\| (`.*?) \|", text.partition("## Logged metrics")[2], re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row):
            stem = name if not name.startswith("/") else stem.partition("/")[0] + name
            names.add(stem)
    return names


def test_every_logged_metric_is_documented(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "task.env.episodeLength=5")))
    first, second = trainer.iterate(), trainer.iterate()
    trainer.close()
    assert second.keys() == documented_metrics() | REWARDS
    # What the first split was decided from had not been measured yet.
    assert second.keys() - first.keys() == {"allocation/divergence_smoothed", "allocation/evidence"}


def test_a_cost_bound_ends_the_run(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "max_cost=0.3")))
    trainer.train(_folder(tmp_path))
    trainer.close()
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    last_iteration = sum(last[f"counted_seconds/{part}"] for part in ("low", "high", "learner"))
    assert 0.3 <= trainer.cost_seconds < 0.3 + last_iteration + 1e-9
    assert trainer.iteration < 100


@pytest.mark.parametrize(
    ("overrides", "measured"),
    [
        (("allocation=exponential",), set()),
    ],
)
def test_only_what_is_read_is_measured(
    overrides: tuple[str, ...], measured: set[str], compose_config: Callable[..., DictConfig]
) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "allocation.warmup_iterations=0", *overrides)))
    metrics = [trainer.iterate() for _ in range(2)]
    trainer.close()
    names = documented_metrics() | REWARDS
    assert all(row.keys() - names == measured for row in metrics)
    signals = trainer.filter.signals
    assert signals.num_envs == 64 and signals.iteration == 2
    assert all(math.isfinite(getattr(signals, name)) for name in trainer.allocator.rule.requires)
    horizon = trainer.experiment.ppo.horizon_length
    for side in ("low", "high"):
        first, last = (row[f"counted_seconds/{side}"] / (horizon * row[f"allocation/n_{side}"]) for row in metrics)
        assert getattr(signals, f"cost_{side}") == pytest.approx(0.9 * first + 0.1 * last)
    steps = horizon * signals.num_envs
    assert 0.0 < signals.cost_learner < max(row["counted_seconds/learner"] / steps for row in metrics)


def test_progress_is_that_of_iterations_or_of_cost(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "max_iterations=4", "allocation=schedule")))
    for iteration in range(1, 5):
        trainer.iterate()
        assert trainer.filter.signals.progress == iteration / 4
    assert trainer.allocator.target == pytest.approx(0.1)
    trainer.close()
    trainer = Trainer(Experiment(compose_config(*SMALL, "max_iterations=1000", "max_cost=50")))
    trainer.iterate()
    assert 0.001 < trainer.filter.signals.progress <= trainer.cost_seconds / 50 < 1.0
    trainer.close()


def test_switch_jumps_between_two_iterations(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL, "max_iterations=4", "allocation=switch")))
    assert [trainer.iterate()["allocation/n_low"] for _ in range(4)] == [64, 64, 0, 0]
    trainer.close()


def test_replay_of_a_run(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    run = (*SMALL, "max_iterations=4")
    trainer = Trainer(Experiment(compose_config(*run, "allocation=schedule")))
    trainer.train(_folder(tmp_path))
    trainer.close()
    log = tmp_path / "metrics.jsonl"
    shares = [json.loads(line)["allocation/rho"] for line in log.read_text().splitlines()]
    replay = ("allocation=replay", f"allocation.rule.file={log}", "allocation.rule.seed=0")
    trainer = Trainer(Experiment(compose_config(*run, *replay)))
    replayed = [trainer.iterate()["allocation/rho"] for _ in range(4)]
    trainer.close()
    assert replayed != shares and sorted(replayed) == pytest.approx(sorted(shares))


def _folder(path: Path) -> Path:
    (path / "nn").mkdir()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ["exponential", "high_only", "low_only"])
def test_cartpole_is_learnt(allocation: str, compose_config: Callable[..., DictConfig]) -> None:
    """The policy's own simulator: high for dual and high-only, low for low-only."""
    trainer = Trainer(
        Experiment(compose_config("task=Cartpole", f"allocation={allocation}", "simulator/low=mujoco_reduced"))
    )
    side = "low" if allocation == "low_only" else "high"
    best = max(trainer.iterate().get(f"return/{side}", 0.0) for _ in range(80))
    trainer.close()
    assert best > 400
