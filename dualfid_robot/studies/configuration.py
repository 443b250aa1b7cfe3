"""The configuration of a run, composed as train.py would compose it from the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.engines import DEFAULT, choose_engines, compose_config, compose_with_choices, register_groups
from dualfid_robot.config.hints import quoted
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.user_folder import command_line_config_dir, remember_config_dir

THREAD_SETTINGS = ("threads", "workers")  # what the engines call the number of their threads or processes


@contextmanager
def hydra_initialized() -> Iterator[GlobalHydra]:
    """Hydra with train.py's groups. In an entry point this is its own Hydra, so that its `--config-dir` counts."""
    register_groups()
    if GlobalHydra.instance().is_initialized():
        yield GlobalHydra.instance()
    else:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            yield GlobalHydra.instance()


def options(group: str) -> list[str]:
    """The files of a group of settings."""
    with hydra_initialized() as hydra_:
        return sorted(hydra_.config_loader().get_group_options(group))


def compose_run(overrides: Sequence[str], config_dir: str = "") -> DictConfig:
    """What `python train.py OVERRIDES` would train with.

    Args:
        config_dir: the user's folder of settings. Empty means what `--config-dir` names, where an entry point runs.
    """
    search = [f"hydra.searchpath=[{quoted(f'file://{config_dir}')}]"] if config_dir else []
    with hydra_initialized():
        return compose_config([*search, *overrides], config_dir=config_dir or command_line_config_dir())


def thread_settings(simulator: Mapping[str, Any], threads: int) -> dict[str, int]:
    """The settings by which an engine gets so many threads or processes."""
    return {name: threads for name in THREAD_SETTINGS if name in simulator}


def settle(overrides: Sequence[str], threads: int) -> tuple[DictConfig, list[str]]:
    """A configuration, and overrides that lead to it on any machine. They name the low simulator that suits the task,
    and the simulators' threads.

    Raises:
        ConfigError, HydraException: something cannot be composed.
    """
    with hydra_initialized():
        cfg, choices = compose_with_choices("config", overrides)
    left_low, left_high = DEFAULT in cfg.simulator.low, cfg.simulator.high.name == DEFAULT
    remember_config_dir(cfg, command_line_config_dir())
    choose_engines(cfg, choices, overrides)
    settled = list(overrides)
    low, high = cfg.simulator.low, cfg.simulator.high
    # The engines, where the overrides leave them to the task and the machine.
    if left_low:
        settled.append(f"simulator/low=[{','.join(map(str, low))}]")
        shares = [(name, low[name]["share"]) for name in low]
        settled += [f"simulator.low.{name}.share={share}" for name, share in shares if share is not None]
    if left_high:
        settled.append(f"simulator/high={high.name}")
    # Their threads.
    of_low = {f"low.{name}": low[name] for name in low if not OmegaConf.is_interpolation(low, name)}  # not E_high's own
    for where, settings in (of_low | {"high": high}).items():
        for name, value in thread_settings(settings, threads).items():
            settled.append(f"simulator.{where}.{name}={value}")
            settings[name] = value
    return cfg, settled
