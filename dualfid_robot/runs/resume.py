"""Whether a run can go on from a checkpoint: what must be the same, and what may have changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import saved_settings
from dualfid_robot.runs.identity import differences

logger = logging.getLogger(__name__)

# Settings that give a checkpoint its shapes and meaning; a run cannot go on with other ones.
_STRUCTURAL = (
    *("task", "num_envs", "seed", "simulator", "sim_device", "rl_device", "low_reward_factor"),
    *("train.params.network", "train.params.config.horizon_length"),
)
_LENGTH = "train.params.config.max_epochs"  # who goes on with a finished run changes it
_ANNOUNCED = ("train.", "allocation.")


def check_resumable(
    path: Path, state: dict[str, Any], experiment: Experiment, processes: int, accept_changes: bool = False
) -> None:
    """Compare what a checkpoint was made of with what there is now; changes that are allowed are announced.

    Args:
        path: the checkpoint, for errors.
        state: its content.
        experiment: the present settings.
        processes: of the present run.
        accept_changes: announce a changed robot or task instead of refusing it.

    Raises:
        ConfigError: another task, another value of a structural setting, or another number of processes. Or a robot or
            a task's code has changed.
    """
    if state["task"] != experiment.task.name:
        raise ConfigError(f"checkpoint={path}: was trained on task={state['task']}, not on task={experiment.task.name}")
    made_by = 1 + len(state["other_ranks"])
    if made_by != processes:
        raise ConfigError(
            f"checkpoint={path}: was made by {made_by} process(es), not by {processes}; go on with as many"
        )
    before, now = flat(saved_settings(state)), flat(experiment.settings)
    changed = [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    for key in sorted(changed, key=lambda key: (not key.endswith(".engine"), key)):  # an engine explains its settings
        text = f"{key}={now.get(key)}: the checkpoint was made with {before.get(key)}"
        if key.startswith(_STRUCTURAL):
            raise ConfigError(f"{text}; go on with that value")
        if key == _LENGTH:
            logger.info("max_iterations=%s: the checkpoint was made with %s", now.get(key), before.get(key))
        elif key.startswith(_ANNOUNCED):
            logger.warning(text)
    since = "; ".join(differences(state, experiment))
    if since and not accept_changes:
        raise ConfigError(f"checkpoint={path}: {since} since it was saved; accept_changes=True goes on nevertheless")
    if since:
        logger.warning("checkpoint=%s: %s since it was saved", path, since)


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping of their full names."""
    if not isinstance(settings, dict):
        return {prefix: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
