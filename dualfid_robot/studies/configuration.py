"""The configuration of a run, composed as train.py would compose it from the same settings."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from dualfid_robot.config.command_line import register_simulators
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.user_folder import UserFolder, command_line_config_dir, remember_config_dir

THREAD_SETTINGS = ("threads", "workers")  # what the engines call the number of their threads or processes


@contextmanager
def hydra_initialized() -> Iterator[GlobalHydra]:
    """Hydra with train.py's groups. In an entry point this is its own Hydra, so that its `--config-dir` counts."""
    if GlobalHydra.instance().is_initialized():
        yield GlobalHydra.instance()
    else:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            yield GlobalHydra.instance()


def options(group: str) -> list[str]:
    """The files of a group of settings."""
    with hydra_initialized() as hydra_:
        return sorted(hydra_.config_loader().get_group_options(group))


@functools.lru_cache(maxsize=1)
def _register(arguments: tuple[str, ...]) -> None:
    """`register_simulators`, which reads a dozen files, once for runs that follow each other in the same task."""
    register_simulators(arguments)


def compose_run(overrides: Sequence[str], config_dir: str = "") -> DictConfig:
    """The configuration of `python train.py OVERRIDES`, with overrides that name both simulators.

    Args:
        config_dir: the user's folder of settings; empty for what `--config-dir` names, where an entry point runs.
    """
    _register(tuple(text for text in overrides if text.startswith(("task=", "sim_device="))))
    search = [f"hydra.searchpath=[{quoted(f'file://{config_dir}')}]"] if config_dir else []
    with hydra_initialized():
        cfg = compose("config", [*search, *overrides])
    remember_config_dir(cfg, config_dir or command_line_config_dir())
    return cfg


def quoted(text: str) -> str:
    """A text in Hydra's notation, whatever stands in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def settle(overrides: Sequence[str], threads: int) -> tuple[DictConfig, list[str]]:
    """A configuration, and overrides that lead to it on any machine. They name the low simulator that suits the task,
    and the simulators' threads.

    Raises:
        ConfigError, HydraException: something cannot be composed.
    """
    settled = list(overrides)
    _register(tuple(text for text in settled if text.startswith(("task=", "sim_device="))))
    with hydra_initialized():
        cfg = compose("config", settled, return_hydra_config=True)
        choices: dict[str, Any] = dict(cfg.hydra.runtime.choices)
        if choices["simulator/low"] == "default":
            from dualfid_robot.config.default_low import default_low  # imports torch

            settled.append(f"simulator/low={default_low(cfg.task, UserFolder(command_line_config_dir()))[0]}")
        if choices["simulator/high"] == "default":
            settled.append(f"simulator/high={cfg.simulator.high.engine}")  # the files of both defaults have their names
        cfg = compose("config", settled) if len(settled) > len(overrides) else cfg
    for side in ("low", "high"):
        if OmegaConf.is_interpolation(cfg.simulator, side):  # it is the other side's
            continue
        for name in THREAD_SETTINGS:
            if name in cfg.simulator[side]:
                settled.append(f"simulator.{side}.{name}={threads}")
                cfg.simulator[side][name] = threads
    with open_dict(cfg):
        cfg.pop("hydra", None)
    remember_config_dir(cfg, command_line_config_dir())
    return cfg, settled
