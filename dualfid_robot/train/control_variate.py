"""What `train.params.config.control_variate` asks of the other settings."""

from __future__ import annotations

from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.errors import ConfigError


def check_control_variate(experiment: Experiment, allocator: Allocator) -> None:
    """Refuse what pairs of rows cannot be made with; nothing where the setting is off.

    Raises:
        ConfigError: names the setting, its value and what is allowed.
    """
    if not experiment.ppo.control_variate:
        return
    if isinstance(task := experiment.make_task(), ForeignTask):
        task.refuse("train.params.config.control_variate=True")
    needs = "train.params.config.control_variate=True needs"
    kind = experiment.network.adapter.kind
    if kind != "none":
        raise ConfigError(f"train.params.network.adapter.kind={kind}: {needs} none, one policy for both simulators")
    if experiment.task.randomize:
        raise ConfigError(f"task.randomize=True: {needs} False, since the two worlds of a pair must not be drawn apart")
    rule = experiment.settings["allocation"]["rule"]
    if allocator.min_n_low != allocator.max_n_low:
        raise ConfigError(f"allocation.rule.name={rule['name']}: {needs} a fixed low share: allocation=fixed")
    if not 0 < allocator.n_high < allocator.n_low:
        raise ConfigError(
            f"allocation.rule.rho={rule['rho']}: {needs} low rows besides those that are paired with a high one: more "
            f"than 0.5 and less than 1 (here are {allocator.n_low} low and {allocator.n_high} high environments)"
        )
