"""Plays an exported policy in any engine, by its metadata alone: no task is known here."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.evaluation import Evaluation, paired_difference, rounded
from dualfid_robot.onboard.commands import Operator, Source
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.runtime import (
    MEASURE_OUTPUT,
    MEMORY_INPUT,
    REWARD_OUTPUT,
    STARTS,
    Controller,
    ExportedPolicy,
)
from dualfid_robot.play.engines import OF_THE_MACHINE
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.simulators.registry import OF_A_SIDE


@dataclass
class Outcome:
    """What one control period brought, (n,) each; a failed robot's reward is 0, and it has terminated."""

    reward: np.ndarray
    terminated: np.ndarray
    failed: np.ndarray
    reward_terms: dict[str, np.ndarray]
    measures: dict[str, np.ndarray]


class Player:
    """A policy in the loop with simulated robots.

    Attributes:
        controller: what runs the policy.
        operator: the commands in force.
        robot: the robots.
        steps: control periods since the episode began; time: s.
    """

    def __init__(
        self, policy: ExportedPolicy, robot: SimulatedRobot, dial: float = 1.0, commands: Source | None = None
    ) -> None:
        """Get ready; `begin` starts.

        Args:
            dial: how much of the adapter acts, where the policy has a dial.
            commands: where commands come from; None: they stay as episodes begin with them.

        Raises:
            ConfigError: a dial that the policy has not.
        """
        self.metadata, self.robot = policy.metadata, robot
        self.controller = Controller(policy, robot.n, dial)
        self.operator = Operator(policy.metadata)
        self.starts = read_starts(policy)
        self._commands = commands
        self.steps = 0

    @property
    def time(self) -> float:
        return self.steps * self.metadata.timing.control_dt

    def begin(self, first: int = 0) -> None:
        """Begin an episode on every robot, from the stored starts `first` and following.

        Raises:
            ConfigError: there are not so many.
        """
        start = rows_of(self.starts, first, self.robot.n)
        self.robot.reset(start.pop("qpos"), start.pop("qvel"))
        self._state = self.robot.measure()
        self.steps = 0
        self.controller.begin(self._state, {name.removeprefix(MEMORY_INPUT): values for name, values in start.items()})

    def step(self) -> Outcome:
        """One control period of every robot."""
        if self._commands is not None:
            self._commands.update(self.operator, self.time)
        self.operator.write(self.controller.memory)
        control = self.controller.act(self._state)
        previous = self._state.qpos
        self.robot.step(control)
        self._state = self.robot.measure()
        self.steps += 1
        judged, failed = self.controller.judge(previous, self._state), self.robot.failed
        return Outcome(
            np.where(failed, 0.0, judged["reward"]),
            judged["terminated"] | failed,
            failed,
            {name: np.where(failed, 0.0, judged[REWARD_OUTPUT + name]) for name in self.metadata.reward},
            {k.removeprefix(MEASURE_OUTPUT): v for k, v in judged.items() if k.startswith(MEASURE_OUTPUT)},
        )

    def play(
        self, steps: int | None = None, after_step: Callable[[np.ndarray], None] = lambda running: None
    ) -> Evaluation:
        """Play one episode on every robot; those that ended early go on without being counted.

        Args:
            steps: bound on the control periods. None means the task's episode.
            after_step: called after each, with (n,) bool: who was still in the episode during it.
        """
        limit = self.metadata.episode_length if steps is None else min(steps, self.metadata.episode_length)
        returns, lengths = np.zeros(self.robot.n), np.zeros(self.robot.n)
        running, terminated = np.ones(self.robot.n, bool), np.zeros(self.robot.n, bool)
        rewards: dict[str, np.ndarray] = {}
        sums: dict[str, np.ndarray] = {}
        finals: dict[str, np.ndarray] = {}
        failures = 0
        self.begin()
        for _ in range(limit):
            outcome = self.step()
            returns += np.where(running, outcome.reward, 0.0)
            lengths += running
            terminated |= running & outcome.terminated
            failures += int((running & outcome.failed).sum())
            for name, values in outcome.reward_terms.items():
                rewards[name] = rewards.get(name, 0.0) + np.where(running, values, 0.0)
            for name, values in outcome.measures.items():
                sums[name] = sums.get(name, 0.0) + np.where(running, values, 0.0)
                finals[name] = np.where(running, values, finals.get(name, values))
            after_step(running)
            running = running & ~outcome.terminated
            if not running.any():
                break
        measures = {name: total / lengths for name, total in sums.items()}
        return Evaluation(returns, lengths, terminated, failures, measures, finals, rewards)


def read_starts(policy: ExportedPolicy) -> dict[str, np.ndarray]:
    """The exporter's initial states: qpos (rows, nq), qvel (rows, nv) and memory.<name> (rows, columns).

    Raises:
        ConfigError: the file is damaged.
    """
    path = policy.folder / STARTS
    try:
        with np.load(path) as starts:
            return dict(starts)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise ConfigError(f"policy={path}: is damaged; export it again") from error


def rows_of(starts: Mapping[str, np.ndarray], first: int, n: int) -> dict[str, np.ndarray]:
    """n of the starts, from row `first` on.

    Raises:
        ConfigError: there are not so many.
    """
    rows = len(starts["qpos"])
    if first + n > rows:
        raise ConfigError(f"num_envs={n}: this export has {rows} initial states; ask for at most {rows}")
    return {name: values[first : first + n] for name, values in starts.items()}


def comparison(metadata: Metadata, settings: Mapping[str, Any], evaluation: Evaluation) -> str:
    """Compare returns with the exporter's from the same starts in the same engine, in words."""
    ours = _of_the_result(settings)
    for theirs in metadata.evaluations.values():
        if _of_the_result(theirs.simulator) == ours:
            n = len(evaluation.returns)
            expected = np.array(theirs.returns[:n])
            difference, half = paired_difference(evaluation.returns, expected)
            return (
                f"the exporter measured {rounded(expected.mean(), 6)} from these starts; the difference is"
                f" {rounded(difference, 3)} (99% interval {rounded(difference - half, 3)} to"
                f" {rounded(difference + half, 3)})"
            )
    measured = ", ".join(f"{name} {theirs.mean:.4g}" for name, theirs in metadata.evaluations.items())
    return f"the exporter measured nothing with these settings of the engine; it found: {measured or 'nothing'}"


def _of_the_result(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in (*OF_THE_MACHINE, *OF_A_SIDE)}
