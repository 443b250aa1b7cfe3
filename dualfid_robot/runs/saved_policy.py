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
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, of_this_version, saved_settings
from dualfid_robot.runs.identity import differences

logger = logging.getLogger(__name__)


def load_policy(
    path: Path,
    simulator: Mapping[str, Any] | None = None,
    sim_device: str = "",
    randomize: bool | Literal[""] = "",
) -> tuple[Experiment, DualActorCritic]:
    """The experiment and the policy of a checkpoint; see `policy_of`."""
    return policy_of(path, load_checkpoint(path), simulator, sim_device, randomize)


def policy_of(
    path: Path,
    state: Mapping[str, Any],
    simulator: Mapping[str, Any] | None = None,
    sim_device: str = "",
    randomize: bool | Literal[""] = "",
) -> tuple[Experiment, DualActorCritic]:
    """The experiment that a checkpoint was made by, and its policy. What has changed since then is announced.

    Args:
        path: the checkpoint, for errors.
        state: its content.
        simulator: settings of another E_high.
        sim_device: where to simulate now, whatever the checkpoint was made on.
        randomize: whether to randomise now. Empty means what the run did.

    Raises:
        ConfigError: it is damaged, or its task or robot is not to be had.
    """
    with fitting(path), of_this_version(path):
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
