"""A pool of environments: a simulator's worlds under a task, with automatic resets."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.task import State, Task
from dualfid_robot.simulators.base import Simulator


@dataclass
class PoolStatistics:
    """What happened in a pool since its statistics were last taken.

    Attributes:
        returns, lengths: undiscounted return and number of steps of each finished episode, in order of time.
        failures: worlds that went non-finite or were refused by the engine, and were reset.
        env_steps: environment steps done.
        seconds: wall time of those steps: simulation, observation, reward and reset.
    """

    returns: list[Tensor] = field(default_factory=list)
    lengths: list[Tensor] = field(default_factory=list)
    failures: int = 0
    env_steps: int = 0
    seconds: float = 0.0


class EnvironmentPool:
    """`simulator.num_worlds` environments, of which each step advances the first n; the others are frozen as they are.

    Attributes:
        observations: (N, num_observations) current observations; after the end of an episode those of the next one.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step (first n rows).
        final_ids: (k,) int64, the environments whose episode the time limit cut in the last step.
        final_observations: (k, num_observations): what these environments saw last, before their reset.
    """

    def __init__(self, simulator: Simulator, task: Task, seed: int) -> None:
        n, device = simulator.num_worlds, simulator.device
        self.simulator = simulator
        self.task = task
        self.observations = torch.zeros(n, task.num_observations, device=device)
        self.reward = torch.zeros(n, device=device)
        self.terminated = torch.zeros(n, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(n, dtype=torch.bool, device=device)
        self.final_ids = torch.zeros(0, dtype=torch.int64, device=device)
        self.final_observations = self.observations[:0]
        self._actions = torch.zeros(n, task.num_actions, device=device)
        self._previous_qpos = torch.empty_like(simulator.qpos)
        self._episode_return = torch.zeros(n, device=device)
        self._episode_step = torch.zeros(n, dtype=torch.int32, device=device)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._statistics = PoolStatistics()
        self.reset_all()

    @property
    def num_envs(self) -> int:
        """Number of environments, active or frozen."""
        return self.simulator.num_worlds

    def reset_all(self) -> None:
        """Begin a new episode everywhere."""
        self._reset(torch.arange(self.num_envs, device=self.simulator.device))

    def step(self, actions: Tensor) -> None:
        """Advance the first len(actions) environments by one control period.

        Args:
            actions: (n, num_actions), unclipped.
        """
        self.start_step(actions)
        self.finish_step()

    def start_step(self, actions: Tensor) -> None:
        """Begin a step; returns early where the engine works elsewhere."""
        started = time.perf_counter()
        self._n = n = len(actions)
        self._previous_qpos[:n] = self.simulator.qpos[:n]
        self._actions[:n] = self.task.clip_action(actions)
        self.simulator.start_step(self.task.control(self._actions[:n]), n)
        self._statistics.seconds += time.perf_counter() - started

    def finish_step(self) -> None:
        """Wait for the step; compute rewards, ends and observations; reset the environments that ended."""
        started = time.perf_counter()
        n, task = self._n, self.task
        self.simulator.finish_step()
        failed = self.simulator.failed[:n]
        state = self._state(n)
        observed = task.observe(state)
        terminated = task.terminated(state, observed)
        reward = task.reward(self._previous_qpos[:n], state, observed, terminated)
        self.reward[:n] = reward.masked_fill_(failed, 0.0)
        torch.logical_or(terminated, failed, out=self.terminated[:n])
        task.write_observation(observed, self.observations[:n])
        self._episode_return[:n] += self.reward[:n]
        self._episode_step[:n] += 1
        torch.ge(self._episode_step[:n], task.config.episodeLength, out=self.truncated[:n])
        self.truncated[:n] &= ~self.terminated[:n]
        self._end_episodes(n)
        self._statistics.failures += int(failed.sum())
        self._statistics.env_steps += n
        self._statistics.seconds += time.perf_counter() - started

    def take_statistics(self) -> PoolStatistics:
        """What happened since the last call."""
        statistics, self._statistics = self._statistics, PoolStatistics()
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "simulator": self.simulator.snapshot(),
            "observations": self.observations,
            "actions": self._actions,
            "episode_return": self._episode_return,
            "episode_step": self._episode_step,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a pool of the same task, engine and size."""
        self.simulator.restore({name: np.asarray(value) for name, value in state["simulator"].items()})
        self.observations.copy_(state["observations"])
        self._actions.copy_(state["actions"])
        self._episode_return.copy_(state["episode_return"])
        self._episode_step.copy_(state["episode_step"])
        self._generator.set_state(state["generator"])

    def _state(self, n: int) -> State:
        simulator = self.simulator
        return State(simulator.qpos[:n], simulator.qvel[:n], simulator.contact_wrench[:n], self._actions[:n])

    def _end_episodes(self, n: int) -> None:
        ended = (self.terminated[:n] | self.truncated[:n]).nonzero().squeeze(1)
        self.final_ids = ended[self.truncated[ended]]
        self.final_observations = self.observations[self.final_ids]
        if len(ended):
            self._statistics.returns.append(self._episode_return[ended])
            self._statistics.lengths.append(self._episode_step[ended])
            self._reset(ended)

    def _reset(self, ids: Tensor) -> None:
        self.simulator.set_state(ids, *self.task.sample_initial_state(len(ids), self._generator))
        self._actions[ids] = 0.0
        self._episode_return[ids] = 0.0
        self._episode_step[ids] = 0
        observations = self.observations[ids]
        self.task.write_observation(self.task.observe(self._state(self.num_envs).rows(ids)), observations)
        self.observations[ids] = observations
