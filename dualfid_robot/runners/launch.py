"""What the entry points do once their configuration is composed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import PolicyName
from dualfid_robot.robots.changes import parse_changes
from dualfid_robot.runners.agents import Agent, policy_agent, random_agent, zero_agent
from dualfid_robot.runners.checkpoint import load_checkpoint, resolve_checkpoint
from dualfid_robot.runners.distributed import communicator, prepare, use_own_gpu
from dualfid_robot.runners.evaluation import evaluate, record_video
from dualfid_robot.runners.experiment import Experiment
from dualfid_robot.runners.export import BestExport, require_packages
from dualfid_robot.runners.installation import CONFIG_DIR
from dualfid_robot.runners.run_log import RUNS, new_run_folder, newest_run_folder
from dualfid_robot.runners.saved_policy import load_policy
from dualfid_robot.runners.trainer import Trainer
from dualfid_robot.runners.values import check_count

logger = logging.getLogger(__name__)

TEST_EPISODES = 64
AGENTS = ("policy", "zero", "random")


def launch(cfg: DictConfig) -> None:
    """Train, or evaluate with `test=True`."""
    if not cfg.headless:
        raise ConfigError("headless=False: there is no live viewer; record a video with test=True capture_video=True")
    _check_agent(cfg)
    prepare(cfg)
    torch.use_deterministic_algorithms(bool(cfg.torch_deterministic))
    if cfg.test:
        if cfg.multi_gpu:
            raise ConfigError("test=True multi_gpu=True: evaluation runs in one process; leave out multi_gpu=True")
        if not cfg.checkpoint and cfg.agent == "policy":
            raise ConfigError("test=True: name the policy with checkpoint=…, or choose agent=zero or agent=random")
        episodes = TEST_EPISODES if cfg.num_envs == "" else cfg.num_envs
        _evaluate(cfg, _plain(cfg.simulator.high), episodes)
    elif cfg.agent != "policy":
        raise ConfigError(f"agent={cfg.agent}: only a policy can be trained; add test=True to look at the agent")
    else:
        _train(cfg)


def launch_evaluation(cfg: DictConfig) -> None:
    """Evaluate a checkpoint, or an agent without one, in any engine."""
    _check_agent(cfg)
    if cfg.agent == "policy":
        if not cfg.checkpoint:
            raise ConfigError("checkpoint: name the policy to evaluate, such as checkpoint=runs/…/nn/last")
        named = [text for text in HydraConfig.get().overrides.task if text.startswith(("task=", "task."))]
        if named:
            raise ConfigError(f"{named[0]}: a checkpoint's policy is evaluated in its own task; leave it out")
        cfg.task = json.loads(load_checkpoint(Path(cfg.checkpoint))["settings"])["task"]
    if cfg.randomize != "":
        OmegaConf.update(cfg, "task.randomize", cfg.randomize, force_add=True)
    _evaluate(cfg, _plain(cfg.simulator), cfg.num_envs)


def _check_agent(cfg: DictConfig) -> None:
    if cfg.agent not in AGENTS:
        raise ConfigError(f"agent={cfg.agent}: allowed are {list(AGENTS)}")


def _train(cfg: DictConfig) -> None:
    if cfg.capture_video:
        raise ConfigError("capture_video=True: a video is recorded of a checkpoint; add test=True checkpoint=…")
    if cfg.export not in (True, False):
        raise ConfigError(f"export={cfg.export}: True or False is expected")
    if cfg.export:
        require_packages()
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
            trainer.train(folder, BestExport(experiment.save_path(folder)) if cfg.export else None)
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


def _evaluate(cfg: DictConfig, simulator: Mapping[str, Any], episodes: Any) -> None:
    if cfg.policy not in ("adapted", "base"):
        raise ConfigError(f"policy={cfg.policy}: allowed are ['adapted', 'base']")
    check_count("num_envs", episodes)
    subject = _policy_of(cfg, simulator) if cfg.agent == "policy" else _agent_without_policy(cfg, simulator)
    experiment = subject.experiment
    pool = experiment.make_pool(simulator, episodes, cfg.seed)
    try:
        evaluation = evaluate(subject.agent, pool)
    finally:
        pool.simulator.close()
    name = f"{experiment.task.name}, {subject.title} in {simulator['engine']}"
    Console().print(f"{name}: {evaluation.line()}", soft_wrap=True, highlight=False)
    stem = subject.stem.with_name(f"{subject.stem.name}_{simulator['engine']}")
    stem.parent.mkdir(exist_ok=True)
    report = subject.source | {"simulator": dict(simulator)} | evaluation.summary()
    stem.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    if cfg.capture_video:
        _record(experiment.make_pool(simulator, 1, cfg.seed), subject.agent, stem.with_suffix(".mp4"))


@dataclass(frozen=True)
class _Subject:
    """What is evaluated.

    Attributes:
        experiment: the task and its settings.
        agent: what acts.
        title: how the console names it.
        source: how the report names it.
        stem: path of the report and the video, without the simulator's name.
    """

    experiment: Experiment
    agent: Agent
    title: str
    source: dict[str, str]
    stem: Path


def _policy_of(cfg: DictConfig, simulator: Mapping[str, Any]) -> _Subject:
    path = resolve_checkpoint(Path(cfg.checkpoint))
    experiment, policy = load_policy(path, cfg.task.name, simulator, cfg.sim_device, cfg.get("randomize", ""))
    _compare_changes(path, simulator)
    name: PolicyName = cfg.policy
    source = {"checkpoint": str(path), "policy": name}
    stem = path.with_name(f"{path.stem}_{name}")
    return _Subject(experiment, policy_agent(policy, name), f"{name} policy", source, stem)


def _compare_changes(path: Path, simulator: Mapping[str, Any]) -> None:
    """Say so where the policy was trained for another robot: a file of cfg/simulator has the asset's."""
    trained = json.loads(load_checkpoint(path)["settings"])["simulator"]["high"].get("changes", {})
    now = parse_changes(simulator.get("changes", {}), f"{simulator['engine']}.changes").factors
    if trained != now:
        logger.warning("E_high of %s had changes=%s; this simulator has changes=%s", path, trained, now)


def _agent_without_policy(cfg: DictConfig, simulator: Mapping[str, Any]) -> _Subject:
    if cfg.checkpoint:
        raise ConfigError(f"checkpoint={cfg.checkpoint}: agent={cfg.agent} needs none; leave one of the two out")
    experiment = complete_experiment(cfg, {"low": dict(simulator), "high": dict(simulator)})
    task = experiment.make_task()
    agent = zero_agent(task) if cfg.agent == "zero" else random_agent(task, cfg.seed)
    stem = RUNS / f"{experiment.task.name}_{cfg.agent}"
    return _Subject(experiment, agent, f"{cfg.agent} agent", {"agent": cfg.agent}, stem)


def complete_experiment(
    cfg: DictConfig, simulators: Mapping[str, Mapping[str, Any]], num_envs: int | str = ""
) -> Experiment:
    """The experiment of an entry point that trains nothing: train.py's defaults where it has no such setting.

    Args:
        cfg: its configuration, with `task`, `train`, `seed` and `sim_device`.
        simulators: settings of both simulators, by side.
        num_envs: as for train.py.
    """
    settings = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "config.yaml")))
    del settings["defaults"]
    settings |= {key: cfg[key] for key in ("task", "train", "seed", "sim_device")}
    return Experiment(OmegaConf.create(settings | {"num_envs": num_envs, "simulator": simulators}))


def _record(pool: EnvironmentPool, agent: Agent, path: Path) -> None:
    try:
        record_video(agent, pool, path)
    finally:
        pool.simulator.close()
    logger.info("video: %s", path)


def _plain(node: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
