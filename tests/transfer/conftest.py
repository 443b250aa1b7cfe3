"""Checkpoints of policies that were never trained, but whose adapters do something."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.runs.checkpoint import save_checkpoint
from dualfid_robot.runs.identity import identity

EPISODE = 40  # steps


@pytest.fixture
def experiment_of(compose_config: Callable[..., DictConfig]) -> Callable[..., Experiment]:
    """The experiment of a task: experiment_of("Ant", "task.env.episodeLength=3")."""

    def experiment(task: str, *overrides: str) -> Experiment:
        return Experiment(compose_config(f"task={task}", "simulator/low=mujoco_reduced", *overrides))

    return experiment


@pytest.fixture
def make_checkpoint(experiment_of: Callable[..., Experiment], tmp_path: Path) -> Callable[..., Path]:
    """Write nn/last.pth of a run: make_checkpoint("run", "Cartpole", *overrides)."""

    def make(run: str, task: str = "Cartpole", *overrides: str, seed: int = 0) -> Path:
        experiment = experiment_of(task, f"task.env.episodeLength={EPISODE}", *overrides, f"seed={seed}")
        policy = experiment.make_policy()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            policy.actor.output_layer.weight.mul_(10.0)
            for layer in policy.actor.dual_layers():
                layer.lora_b.copy_(0.03 * torch.randn(layer.lora_b.shape, generator=generator))
                layer.bias_delta.copy_(0.03 * torch.randn(layer.bias_delta.shape, generator=generator))
        path = tmp_path / run / "nn" / "last.pth"
        path.parent.mkdir(parents=True)
        state = {**identity(experiment), "iteration": 3, "samples": 96, "policy": policy.state_dict()}
        save_checkpoint(path, state)
        return path

    return make
