"""The policy of a checkpoint, with the experiment that it belongs to."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.user_folder import command_line_config_dir
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, saved_settings
from dualfid_robot.runs.identity import differences

logger = logging.getLogger(__name__)


def load_policy(
    path: Path,
    expected_task: str | None = None,
    simulator: Mapping[str, Any] | None = None,
    sim_device: str = "",
    randomize: bool | Literal[""] = "",
) -> tuple[Experiment, DualActorCritic]:
    """The experiment that a checkpoint was made by, and its policy. What has changed since then is announced.

    Args:
        path: the checkpoint.
        expected_task: the task that it must be of.
        simulator: settings of another E_high.
        sim_device: where to simulate now, whatever the checkpoint was made on.
        randomize: whether to randomise now. Empty means what the run did.

    Raises:
        ConfigError: no such checkpoint, damaged, or of another task than expected.
    """
    state = load_checkpoint(path)
    with fitting(path):
        if expected_task is not None and state["task"] != expected_task:
            raise ConfigError(f"checkpoint={path}: was trained on task={state['task']}, not on task={expected_task}")
        settings = saved_settings(state) | {"sim_device": sim_device, "rl_device": ""}
        if config_dir := command_line_config_dir():  # the run's own may have moved
            settings["config_dir"] = config_dir
        if randomize != "":
            settings["task"]["randomize"] = randomize
        if simulator is not None:
            settings["simulator"]["high"] = dict(simulator)
        experiment = Experiment(OmegaConf.create(settings))
        policy = experiment.make_policy()
        policy.load_state_dict(state["policy"])
        for change in differences(state, experiment):
            _warn_once(f"checkpoint={path}: {change} since it was saved")
    return experiment, policy


@functools.cache
def _warn_once(text: str) -> None:
    """Several engines load the same policy."""
    logger.warning(text)
