"""Values of settings that several entry points have."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from dualfid_robot.errors import ConfigError


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


def check_count(key: str, value: Any) -> None:
    """Raise ConfigError unless a setting is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{key}={value}: a whole number of at least 1 is expected")


def require_package(program: str, package: str, extra: str) -> None:
    """Raise ConfigError unless a package of one of the extras of setup.py is installed."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{program}: {package} is not installed; pip install dualfid_robot[{extra}]")
