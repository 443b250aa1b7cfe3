"""Checkpoints of policies that were never trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.export.closed_loop import visit
from dualfid_robot.runs.checkpoint import save_checkpoint
from dualfid_robot.runs.identity import identity

ExportOf = Callable[..., Path]
SEED = 5
NUM_ENVS = 4
EPISODE = 30  # steps


def make_checkpoint(path: Path, task: str, *overrides: str) -> Path:
    """Write a checkpoint of a policy that was never trained, but that has an adapter and normaliser statistics as a
    trained one has."""
    arguments = [f"task={task}", f"task.env.episodeLength={EPISODE}", "simulator/low=mujoco_reduced", *overrides]
    arguments += [f"simulator.{side}.threads=1" for side in ("low.mujoco_reduced", "high")]
    with hydra_apart():
        experiment = Experiment(compose_config([*arguments, "num_envs=64"]))
    policy = experiment.make_policy()
    generator = torch.Generator().manual_seed(SEED)

    def random_agent(observations: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.randn(len(observations), policy.num_actions, generator=generator)

    simulator = experiment.high_engine
    seen = visit(experiment, simulator, NUM_ENVS, SEED, random_agent, 200).observations
    with torch.no_grad():
        policy.normalizer.update(seen, seen[::2])
        policy.actor.output_layer.weight.mul_(30.0)  # actions of the size that trained ones have
        for layer in policy.actor.dual_layers():
            layer.lora_b.copy_(0.05 * torch.randn(layer.lora_b.shape, generator=generator))
            layer.bias_delta.copy_(0.05 * torch.randn(layer.bias_delta.shape, generator=generator))
    state = {
        **identity(experiment),
        "iteration": 3,
        "samples": 3072,
        "cost_seconds": 1.25,
        "policy": policy.state_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, state)
    return path
