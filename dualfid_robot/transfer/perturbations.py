"""Named changes of a simulated world, the same in every world and episode of an evaluation.

A perturbation is domain randomisation with a range of one value (envs/randomization.py). So every engine applies it, or
refuses it by name, as in training.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.randomization import Randomization, RandomizationConfig
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings
from dualfid_robot.simulators.registry import engine_class

_RANGES = ("friction", "mass", "motor_strength", "latency", "slope")
NOISE = "observation_noise"
KINDS = (*_RANGES[:4], NOISE, "slope")
NOMINAL = "nominal"
_MOST = 1e3  # of factors and deviations


@dataclass(frozen=True)
class Perturbation:
    """One change of the world. docs/transfer.md says what each does.

    Attributes:
        kind: one of `KINDS`, or empty for the unchanged world.
        value: a factor (friction, mass, motor_strength), control steps (latency) or degrees (slope). For
            observation_noise it is the standard deviation in units of the scaled observation.
    """

    kind: str = ""
    value: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}" if self.kind else NOMINAL

    def randomization(self, task: Task) -> RandomizationConfig:
        """The perturbation as settings of domain randomisation.

        Raises:
            ConfigError: a value that the kind cannot have.
        """
        most = task.config.episodeLength - 1 if self.kind == "latency" else _MOST
        if self.value > most:
            raise ConfigError(f"perturb={self}: must be at most {most:g}")
        settings: dict[str, Any] = {}
        if self.kind in _RANGES:
            settings = {self.kind: {"range": [self.value, self.value]}}
        elif self.kind:
            if not 0.0 <= self.value < float("inf"):
                raise ConfigError(f"perturb={self}: must be a finite number of at least 0")
            # Terms have different units. Dividing by their scales makes one deviation fit all of them.
            settings = {NOISE: {term.name: self.value / abs(term.scale) for term in task.terms if term.scale}}
        try:
            config: RandomizationConfig = parse_settings(RandomizationConfig, settings, "randomization")
        except ConfigError as error:
            raise ConfigError(f"perturb={self}: {str(error).removeprefix('randomization.')}") from error
        return config

    def problem(self, experiment: Experiment, engine: str) -> str | None:
        """Why an engine cannot do this to an experiment's robot, or None if it can.

        Raises:
            ConfigError: a value that the kind cannot have.
        """
        task = experiment.make_task()
        config = self.randomization(task)
        if self.kind and isinstance(task, ForeignTask):
            return f"{task.name} draws the parameters of its worlds itself"
        try:
            Randomization(config, task, engine_class(engine), 1)
        except ConfigError as error:
            return str(error).partition(": ")[2]
        return None

    def apply(self, experiment: Experiment) -> Experiment:
        """The experiment in the perturbed world, without anything else that its run randomised."""
        perturbed = copy.copy(experiment)
        perturbed.task = dataclasses.replace(
            experiment.task,
            randomize=bool(self.kind),
            randomization=self.randomization(experiment.make_task()),
        )
        return perturbed


def parse_perturbations(texts: Sequence[str]) -> tuple[Perturbation, ...]:
    """The nominal world, then the perturbations named as `kind=value`.

    Raises:
        ConfigError: a text of another form, or an unknown kind.
    """
    found = [Perturbation()]
    for text in texts:
        kind, separator, number = text.partition("=")
        if kind not in KINDS:
            raise ConfigError(f"perturb={text}: allowed are {list(KINDS)}, each with a value, such as friction=0.5")
        try:
            value = float(number)
        except ValueError:
            given = f"{number!r}" if separator else "no value"
            raise ConfigError(f"perturb={text}: a number is expected, such as {kind}=1, not {given}") from None
        found.append(Perturbation(kind, value))
    return tuple(dict.fromkeys(found))
