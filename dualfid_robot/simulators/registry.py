"""Engines are found by name: a folder here whose `simulator.py` has an `ENGINE`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import dualfid_robot.simulators as package
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.changes import parse_changes
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings
from dualfid_robot.simulators.base import Simulator


def engine_names() -> list[str]:
    """Names of the engines, installed or not."""
    folders = (Path(folder) for folder in package.__path__)
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/simulator.py"))


def engine_class(name: object) -> type[Simulator]:
    """The Simulator class of an engine.

    Raises:
        ConfigError: unknown engine.
    """
    if name not in engine_names():
        raise ConfigError(f"engine={name}: allowed are {engine_names()}")
    engine: type[Simulator] = importlib.import_module(f"{package.__name__}.{name}.simulator").ENGINE
    return engine


def changed_robot(config: Mapping[str, Any], robot: RobotModel) -> RobotModel:
    """The robot that an engine gets: changed by the factors of `config["changes"]`, where there are any.

    Raises:
        ConfigError: an unknown change, a factor that is not positive, or a robot that lacks what is to be changed.
    """
    return robot.changed(parse_changes(config.get("changes", {}), f"{config.get('engine')}.changes"))


def make_simulator(
    config: Mapping[str, Any],
    robot: RobotModel,
    num_worlds: int,
    control_dt: float,
    contact_bodies: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Simulator:
    """Build the engine that `config["engine"]` names, for the robot with `config["changes"]`; the other keys are that
    engine's own settings.

    An engine's `simulator.py` exposes `ENGINE`, a Simulator class whose `Config` is a dataclass of its settings.

    Raises:
        ConfigError: unknown engine, an engine that is not installed, a setting that the engine does not have, or
            changes that the robot cannot have.
    """
    settings = {key: value for key, value in config.items() if key != "changes"}
    engine = engine_class(settings.pop("engine", None))
    parsed = parse_settings(engine.Config, settings, engine.name())
    return engine(parsed, changed_robot(config, robot), num_worlds, control_dt, contact_bodies, device)
