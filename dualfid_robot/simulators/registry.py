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

OF_A_SIDE = ("name", "share", "price")
"""Settings that a side of the dual environment has besides its engine's own."""
_OF_THE_CONFIGURATION = {"engine", "changes", *OF_A_SIDE}


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


def engine_config(config: Mapping[str, Any], where: str) -> Any:
    """The engine's own settings, as its `Config`.

    Args:
        config: as for `make_simulator`.
        where: how errors call the section of settings.

    Raises:
        ConfigError: unknown engine, or a setting that it does not have.
    """
    settings = {key: value for key, value in config.items() if key not in _OF_THE_CONFIGURATION}
    return parse_settings(engine_class(config.get("engine")).Config, settings, where)


def lost_contacts(low: Mapping[str, Any], high: Mapping[str, Any], robot: RobotModel) -> str:
    """What can touch in E_high and cannot in E_low, as one line. It is empty where there is nothing.

    Args:
        low, high: settings of the two simulators, as `make_simulator` takes them.
        robot: the robot.

    Raises:
        ConfigError: wrong settings, or a foot that can touch something in E_high and nothing in E_low.
    """
    cheap, dear = (_touching(config, robot) for config in (low, high))
    still = {body for pair in cheap for body in pair}
    bodies = [name for name in robot.body_names if any(name in pair for pair in dear) and name not in still]
    if feet := sorted(set(bodies) & set(robot.feet)):
        touched = sorted({body for pair in dear if feet[0] in pair for body in pair} - {feet[0]})
        raise ConfigError(f"asset.feet={feet[0]}: in engine {low['engine']} it cannot touch {_few(touched)}")
    pairs = sorted(pair for pair in dear - cheap if not set(pair) & set(bodies))
    parts = [f"of {_few(bodies)} with anything"] if bodies else []
    parts += [f"between {_few([f'{a} and {b}' for a, b in pairs])}"] if pairs else []
    return "E_low has no contact " + ", nor ".join(parts) if parts else ""


def _touching(config: Mapping[str, Any], robot: RobotModel) -> frozenset[tuple[str, str]]:
    engine = engine_class(config.get("engine"))
    return engine.touching(robot, engine_config(config, engine.name()))


def _few(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def make_simulator(
    config: Mapping[str, Any],
    robot: RobotModel,
    num_worlds: int,
    control_dt: float,
    contact_bodies: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Simulator:
    """Build the engine that `config["engine"]` names, for the robot with `config["changes"]`. `config["name"]` is how
    messages call it, and `config["share"]` is not read. The other keys are that engine's own settings.

    An engine's `simulator.py` exposes `ENGINE`, a Simulator class whose `Config` is a dataclass of its settings.

    Raises:
        ConfigError: unknown engine, an engine that is not installed, or a setting that the engine does not have. Or
            changes that the robot cannot have, or a robot without joints.
    """
    engine = engine_class(config.get("engine"))
    parsed = engine_config(config, config.get("name", engine.name()))
    if robot.model.nv == 0:
        raise ConfigError(f"asset.assetFileName={robot.path.name}: it has no joints, so nothing in it can move")
    return engine(parsed, changed_robot(config, robot), num_worlds, control_dt, contact_bodies, device)
