"""`checkpoint=…` or `resume=True` alone goes on with a run's own settings; what is typed besides changes them.

A run remembers the settings of its command line under `overrides`, and the user's folder of settings under
`config_dir`. A process that goes on with it has both before what was typed, so that Hydra composes from both.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from dualfid_robot.config.hints import hydra_quoted
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, resolve_checkpoint, saved_settings
from dualfid_robot.runs.resume import flat
from dualfid_robot.runs.run_log import newest_checkpoint

logger = logging.getLogger(__name__)

_OF_ONE_PROCESS = ("checkpoint", "resume", "accept_changes")  # no settings of the run
_ABBREVIATIONS = ("num_envs", "max_iterations")  # a checkpoint has them twice; what is typed may be either
# Settings that come from the files of task and training, and of these such as follow from what was typed.
_OF_FILES = ("task.env.", "task.asset.", "task.sim.", "train.params.")
_FOLLOWING = ("task.env.numEnvs", "train.params.config.max_epochs", "train.params.config.minibatch_size")
_READ = ("checkpoint", "resume", "experiment", "task", "test", "multi_gpu")


def arguments_to_go_on(arguments: Sequence[str]) -> list[str]:
    """The arguments of train.py, with those of the run that they go on with before them.

    A sweep, and one of several processes, only gets the run's `--config-dir`: there the whole command is typed again.

    Raises:
        ConfigError: there is no such run, its checkpoint is damaged, or the folder that it remembers is gone.
    """
    given = _read(arguments)
    if given.get("test") or not (given.get("checkpoint") or given.get("resume") is True):
        return list(arguments)
    path = Path(str(given["checkpoint"])) if given.get("checkpoint") else _newest(given)
    settings = _settings_of(path)
    result = list(arguments)
    if not given.get("multi_gpu") and not {"-m", "--multirun"} & set(arguments):
        typed = [text for text in arguments if _key(text) not in ("checkpoint", "resume")]
        own = _without(settings.get("overrides", []), typed)
        result = [*own, *typed, f"checkpoint={hydra_quoted(str(path))}"]
    if not any(text.startswith(("--config-dir", "-cd")) for text in arguments):
        config_dir = UserFolder(settings.get("config_dir", "")).config_dir
        result = result if config_dir is None else [f"--config-dir={config_dir}", *result]
    return result


def with_own_settings(cfg: DictConfig) -> DictConfig:
    """The settings of a run that a composed configuration goes on with, changed by what was typed besides.

    Args:
        cfg: what Hydra composed of the run's own command line and what was typed. It is returned unchanged if it goes
            on with no run, or if the run's whole command was typed again.
    """
    job = HydraConfig.get()
    overrides = list(job.overrides.task)
    if cfg.checkpoint and not cfg.multi_gpu and job.mode == RunMode.RUN:
        own = _settings_of(Path(str(cfg.checkpoint)))
        before, after = _composed(own.get("overrides", [])), _composed(overrides)
        own |= dict.fromkeys(_ABBREVIATIONS, "") | {key: cfg[key] for key in (*_OF_ONE_PROCESS, "multi_gpu")}
        changed = _changed(own, before, after)
        for line in _unlike_files(changed, after):
            logger.warning(line)
        cfg = OmegaConf.create(changed)
    with open_dict(cfg):
        cfg.overrides = _without(overrides, [f"{key}=" for key in _OF_ONE_PROCESS])
    return cfg


def _read(arguments: Sequence[str]) -> dict[str, Any]:
    """Values of the settings that say with which run to go on; what Hydra cannot read, it will refuse itself."""
    given = {}
    for text in arguments:
        if _key(text) in _READ:
            override = OverridesParser.create().parse_override(text)
            given[_key(text)] = None if override.is_sweep_override() else override.value()
    return given


def _newest(given: Mapping[str, Any]) -> Path:
    """The newest run's checkpoint, of an experiment and a task where these are given."""
    experiment, task = (str(given[key]) if given.get(key) else None for key in ("experiment", "task"))
    return newest_checkpoint(experiment, task)


def _settings_of(path: Path) -> dict[str, Any]:
    path = resolve_checkpoint(path)
    state = load_checkpoint(path)
    with fitting(path):
        return saved_settings(state)


def _composed(overrides: Sequence[str]) -> dict[str, Any]:
    """What the running entry point's configuration is with other settings on the command line."""
    hydra_, name = GlobalHydra.instance().hydra, HydraConfig.get().job.config_name
    assert hydra_ is not None and name is not None
    cfg = hydra_.compose_config(name, list(overrides), RunMode.RUN, with_log_configuration=False)
    with open_dict(cfg):
        del cfg["hydra"]
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def _changed(own: dict[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """`own` with every difference between `before` and `after`."""
    result = dict(own)
    for key in sorted(before.keys() | after.keys()):
        if key not in after:
            result.pop(key, None)
        elif key not in before or before[key] != after[key]:
            nested = all(isinstance(settings.get(key), dict) for settings in (own, before, after))
            result[key] = _changed(own[key], before[key], after[key]) if nested else after[key]
    return result


def _unlike_files(used: dict[str, Any], in_files: dict[str, Any]) -> list[str]:
    """The settings of a run's task and training of which its files now say something else."""
    run, files = flat(used), flat(in_files)
    return [
        f"{key}={files[key]} in the files: the run goes on with its own {run[key]}"
        for key in sorted(run.keys() & files.keys())
        if key.startswith(_OF_FILES) and key not in _FOLLOWING and run[key] != files[key]
    ]


def _without(overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    """The overrides whose key none of the others has."""
    keys = {_key(text) for text in others}
    return [text for text in overrides if _key(text) not in keys]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
