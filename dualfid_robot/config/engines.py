"""Settings of the simulators that cfg/simulator/ offers, for a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import OmegaConf

from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError


def simulator_names() -> list[str]:
    """Names of the files."""
    return sorted(path.stem for path in (CONFIG_DIR / "simulator").glob("*.yaml"))


def simulator_settings(name: str, task: Mapping[str, Any], key: str = "simulators") -> dict[str, Any]:
    """A file of cfg/simulator with the values that a task has for it.

    Args:
        name: the file, without its suffix.
        task: the task's settings, as in a run's configuration.
        key: how an error names the setting.

    Raises:
        ConfigError: there is no such file.
    """
    path = CONFIG_DIR / "simulator" / f"{name}.yaml"
    if name not in simulator_names():
        raise ConfigError(f"{key}={name}: allowed are {simulator_names()}")
    composed = OmegaConf.create({"task": dict(task), "simulator": OmegaConf.load(path)})
    return cast(dict[str, Any], OmegaConf.to_container(composed.simulator, resolve=True))
