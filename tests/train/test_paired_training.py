"""Training with the low simulator as a control variate: pairs, metrics, resuming, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.train.trainer import Trainer

Compose = Callable[..., DictConfig]

PAIRED = (
    "num_envs=60",
    "train.params.config.minibatch_size=240",
    "allocation=fixed",
    "allocation.rule.rho=0.8",
    "train.params.network.adapter.kind=none",
    "train.params.config.control_variate=True",
)
CARTPOLE = ("task=Cartpole", "simulator/low=mujoco_reduced", *PAIRED)
# the actor's gradient then has no part in the critic's step
SEPARATE_STEPS = ("train.params.config.truncate_grads=False", "train.params.config.lr_schedule=constant")
SAME = ("task=Cartpole", "simulator/low=mujoco", *PAIRED)


@pytest.fixture
def make_trainer(compose_config: Compose) -> Iterator[Callable[..., Trainer]]:
    """`make_trainer(*overrides)`; what it made is closed after the test."""
    made: list[Trainer] = []

    def make(*overrides: str) -> Trainer:
        made.append(Trainer(Experiment(compose_config(*overrides))))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


def test_an_iteration_reports_its_control_variate(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(*CARTPOLE)
    for _ in range(2):
        metrics = trainer.iterate()
    assert (metrics["allocation/n_low"], metrics["allocation/n_high"]) == (48, 12)
    r, c = metrics["control_variate/correlation"], metrics["control_variate/coefficient"]
    assert 0.5 < r <= 1.0 and c < 0.0
    parts = metrics["seconds/low"] + metrics["seconds/high"] + metrics["seconds/learner"]
    assert parts == pytest.approx(metrics["seconds/iteration"])


def test_nothing_of_it_is_there_by_default(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer("task=Cartpole", "simulator/low=mujoco_reduced", *PAIRED[:2])
    metrics = trainer.iterate()
    assert not [name for name in metrics if name.startswith("control_variate/")]
    assert "control_variate" not in trainer.algorithm.state_dict()


def test_in_the_same_simulator_a_pair_is_the_same_rollout(make_trainer: Callable[..., Trainer]) -> None:
    gentle = ("train.params.network.sigma_init=-3", "train.params.config.normalize_advantage=False")
    trainer = make_trainer(*SAME, *gentle)
    high, partners = slice(48, 60), slice(0, 12)
    for _ in range(2):
        metrics = trainer.iterate()
        storage = trainer.storage
        assert not (storage.terminated | storage.truncated)[:, high].any()
        for stored in (storage.observations, storage.actions, storage.rewards, storage.advantages):
            torch.testing.assert_close(stored[:, partners], stored[:, high], atol=1e-3, rtol=1e-3)
        assert not torch.allclose(storage.actions[:, 12:24], storage.actions[:, high])
        assert metrics["control_variate/correlation"] > 0.9999
        assert metrics["control_variate/coefficient"] == pytest.approx(-1.0, abs=0.01)


def test_rollouts_begin_in_the_high_rows_present_states(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(*CARTPOLE)
    trainer.iterate()
    high = trainer.env.high
    assert high is not None
    before, steps = high.observations.clone(), high.episode_step.clone()
    trainer.iterate()
    first = trainer.storage.observations[0]
    assert torch.equal(first[48:], before[:12])  # the high simulator itself is not disturbed
    assert torch.equal(first[:48], before[:12].repeat(4, 1))
    assert (steps > 0).any()


def test_the_critic_learns_from_high_rows_only(make_trainer: Callable[..., Trainer]) -> None:
    """With another reward in the low simulator the first update's critic is the same to the bit."""
    critics = []
    for factor in ("1.0", "50.0"):
        trainer = make_trainer(*CARTPOLE, *SEPARATE_STEPS, f"low_reward_factor={factor}")
        trainer.iterate()
        critics.append({name: p.clone() for name, p in trainer.policy.critic.state_dict().items()})
    for name, value in critics[0].items():
        torch.testing.assert_close(value, critics[1][name], atol=0, rtol=0)


def test_a_resumed_run_goes_on_exactly(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    path = tmp_path / "state.pth"
    whole, first, second = (make_trainer(*CARTPOLE, "task.env.episodeLength=20") for _ in range(3))
    for _ in range(5):
        expected = whole.iterate()
    whole.save(tmp_path / "whole.pth")
    for _ in range(3):
        first.iterate()
    first.save(path)
    second.resume(path)
    for _ in range(2):
        found = second.iterate()
    second.save(path)
    for name in ("control_variate/correlation", "control_variate/coefficient"):
        assert found[name] == expected[name]
    saved, wanted = load_checkpoint(path)["policy"], load_checkpoint(tmp_path / "whole.pth")["policy"]
    for name, value in wanted.items():
        assert torch.equal(saved[name], value), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.params.network.adapter.kind=lora", r"adapter\.kind=lora: .*control_variate=True needs none"),
        ("task.randomize=True", r"task\.randomize=True: .* needs False"),
        ("allocation=exponential", r"allocation\.rule\.name=exponential: .* a fixed low share: allocation=fixed"),
        ("allocation.rule.rho=0.5", r"allocation\.rule\.rho=0\.5: .* more than 0\.5 and less than 1 \(here are 30 low"),
        ("allocation.rule.rho=1.0", r"allocation\.rule\.rho=1\.0: .* 60 low and 0 high"),
        ("allocation.rule.rho=0.0", r"allocation\.rule\.rho=0\.0: .* 0 low and 60 high"),
        ("train.params.config.base_learns_from=low", r"base_learns_from=low: .*both"),
        ("train.params.config.control_variate=3", r"control_variate=3: True or False"),
    ],
)
def test_what_it_cannot_go_with_is_refused(override: str, message: str, compose_config: Compose) -> None:
    overrides = [*CARTPOLE, override]
    if override == "allocation=exponential":
        overrides = [o for o in overrides if not o.startswith("allocation.rule") and o != "allocation=fixed"]
    with pytest.raises(ConfigError, match=message):
        Trainer(Experiment(compose_config(*overrides)))


@pytest.mark.slow
@pytest.mark.parametrize("low", ["mujoco_reduced", "pybullet"])
def test_ant_trains_in_two_engines(low: str, make_trainer: Callable[..., Trainer]) -> None:
    if low == "pybullet":
        pytest.importorskip("pybullet")
    pairs = 48
    trainer = make_trainer("task=Ant", f"simulator/low={low}", *PAIRED, f"num_envs={5 * pairs}")
    for _ in range(4):
        metrics = trainer.iterate()
    assert all(map(math.isfinite, metrics.values()))
    assert metrics["failures/low"] == 0
    # what rows that share nothing have: r scatters by 1 / sqrt(pairs) about 0
    assert metrics["control_variate/correlation"] > 4.0 / math.sqrt(4 * pairs)


@pytest.mark.slow
def test_cartpole_is_learnt(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(
        *CARTPOLE, "num_envs=512", "train.params.config.minibatch_size=4096", "allocation.rule.rho=0.75"
    )
    assert any(trainer.iterate().get("return/high", 0.0) > 400 for _ in range(80))
