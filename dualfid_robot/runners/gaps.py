"""What a gap between the two simulators (a file of cfg/gap) changes, and whether the task's robot can have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dualfid_robot.errors import ConfigError
from dualfid_robot.runners.entry import CONFIG_DIR
from dualfid_robot.runners.experiment import Experiment
from dualfid_robot.simulators.registry import changed_robot, engine_class

Sides = Literal["low", "high", "both"]
_OF_SIDES = ("simulator", "low_reward_factor")


def gap_names() -> list[str]:
    """Names of the files."""
    return sorted(path.stem for path in (CONFIG_DIR / "gap").glob("*.yaml"))


def changed_sides(gap: Mapping[str, Any], plain: Mapping[str, Any]) -> Sides:
    """The side that a gap is on: a run that uses only the other one is the same with the gap as without.

    A gap that leaves E_high alone is on the low side, even where it asks for what E_low is anyway.

    Args:
        gap: a configuration with the gap, resolved to plain values.
        plain: the same without.
    """

    def differs(read: Any) -> bool:
        return bool(read(gap) != read(plain))

    if differs(lambda settings: {key: value for key, value in settings.items() if key not in _OF_SIDES}):
        return "both"
    if not differs(lambda settings: settings["simulator"]["high"]):
        return "low"
    low = differs(lambda settings: (settings["simulator"]["low"], settings.get("low_reward_factor")))
    return "both" if low else "high"


def check_engines(experiment: Experiment) -> None:
    """Ask both sides' engines whether they take the task's robot as the side has it, without building worlds.

    Raises:
        ConfigError: names the side and what its engine cannot do.
    """
    bodies = experiment.make_task().contact_bodies
    for side, simulator in experiment.settings["simulator"].items():
        try:
            engine_class(simulator["engine"]).check_robot(changed_robot(simulator, experiment.robot), bodies)
        except ConfigError as error:
            raise ConfigError(f"simulator/{side}={simulator['engine']}: {error}") from error
