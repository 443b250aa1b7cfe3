"""What the entry points do once their configuration is composed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import DualActorCritic, PolicyName
from dualfid_robot.runners.checkpoint import load_checkpoint, resolve_checkpoint
from dualfid_robot.runners.distributed import communicator, prepare, use_own_gpu
from dualfid_robot.runners.entry import notify_fallback
from dualfid_robot.runners.evaluation import evaluate, record_video
from dualfid_robot.runners.experiment import Experiment
from dualfid_robot.runners.run_log import new_run_folder, newest_run_folder
from dualfid_robot.runners.trainer import Trainer

logger = logging.getLogger(__name__)

TEST_EPISODES = 64


def launch(cfg: DictConfig) -> None:
    """Train, or evaluate with `test=True`."""
    if not cfg.headless:
        raise ConfigError("headless=False: there is no live viewer; record a video with test=True capture_video=True")
    prepare(cfg)
    notify_fallback(HydraConfig.get().runtime.choices["simulator/low"])
    torch.use_deterministic_algorithms(bool(cfg.torch_deterministic))
    if cfg.test:
        if cfg.multi_gpu:
            raise ConfigError("test=True multi_gpu=True: evaluation runs in one process; leave out multi_gpu=True")
        if not cfg.checkpoint:
            raise ConfigError("test=True: name the policy with checkpoint=…")
        episodes = TEST_EPISODES if cfg.num_envs == "" else cfg.num_envs
        simulator = cast(dict[str, Any], OmegaConf.to_container(cfg.simulator.high, resolve=True))
        _evaluate(cfg, simulator, episodes, expected_task=cfg.task.name)
    else:
        _train(cfg)


def launch_evaluation(cfg: DictConfig) -> None:
    """Evaluate a checkpoint in any engine."""
    if not cfg.checkpoint:
        raise ConfigError("checkpoint: name the policy to evaluate, such as checkpoint=runs/…/nn/last")
    settings = json.loads(load_checkpoint(Path(cfg.checkpoint))["settings"])
    with_task = OmegaConf.merge(OmegaConf.create({"task": settings["task"]}), cfg)
    simulator = cast(dict[str, Any], OmegaConf.to_container(with_task.simulator, resolve=True))
    _evaluate(cfg, simulator, cfg.num_envs, expected_task=None)


def _train(cfg: DictConfig) -> None:
    if cfg.capture_video:
        raise ConfigError("capture_video=True: a video is recorded of a checkpoint; add test=True checkpoint=…")
    experiment = Experiment(cfg)
    if cfg.multi_gpu:
        use_own_gpu(experiment)
    with communicator(cfg.multi_gpu, experiment.rl_device) as ranks:
        experiment.seed = experiment.settings["seed"] = ranks.share(lambda: experiment.seed)  # -1 drew one per rank
        checkpoint = ranks.share(lambda: _checkpoint_to_resume(cfg, experiment))
        trainer = Trainer(experiment, ranks)
        try:
            if checkpoint is None:
                folder = ranks.share(lambda: new_run_folder(experiment.run_name))
            else:
                trainer.resume(checkpoint)
                folder = checkpoint.parent.parent
            logger.info("E_low: %s; E_high: %s; learner on %s", *map(_where, trainer.env.pools), experiment.rl_device)
            trainer.train(folder)
        finally:
            trainer.close()
    logger.info("checkpoints, metrics.jsonl and TensorBoard curves: %s", folder)


def _where(pool: EnvironmentPool | None) -> str:
    return "unused" if pool is None else f"{pool.simulator.name()} on {pool.device}"


def _checkpoint_to_resume(cfg: DictConfig, experiment: Experiment) -> Path | None:
    if cfg.checkpoint:
        return resolve_checkpoint(Path(cfg.checkpoint))
    if cfg.resume:
        return newest_run_folder(experiment.run_name) / "nn" / "last.pth"
    return None


def load_policy(
    path: Path,
    expected_task: str | None = None,
    simulator: Mapping[str, Any] | None = None,
    sim_device: str = "",
) -> tuple[Experiment, DualActorCritic]:
    """The experiment that a checkpoint was made by, and its policy.

    Args:
        path: the checkpoint.
        expected_task: the task that it must be of.
        simulator: settings of another E_high.
        sim_device: where to simulate now, whatever the checkpoint was made on.

    Raises:
        ConfigError: no such checkpoint, damaged, or of another task than expected.
    """
    state = load_checkpoint(path)
    if expected_task is not None and state["task"] != expected_task:
        raise ConfigError(f"checkpoint={path}: was trained on task={state['task']}, not on task={expected_task}")
    settings = json.loads(state["settings"]) | {"sim_device": sim_device, "rl_device": ""}
    if simulator is not None:
        settings["simulator"]["high"] = dict(simulator)
    experiment = Experiment(OmegaConf.create(settings))
    policy = experiment.make_policy()
    policy.load_state_dict(state["policy"])
    return experiment, policy


def _evaluate(cfg: DictConfig, simulator: Mapping[str, Any], episodes: Any, expected_task: str | None) -> None:
    if cfg.policy not in ("adapted", "base"):
        raise ConfigError(f"policy={cfg.policy}: allowed are ['adapted', 'base']")
    if not isinstance(episodes, int) or isinstance(episodes, bool) or episodes < 1:
        raise ConfigError(f"num_envs={episodes}: a whole number of at least 1 is expected")
    path = resolve_checkpoint(Path(cfg.checkpoint))
    experiment, policy = load_policy(path, expected_task, simulator, cfg.sim_device)
    name: PolicyName = cfg.policy
    pool = experiment.make_pool(simulator, episodes, cfg.seed)
    try:
        report = evaluate(policy, pool, name).summary()
    finally:
        pool.simulator.close()
    report_line = {"checkpoint": str(path), "policy": name, "simulator": dict(simulator)} | report
    Console().print(
        f"{experiment.task.name}, {name} policy in {simulator['engine']}: return {report['return_mean']:.1f}"
        f" (95% interval {report['return_95_low']:.1f} to {report['return_95_high']:.1f},"
        f" median {report['return_median']:.1f}), episode length {report['episode_length']:.1f},"
        f" {episodes} episodes",
        soft_wrap=True,
        highlight=False,
    )
    stem = path.with_suffix("").with_name(f"{path.stem}_{name}_{simulator['engine']}")
    stem.with_suffix(".json").write_text(json.dumps(report_line, indent=2) + "\n")
    if cfg.capture_video:
        _record(experiment.make_pool(simulator, 1, cfg.seed), policy, name, stem.with_suffix(".mp4"))


def _record(pool: EnvironmentPool, policy: DualActorCritic, name: PolicyName, path: Path) -> None:
    try:
        record_video(policy, pool, name, path)
    finally:
        pool.simulator.close()
    logger.info("video: %s", path)
