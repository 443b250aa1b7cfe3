"""Fits of low simulators, which calibrate.py writes: found by the task's name, and in force without being asked for.

A fit's values take the place of the task's own `simulators`. The command line wins over both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError


def find_fit(task: str, engine: str, user: UserFolder) -> tuple[dict[str, Any], Path] | None:
    """The fitted settings of an engine for a task, and their file: the user's, else the package's; None without one.

    Raises:
        ConfigError: a file is none of calibrate.py's.
    """
    for path in (user.calibration(task), CONFIG_DIR / "calibration" / f"{task}.yaml"):
        if values := read_fits(path).get(engine):
            return values, path
    return None


def read_fits(path: Path) -> dict[str, dict[str, Any]]:
    """Fitted settings by engine; none where there is no file.

    Raises:
        ConfigError: it is none of calibrate.py's.
    """
    wrong = ConfigError(f"{path}: settings of engines are expected, as calibrate.py writes them")
    try:
        fits = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise wrong from error
    if not isinstance(fits, dict) or not all(isinstance(values, dict) for values in fits.values()):
        raise wrong
    return {str(engine): values for engine, values in fits.items()}


def apply_fits(cfg: DictConfig, engines: Sequence[str], overrides: Sequence[str]) -> None:
    """Put the fits for a configuration's task into its `simulators`, but for what the command line sets.

    Args:
        cfg: a composed configuration. It is changed.
        engines: those that a task may have values for.
        overrides: the settings of the command line.

    Raises:
        ConfigError: a file is none of calibrate.py's.
    """
    typed = {override.key_or_group for override in OverridesParser.create().parse_overrides(list(overrides))}
    user = UserFolder(cfg.get("config_dir", ""))
    for engine in engines:
        found = find_fit(str(cfg.task.get("name")), engine, user)
        for name, value in found[0].items() if found is not None else ():
            keys = ("task.simulators", f"task.simulators.{engine}", f"task.simulators.{engine}.{name}")
            if typed.isdisjoint(keys):
                OmegaConf.update(cfg, keys[-1], value, force_add=True)


def fit_in_force(task: str, engine: Mapping[str, Any], user: UserFolder) -> str:
    """One line on the fit that an engine's settings are. It is empty where there is none for it.

    Args:
        task: its name.
        engine: settings, with its name.
        user: where the user's fits are.
    """
    found = find_fit(task, engine["name"], user)
    if found is None:
        return ""
    values, path = found
    others = [f"{key}={engine.get(key)}" for key, value in values.items() if engine.get(key) != value]
    return f"{engine['name']}: the fit of {path}" + (f", but for {', '.join(others)}" if others else "")
