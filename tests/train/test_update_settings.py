"""Settings of the update reach it through a configuration, run, and go on from a checkpoint to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.train.trainer import Trainer

SMALL = (
    "task=Cartpole",
    "num_envs=64",
    "train.params.config.minibatch_size=256",
    "simulator/low=mujoco_reduced",
    "allocation.warmup_iterations=1",
)
WAYS = {
    "bit": ("train.params.network.adapter.kind=bit", "train.params.config.loss_weighting=share"),
    "one policy": ("train.params.network.adapter.kind=none", "allocation=fixed"),
    "adapter alone": ("train.params.config.base_learns_from=low", "allocation=switch", "max_iterations=4"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_run_and_its_continuation(way: str, compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    config = compose_config(*SMALL, *WAYS[way])
    whole = Trainer(Experiment(config))
    part = Trainer(Experiment(config))
    for _ in range(2):
        part.iterate()
    part.save(tmp_path / "part.pth")
    part.close()
    resumed = Trainer(Experiment(config))
    resumed.resume(tmp_path / "part.pth")
    for trainer, iterations in ((whole, 4), (resumed, 2)):
        for _ in range(iterations):
            trainer.iterate()
        trainer.save(tmp_path / f"{iterations}.pth")
        trainer.close()
    ours, theirs = (load_checkpoint(tmp_path / f"{iterations}.pth")["policy"] for iterations in (4, 2))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
