"""A checkpoint's policy and its exported files in the same worlds, from the same starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import Agent
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate
from dualfid_robot.onboard.runtime import REWARD_OUTPUT, Controller, ExportedPolicy, RobotState

_KEPT = 8192  # observations that a recorder keeps at least, where there are so many


@dataclass(frozen=True)
class Visit:
    """What an agent saw in a closed loop.

    Attributes:
        evaluation: its returns, one per start.
        starts: arrays of `starts.npz`: qpos (n, nq), qvel (n, nv) and memory.<name> (n, columns).
        observations: (k, num_observations) that it saw, evenly spread over the episodes.
        qpos_low, qpos_high: (nq,) extremes; qvel_largest: (nv,) largest speeds.
    """

    evaluation: Evaluation
    starts: dict[str, np.ndarray]
    observations: Tensor
    qpos_low: np.ndarray
    qpos_high: np.ndarray
    qvel_largest: np.ndarray


def visit(
    experiment: Experiment, simulator: Mapping[str, Any], num_envs: int, seed: int, agent: Agent, observations: int
) -> Visit:
    """Run an agent for an episode from each of the first states after seeding a pool, and look on.

    Args:
        observations: number to collect at least; where the episodes are too short for it, further ones follow.
    """
    pool = experiment.make_pool(simulator, num_envs, seed)
    try:
        recorder = _Recorder(agent, pool)
        pool.seed(seed)
        evaluation = evaluate(recorder, pool)
        while recorder.count < observations:
            pool.step(recorder(pool.observations))
        return recorder.visit(evaluation)
    finally:
        pool.simulator.close()


class _Recorder:
    """An agent that writes down what another one sees."""

    def __init__(self, agent: Agent, pool: EnvironmentPool) -> None:
        self._agent, self._pool = agent, pool
        self._starts: dict[str, np.ndarray] = {}
        self._rows: list[Tensor] = []
        self._step, self._stride = 0, 1
        simulator = pool.simulator
        self._low, self._high = (torch.full_like(simulator.qpos[0], value) for value in (torch.inf, -torch.inf))
        self._speed = torch.zeros_like(simulator.qvel[0])

    def __call__(self, observations: Tensor) -> Tensor:
        simulator = self._pool.simulator
        if not self._starts:
            memory = {f"memory.{name}": values for name, values in self._pool.memory.items()}
            arrays = {"qpos": simulator.qpos, "qvel": simulator.qvel} | memory
            self._starts = {name: values.cpu().numpy().copy() for name, values in arrays.items()}
        self._low = torch.minimum(self._low, simulator.qpos.amin(0))
        self._high = torch.maximum(self._high, simulator.qpos.amax(0))
        self._speed = torch.maximum(self._speed, simulator.qvel.abs().amax(0))
        if self._step % self._stride == 0:
            self._rows.append(observations.cpu().clone())
            if self.count >= 2 * _KEPT and len(self._rows) > 1:
                self._rows, self._stride = self._rows[::2], 2 * self._stride
        self._step += 1
        return self._agent(observations)

    @property
    def count(self) -> int:
        """Observations kept so far."""
        return len(self._rows) * self._pool.num_envs

    def visit(self, evaluation: Evaluation) -> Visit:
        """All that was seen."""
        extremes = (extreme.cpu().numpy() for extreme in (self._low, self._high, self._speed))
        return Visit(evaluation, self._starts, torch.cat(self._rows), *extremes)


@dataclass(frozen=True)
class ExportedRun:
    """What exported files did in a closed loop.

    Attributes:
        evaluation: their returns.
        difference: the largest of an observation or a control from the task's own. It is taken over all steps of the
            evaluated episodes.
        reward_difference: likewise of the reward's terms by `episode.onnx`, beyond ±1 relative to their size. Steps
            that end an episode are left out.
        states: (T, ·) of the first robot, in each step of its episode.
        commands: (T, k) given to it meanwhile.
    """

    evaluation: Evaluation
    difference: float
    reward_difference: float
    states: RobotState
    commands: np.ndarray


def run_exported(
    experiment: Experiment, simulator: Mapping[str, Any], num_envs: int, seed: int, exported: ExportedPolicy
) -> ExportedRun:
    """The exported files in the loop in which `visit` ran a checkpoint. They see the robots' state, not the task's
    observations."""
    pool = experiment.make_pool(simulator, num_envs, seed)
    try:
        deployed = _Deployed(exported, pool)
        pool.seed(seed)
        return deployed.report(evaluate(deployed, pool))
    finally:
        pool.simulator.close()


class _Deployed:
    """Exported files as an agent in a pool."""

    def __init__(self, exported: ExportedPolicy, pool: EnvironmentPool) -> None:
        self._pool = pool
        self._controller = Controller(exported, pool.num_envs)
        self._commands = exported.metadata.commands
        self._running: np.ndarray | None = None
        self._difference = self._reward_difference = 0.0
        self._previous_qpos = np.empty(0, np.float32)
        self._first_robot: list[tuple[np.ndarray, ...]] = []

    def __call__(self, observations: Tensor) -> Tensor:
        pool, controller, simulator = self._pool, self._controller, self._pool.simulator
        state = RobotState(
            *(values.cpu().numpy() for values in (simulator.qpos, simulator.qvel, simulator.contact_wrench))
        )
        memory = {name: values.cpu().numpy() for name, values in pool.memory.items()}
        if self._running is None:
            self._running = np.ones(pool.num_envs, bool)
            controller.begin(state, memory)
        else:
            self._running &= ~(pool.terminated | pool.truncated).cpu().numpy()
            self._compare_reward(state)
            for command in self._commands:  # what training draws is the operator's here
                controller.memory[command.memory][:, command.column] = memory[command.memory][:, command.column]
        if self._running[0]:
            commands = np.array([memory[command.memory][0, command.column] for command in self._commands], np.float32)
            arrays = (state.qpos[0], state.qvel[0], state.contact_wrench[0], commands)
            self._first_robot.append(tuple(array.copy() for array in arrays))
        self._previous_qpos = state.qpos.copy()
        previous = torch.from_numpy(controller.control.copy())
        controller.act(state)
        action = torch.from_numpy(controller.action.copy())
        control = pool.task.control(action.to(pool.device), previous.to(pool.device)).cpu().numpy()
        shown = observations.cpu().numpy()[:, : controller.observation.shape[1]]
        for ours, theirs in ((controller.observation, shown), (controller.control, control)):
            difference = np.abs(ours - theirs)[self._running]
            self._difference = max(self._difference, float(difference.max(initial=0.0)))
            if not np.isfinite(difference).all():
                raise ConfigError("the exported files' observation or control is not finite in the closed loop")
        return action.to(pool.device)

    def _compare_reward(self, state: RobotState) -> None:
        """The terms of the step that led to `state`, by the exported files and by the pool."""
        judged = self._controller.judge(self._previous_qpos, state)
        for name, values in self._pool.reward_terms.items():
            theirs = values.cpu().numpy()
            difference = np.abs(judged[REWARD_OUTPUT + name] - theirs) / np.maximum(1.0, np.abs(theirs))
            self._reward_difference = max(self._reward_difference, float(difference[self._running].max(initial=0.0)))

    def report(self, evaluation: Evaluation) -> ExportedRun:
        """All that happened."""
        *state, commands = (np.stack(arrays) for arrays in zip(*self._first_robot, strict=True))
        return ExportedRun(evaluation, self._difference, self._reward_difference, RobotState(*state), commands)
