"""Which engines a robot may be played in on this machine, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dualfid_robot.config.engines import simulator_names, simulator_settings
from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import engine_class

OF_THE_MACHINE = frozenset({"threads", "workers"})
"""Settings of engines that change how fast a result comes, and not the result."""
_UNFITTED = "_uncalibrated"


def playable_engines(
    first: str, robot: RobotModel, device: torch.device, fitted: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Settings of the engines to choose from, by their file in cfg/simulator.

    Engines that are not installed or do not take the robot are left out. Some engines solve another engine's equations
    on a GPU and take minutes to start on a CPU. There they are left out too.

    Args:
        first: the engine that stands first.
        robot: the robot.
        device: of the engines.
        fitted: the task's own values for them.
    """
    found = {}
    for name in [first, *(name for name in simulator_names() if name != first and not name.endswith(_UNFITTED))]:
        settings = simulator_settings(name, {"simulators": fitted})
        engine = engine_class(settings["engine"])
        if name != first and engine.PORT_OF and device.type == "cpu":
            continue
        try:
            engine.check_installed()
            engine.check_device(device)
            engine.check_robot(robot)
        except ConfigError:
            if name == first:
                raise
            continue
        found[name] = settings
    return found


def own_settings(settings: dict[str, Any], metadata: Metadata, asked: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Settings of an engine, with those that the policy was trained or measured with in it.

    Args:
        settings: of the file in cfg/simulator, with the name of that file.
        metadata: the policy's, which has settings of engines.
        asked: settings that stay as they are; those of the machine do so too.
    """
    trained_in = [metadata.training.engines["high"], *metadata.training.engines["low"].values()]
    for theirs in [*trained_in, *(evaluation.simulator for evaluation in metadata.evaluations.values())]:
        if theirs["name"] == settings["name"]:
            kept = asked | OF_THE_MACHINE
            return settings | {key: value for key, value in theirs.items() if key in settings and key not in kept}
    return settings
