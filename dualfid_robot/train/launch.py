"""train.py: from a composed configuration to a finished run."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from dualfid_robot.atomic import locked
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.fits import fit_in_force
from dualfid_robot.config.hints import command, setting
from dualfid_robot.config.output import plain_console
from dualfid_robot.envs.foreign_task import ForeignTask, foreign_task
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.launch import check_agent, launch_test
from dualfid_robot.export.launch import BestExport, require_packages
from dualfid_robot.runs.checkpoint import of_this_version, resolve_checkpoint
from dualfid_robot.runs.curves import TENSORBOARD, WandbSettings
from dualfid_robot.runs.going_on import with_own_settings
from dualfid_robot.runs.run_log import new_run_folder, newest_checkpoint
from dualfid_robot.simulators.registry import lost_contacts
from dualfid_robot.threads import set_threads
from dualfid_robot.train.distributed import communicator, prepare, use_own_gpu
from dualfid_robot.train.films import FILMS
from dualfid_robot.train.trainer import Trainer
from dualfid_robot.view.page import wants_page

logger = logging.getLogger(__name__)


def launch(cfg: DictConfig) -> None:
    """Train, or evaluate with `test=True`."""
    check_agent(cfg)
    prepare(cfg)
    torch.use_deterministic_algorithms(bool(cfg.torch_deterministic))
    if cfg.test:
        if cfg.multi_gpu:
            raise ConfigError("test=True multi_gpu=True: evaluation runs in one process; leave out multi_gpu=True")
        launch_test(cfg)
    elif cfg.agent != "policy":
        raise ConfigError(f"agent={cfg.agent}: only a policy can be trained; add test=True to look at the agent")
    elif cfg.checkpoint:
        with of_this_version(cfg.checkpoint):
            _train(cfg)
    else:
        _train(cfg)


def _train(cfg: DictConfig) -> None:
    if cfg.export:
        require_packages()
    wants_page(cfg)
    cfg = with_own_settings(cfg)
    experiment = Experiment(cfg)
    if cfg.export and isinstance(task := experiment.make_task(), ForeignTask):
        task.refuse("export=True")
    WandbSettings.of(experiment.settings)
    fit_minibatch(experiment)
    name = "_".join([experiment.run_name, *swept_settings()])
    if cfg.multi_gpu:
        use_own_gpu(experiment)
    with communicator(cfg.multi_gpu, experiment.rl_device) as ranks, ExitStack() as held:
        experiment.seed = experiment.settings["seed"] = ranks.share(lambda: experiment.seed)  # -1 drew one per rank
        checkpoint = ranks.share(lambda: _checkpoint_to_resume(cfg, name))
        own_folder = None if checkpoint is None else _folder_of(checkpoint)
        if own_folder is not None:
            ranks.share(lambda: held.enter_context(locked(own_folder, f"checkpoint={checkpoint}")))
        if experiment.rl_device.type == "cpu":
            set_threads(experiment.threads)
        trainer = Trainer(experiment, ranks)
        try:
            if checkpoint is not None:
                trainer.resume(checkpoint, bool(cfg.accept_changes))
            folder = own_folder or ranks.share(lambda: _new_folder(name, held))
            low = _where(trainer.env.low, experiment.low_engines)
            high = _where(trainer.env.pools[len(trainer.env.low) :], [experiment.high_engine])
            logger.info("E_low: %s; E_high: %s; learner on %s", low, high, experiment.rl_device)
            for engine in experiment.low_engines if trainer.env.low else ():
                if fit := fit_in_force(experiment.task.name, engine, experiment.user):
                    logger.info(fit)
            for engine in experiment.low_engines if trainer.env.low and trainer.env.high else ():
                if lost := lost_contacts(engine, experiment.high_engine, experiment.robot):
                    logger.info("%s: %s", engine["name"], lost)
            finished = trainer.train(folder, BestExport(experiment.save_path(folder)) if cfg.export else None)
        finally:
            trainer.close()
    if ranks.rank == 0:
        videos = ", videos" if any((folder / FILMS).glob("*.mp4")) else ""
        logger.info("checkpoints, metrics.jsonl%s and TensorBoard curves: %s", videos, folder)
        for line in next_commands(experiment, folder, finished):
            plain_console().print(line, soft_wrap=True)


def fit_minibatch(experiment: Experiment) -> None:
    """Let the mini-batch follow the number of environments: the largest that divides their samples and is no larger.

    One that was typed stays, and is refused where it does not fit.
    """
    key, samples = "minibatch_size", experiment.num_envs * experiment.ppo.horizon_length
    typed = [text.partition("=")[0].lstrip("+") for text in experiment.settings.get("overrides", [])]
    largest = experiment.ppo.minibatch_size
    if samples % largest == 0 or f"train.params.config.{key}" in typed:
        return
    size = next(size for size in range(min(largest, samples), 0, -1) if samples % size == 0)
    experiment.ppo = dataclasses.replace(experiment.ppo, minibatch_size=size)
    experiment.settings["train"]["params"]["config"][key] = size
    logger.info(
        "%s=%d instead of %d, so that it divides the %d samples of %d environments in %d steps",
        *(key, size, largest, samples, experiment.num_envs, experiment.ppo.horizon_length),
    )


def swept_settings() -> list[str]:
    """What `-m` varies, as this job has it, such as "seed=1"; nothing outside a sweep."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return []
    job = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    values = {override.key_or_group: override.get_value_element_as_str() for override in job}
    given = OverridesParser.create().parse_overrides([text for text in sys.argv[1:] if not text.startswith("-")])
    swept = [override.key_or_group for override in given if override.is_sweep_override()]
    return [f"{key.rpartition('.')[2]}={values[key]}".replace("/", "-") for key in swept]


def next_commands(experiment: Experiment, folder: Path, finished: bool) -> list[str]:
    """Commands to paste once training has ended or was stopped, one line each."""
    best = experiment.save_path(folder)
    policy = setting("checkpoint", best.with_suffix("") if best.is_file() else folder)
    further = [] if not finished else [setting("max_iterations", 2 * experiment.run.max_epochs)]
    commands = {
        "go on": command("train", setting("checkpoint", folder), *further),
        "evaluate": command("evaluate", policy),
        "play": command("play", policy),
        "export": command("export", policy),
        "curves": f"tensorboard --logdir {shlex.quote(str(folder / TENSORBOARD))}",
    }
    if foreign_task(experiment.task.name):
        del commands["export"], commands["play"]
    return [f"  {what + ':':<11} {line}" for what, line in commands.items()]


def _folder_of(checkpoint: Path) -> Path | None:
    """The run's folder that a checkpoint lies in.

    It is None where the checkpoint lies elsewhere, so that a new run goes on from it.
    """
    folder = checkpoint.absolute().parent
    return checkpoint.parent.parent if folder.name == "nn" else None


def _new_folder(name: str, held: ExitStack) -> Path:
    """A new run's folder, locked."""
    folder = new_run_folder(name)
    held.enter_context(locked(folder, f"experiment={name}"))
    return folder


def _where(pools: Sequence[EnvironmentPool], engines: Sequence[Mapping[str, Any]]) -> str:
    """Which engines a side has, and on which device each is."""
    parts = [f"{engine['name']} on {pool.device}" for pool, engine in zip(pools, engines, strict=False)]
    return ", ".join(parts) or "unused"


def _checkpoint_to_resume(cfg: DictConfig, name: str) -> Path | None:
    if cfg.checkpoint:
        return resolve_checkpoint(Path(str(cfg.checkpoint)))
    if cfg.resume:
        return newest_checkpoint(name)
    return None
