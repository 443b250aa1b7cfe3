"""evaluate.py: a checkpoint's policy, or an agent without one, in any simulator."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.atomic import is_writable, write_text
from dualfid_robot.config.experiment import Experiment, complete_experiment, plain
from dualfid_robot.config.machine import CONFIG_DIR, RUNS
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.progress import Progress, track
from dualfid_robot.config.values import check_seed
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import Agent, policy_agents, random_agent, zero_agent
from dualfid_robot.evaluate.environment_show import EnvironmentShow
from dualfid_robot.evaluate.evaluation import evaluate
from dualfid_robot.evaluate.films import FilmSettings
from dualfid_robot.policies.actor_critic import PolicyName
from dualfid_robot.robots.changes import parse_changes
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, resolve_checkpoint, saved_settings
from dualfid_robot.runs.saved_policy import policy_of
from dualfid_robot.settings import require_integer
from dualfid_robot.simulators.registry import engine_config
from dualfid_robot.view.page import open_page, wants_page
from dualfid_robot.view.playback import Playback, play_in

logger = logging.getLogger(__name__)

AGENTS = ("policy", "zero", "random")


def launch_evaluation(cfg: DictConfig) -> None:
    """Evaluate a checkpoint, or an agent without one, in any engine."""
    check_agent(cfg)
    engine_config(plain(cfg.simulator), "simulator")
    saved = None
    if cfg.agent == "policy":
        if not cfg.checkpoint:
            raise ConfigError("checkpoint: name the policy to evaluate, such as checkpoint=runs/…/nn/last")
        saved = _take_own_settings(cfg, ("task=", "task.", "train=", "train."))
    if cfg.randomize != "":
        OmegaConf.update(cfg, "task.randomize", cfg.randomize, force_add=True)
    evaluate_agent(cfg, plain(cfg.simulator), cfg.num_envs, saved)


def launch_test(cfg: DictConfig) -> None:
    """train.py's `test=True`: what evaluate.py does, in E_high, with evaluate.py's seed and episodes unless typed.

    `task=…` may be typed here, as IsaacGymEnvs wants it, if it is the checkpoint's.
    """
    typed = [text.partition("=")[0] for text in HydraConfig.get().overrides.task]
    saved = None
    if cfg.agent == "policy":
        if not cfg.checkpoint:
            raise ConfigError("test=True: name the policy with checkpoint=…, or choose agent=zero or agent=random")
        name = cfg.task.name if "task" in typed else None
        saved = _take_own_settings(cfg, ("task.", "train=", "train."))
        if name not in (None, cfg.task.name):
            raise ConfigError(f"checkpoint={cfg.checkpoint}: was trained on task={cfg.task.name}, not on task={name}")
    defaults = OmegaConf.load(CONFIG_DIR / "evaluate.yaml")
    for key in ("seed", "num_envs"):
        if key not in typed:
            cfg[key] = OmegaConf.select(defaults, key)
    evaluate_agent(cfg, plain(cfg.simulator.high), cfg.num_envs, saved)


def _take_own_settings(cfg: DictConfig, refused: tuple[str, ...]) -> dict[str, Any]:
    """Put the task of the checkpoint's run into a configuration. Returns what the checkpoint holds.

    Raises:
        ConfigError: a setting was typed that begins like one of those refused.
    """
    named = [text for text in HydraConfig.get().overrides.task if text.lstrip("+~").startswith(refused)]
    if named:
        raise ConfigError(f"{named[0]}: a checkpoint's policy is evaluated with its own settings; leave it out")
    state = load_checkpoint(Path(str(cfg.checkpoint)))
    with fitting(Path(str(cfg.checkpoint))):
        cfg.task = saved_settings(state)["task"]
    return state


def check_agent(cfg: DictConfig) -> None:
    """Raise ConfigError unless the agent is one that we know."""
    if cfg.agent not in AGENTS:
        raise ConfigError(f"agent={cfg.agent}: allowed are {list(AGENTS)}")


def evaluate_agent(
    cfg: DictConfig, simulator: Mapping[str, Any], episodes: Any, saved: Mapping[str, Any] | None
) -> None:
    """Evaluate what a configuration names, a policy or another agent, in a simulator.

    The result is printed and written into a report. Then it is filmed or shown in a page, where that was asked for.

    Args:
        cfg: the configuration.
        simulator: settings of the engine.
        episodes: one in each environment.
        saved: what the policy's checkpoint holds. None means an agent without one.
    """
    if cfg.policy not in ("adapted", "base"):
        raise ConfigError(f"policy={cfg.policy}: allowed are ['adapted', 'base']")
    require_integer("num_envs", episodes, 1)
    check_seed("seed", cfg.seed)
    filming = FilmSettings.of(cfg) if cfg.capture_video else None
    watched = wants_page(cfg)
    subject = _agent_without_policy(cfg, simulator) if saved is None else _policy_of(cfg, simulator, saved)
    experiment = subject.experiment
    title, agent = next(iter(subject.agents.items()))
    pool = experiment.make_pool(simulator, episodes, cfg.seed)
    try:
        steps = pool.task.config.episodeLength
        evaluation = evaluate(agent, pool, lambda rollout: track(rollout, "evaluation, steps", steps))
    finally:
        pool.simulator.close()
    name = f"{experiment.task.name}, {title} {subject.kind} in {simulator['name']}"
    console = plain_console()
    console.print(f"{name}: {evaluation.line()}", soft_wrap=not console.is_terminal)
    stem = subject.stem.with_name(f"{subject.stem.name}_{simulator['name']}")
    if not cfg.checkpoint:
        stem.parent.mkdir(exist_ok=True)
    report = subject.source | {"simulator": dict(simulator)} | evaluation.summary()
    write_text(stem.with_name(f"{stem.name}.json"), json.dumps(report, indent=2) + "\n")
    if filming is not None:
        path = stem.with_name(f"{stem.name}.mp4")
        with Progress("video"):
            filming.record(agent, experiment.make_pool(simulator, 1, cfg.seed), path)
        logger.info("video: %s", path)
    if watched:
        _show(cfg, subject, simulator)


def _show(cfg: DictConfig, subject: _Subject, simulator: Mapping[str, Any]) -> None:
    """A page with what was evaluated, until Ctrl-C."""
    show = EnvironmentShow(subject.experiment, subject.agents, {simulator["name"]: simulator}, seed=cfg.seed)
    with contextlib.closing(show):
        playback = Playback(show)
        page = open_page(playback, cfg.viewer_host, cfg.viewer_port)
        with contextlib.closing(page), contextlib.suppress(KeyboardInterrupt):
            for line in play_in(page, playback):
                plain_console().print(line, soft_wrap=True)


@dataclass(frozen=True)
class _Subject:
    """What is evaluated.

    Attributes:
        experiment: the task and its settings.
        agents: by name. The first is evaluated, the others can be chosen in a page.
        kind: of agent, after the name: "policy" or "agent".
        source: how the report names it.
        stem: path of the report and the video, without the simulator's name.
    """

    experiment: Experiment
    agents: Mapping[str, Agent]
    kind: str
    source: dict[str, str]
    stem: Path


def _policy_of(cfg: DictConfig, simulator: Mapping[str, Any], saved: Mapping[str, Any]) -> _Subject:
    path = resolve_checkpoint(Path(str(cfg.checkpoint)))
    experiment, policy = policy_of(path, saved, simulator, cfg.sim_device, cfg.get("randomize", ""))
    _compare_changes(path, saved, simulator)
    name: PolicyName = cfg.policy
    source = {"checkpoint": str(path), "policy": name}
    stem = path.with_name(f"{path.stem}_{name}")
    if not is_writable(path.parent):
        stem = Path(f"{path.absolute().parent.parent.name}_{stem.name}")
        logger.warning("%s cannot be written: the report goes to %s", path.parent, Path.cwd())
    return _Subject(experiment, policy_agents(experiment, policy, name), "policy", source, stem)


def _compare_changes(path: Path, saved: Mapping[str, Any], simulator: Mapping[str, Any]) -> None:
    """Say so where the policy was trained for another robot: a file of cfg/simulator has the asset's."""
    trained = saved_settings(saved)["simulator"]["high"]["changes"]
    now = parse_changes(simulator.get("changes", {}), "simulator.changes").factors
    if trained != now:
        logger.warning("E_high of %s had changes=%s; this simulator has changes=%s", path, trained, now)


def _agent_without_policy(cfg: DictConfig, simulator: Mapping[str, Any]) -> _Subject:
    if cfg.checkpoint:
        raise ConfigError(f"checkpoint={cfg.checkpoint}: agent={cfg.agent} needs none; leave one of the two out")
    experiment = complete_experiment(cfg, {"low": {simulator["name"]: dict(simulator)}, "high": dict(simulator)})
    task = experiment.make_task()
    agent = zero_agent(task) if cfg.agent == "zero" else random_agent(task, cfg.seed)
    stem = RUNS / f"{experiment.task.name}_{cfg.agent}"
    return _Subject(experiment, {cfg.agent: agent}, "agent", {"agent": cfg.agent}, stem)
