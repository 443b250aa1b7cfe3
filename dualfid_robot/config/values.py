"""Values of settings that several entry points have."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, cast

import torch
from omegaconf import OmegaConf

from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require_integer

_FILES_OF_SIDE = {"high": ("high",), "low": ("high", "low")}  # in cfg/simulator/common, the later one on top


def find_device(key: str, value: Any) -> torch.device:
    """The device that a setting names, where the machine has it.

    Raises:
        ConfigError: it has no such device.
    """
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    name = "cuda:0" if value == "cuda" else value
    if name not in devices:
        raise ConfigError(f"{key}={value}: allowed are {devices}")
    return torch.device(name)


def check_seed(key: str, value: Any, least: int = 0) -> None:
    """Raise ConfigError unless a setting is a seed that every generator takes."""
    require_integer(key, value, least, 2**63 - 1)


def with_later_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's resolved settings with the defaults of the settings that have come since it was started."""
    completed = dict(settings)
    for section, file in (("train", "train/base"), ("task", "task/common/options")):
        defaults = OmegaConf.load(CONFIG_DIR / f"{file}.yaml")
        completed[section] = OmegaConf.to_container(OmegaConf.merge(defaults, settings[section]))
    return completed


def settings_of_side(side: str) -> dict[str, Any]:
    """What each engine of a side, low or high, has besides its own settings: the defaults of cfg/simulator/common."""
    files = [OmegaConf.load(CONFIG_DIR / "simulator" / "common" / f"{name}.yaml") for name in _FILES_OF_SIDE[side]]
    merged = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.merge(*files)))
    merged.pop("defaults", None)
    return merged


def check_name(key: str, name: str) -> None:
    """Raise ConfigError where a name cannot be that of a file or folder."""
    if name in (".", "..") or set(name) & set("/\\") or not name.isprintable():
        raise ConfigError(f"{key}={name!r}: a name without slashes and control characters is expected")


def require_package(program: str, package: str, extra: str) -> None:
    """Raise ConfigError unless a package of one of the extras of setup.py is installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f'{program}: {package} is not installed; pip install "dualfid_robot[{extra}]"')
