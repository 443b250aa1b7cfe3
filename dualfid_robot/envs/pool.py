"""A pool of environments: a simulator's worlds under a task, with automatic resets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.stopwatch import Stopwatch
from dualfid_robot.envs.task import State, Task
from dualfid_robot.simulators.base import Simulator


@dataclass(frozen=True)
class PoolStatistics:
    """What happened in a pool since its statistics were last taken.

    Attributes:
        returns: (k,) undiscounted return of each finished episode, in order of time; on the CPU.
        lengths: (k,) number of steps of each.
        failures: worlds that went non-finite or were refused by the engine, and were reset.
        overflows: see `Simulator.take_overflows`.
        env_steps: environment steps done.
        step_seconds: wall time of each step: simulation, observation, reward and reset.
    """

    returns: Tensor = field(default_factory=lambda: torch.zeros(0))
    lengths: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int32))
    failures: int = 0
    overflows: int = 0
    env_steps: int = 0
    step_seconds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return sum(self.step_seconds)


class EnvironmentPool:
    """`simulator.num_worlds` environments, of which each step advances the first n; the others are frozen as they are.

    Where the simulator resets by mask, a step never makes the host wait for the device.

    Attributes:
        observations: (N, num_observations) current observations; after the end of an episode those of the next one.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step (first n rows).
        final_observations: (N, num_observations): in the rows whose episode ended in the last step, what they saw last,
            before their reset; the other rows mean nothing.
        episode_step: (N,) int32, steps since each episode began.
    """

    def __init__(self, simulator: Simulator, task: Task, seed: int, pin_memory: bool = False) -> None:
        """Begin an episode in every world.

        Args:
            simulator: the worlds.
            task: what to do in them, on the simulator's device.
            seed: of the initial states.
            pin_memory: keep the public tensors in page-locked memory, from which a GPU copies without the host.
        """
        n, device = simulator.num_worlds, simulator.device
        self.simulator = simulator
        self.task = task
        self.observations = torch.zeros(n, task.num_observations, device=device, pin_memory=pin_memory)
        self.final_observations = torch.zeros_like(self.observations, pin_memory=pin_memory)
        self.reward = torch.zeros(n, device=device, pin_memory=pin_memory)
        self.terminated = torch.zeros(n, dtype=torch.bool, device=device, pin_memory=pin_memory)
        self.truncated = torch.zeros(n, dtype=torch.bool, device=device, pin_memory=pin_memory)
        self._actions = torch.zeros(n, task.num_actions, device=device)
        self._previous_qpos = torch.empty_like(simulator.qpos)
        self._episode_return = torch.zeros(n, device=device)
        self.episode_step = torch.zeros(n, dtype=torch.int32, device=device)
        self._generator = torch.Generator(device)
        self._finished: list[tuple[Tensor, Tensor]] = []
        self._failures = torch.zeros((), dtype=torch.int64, device=device)
        self._env_steps = 0
        self._stopwatch = Stopwatch(device)
        self.seed(seed)
        self.reset_all()

    @property
    def num_envs(self) -> int:
        """Number of environments, active or frozen."""
        return self.simulator.num_worlds

    @property
    def device(self) -> torch.device:
        """Device of all tensors."""
        return self.simulator.device

    def seed(self, seed: int) -> None:
        """Restart the random numbers that initial states are drawn with."""
        self._generator.manual_seed(seed)

    def reset_all(self) -> None:
        """Begin a new episode everywhere."""
        self._reset(torch.arange(self.num_envs, device=self.device))

    def step(self, actions: Tensor) -> None:
        """Advance the first len(actions) environments by one control period.

        Args:
            actions: (n, num_actions), unclipped.
        """
        self.start_step(actions)
        self.finish_step()

    def start_step(self, actions: Tensor) -> None:
        """Begin a step; returns early where the engine works elsewhere."""
        with self._stopwatch:
            self._n = n = len(actions)
            self._previous_qpos[:n] = self.simulator.qpos[:n]
            self._actions[:n] = self.task.clip_action(actions)
            self.simulator.start_step(self.task.control(self._actions[:n]), n)

    def finish_step(self) -> None:
        """Wait for the step; compute rewards, ends and observations; reset the environments that ended."""
        with self._stopwatch:
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
            self.episode_step[:n] += 1
            torch.ge(self.episode_step[:n], task.config.episodeLength, out=self.truncated[:n])
            self.truncated[:n] &= ~self.terminated[:n]
            self._failures += failed.sum()
            self._env_steps += n
            ended = self.terminated[:n] | self.truncated[:n]
            if self.simulator.RESETS_BY_MASK:
                self._end_where(ended)
            else:
                self._end(ended.nonzero().squeeze(1))
        self._stopwatch.end_lap()

    def take_statistics(self) -> PoolStatistics:
        """What happened since the last call."""
        returns = torch.cat([returns for returns, _ in self._finished] or [self._episode_return[:0]]).cpu()
        lengths = torch.cat([lengths for _, lengths in self._finished] or [self.episode_step[:0]]).cpu()
        ended = lengths > 0  # where resets go by mask, the environments that went on stand here with length 0
        statistics = PoolStatistics(
            returns[ended],
            lengths[ended],
            int(self._failures),
            self.simulator.take_overflows(),
            self._env_steps,
            self._stopwatch.take_laps(),
        )
        self._finished.clear()
        self._failures.zero_()
        self._env_steps = 0
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "simulator": self.simulator.snapshot(),
            "observations": self.observations,
            "actions": self._actions,
            "episode_return": self._episode_return,
            "episode_step": self.episode_step,
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a pool of the same task, engine and size."""
        self.simulator.restore({name: np.asarray(value) for name, value in state["simulator"].items()})
        self.observations.copy_(state["observations"])
        self._actions.copy_(state["actions"])
        self._episode_return.copy_(state["episode_return"])
        self.episode_step.copy_(state["episode_step"])
        self._generator.set_state(state["generator"])

    def _state(self, n: int) -> State:
        simulator = self.simulator
        return State(simulator.qpos[:n], simulator.qvel[:n], simulator.contact_wrench[:n], self._actions[:n])

    def _end(self, ids: Tensor) -> None:
        """End the episodes of the environments `ids` and begin new ones."""
        if len(ids):
            self.final_observations[ids] = self.observations[ids]
            self._finished.append((self._episode_return[ids], self.episode_step[ids]))
            self._reset(ids)

    def _reset(self, ids: Tensor) -> None:
        self.simulator.set_state(ids, *self.task.sample_initial_state(len(ids), self._generator))
        self._actions[ids] = 0.0
        self._episode_return[ids] = 0.0
        self.episode_step[ids] = 0
        observations = self.observations[ids]
        self.task.write_observation(self.task.observe(self._state(self.num_envs).rows(ids)), observations)
        self.observations[ids] = observations

    def _end_where(self, ended: Tensor) -> None:
        """`_end` of the environments that a mask (n,) names: every row is computed, so that no host need know which."""
        n = len(ended)
        self.final_observations[:n] = self.observations[:n]
        self._finished.append((self._episode_return[:n].clone(), self.episode_step[:n] * ended))
        self.simulator.set_state_where(ended, *self.task.sample_initial_state(n, self._generator))
        self._actions[:n].masked_fill_(ended[:, None], 0.0)
        self._episode_return[:n].masked_fill_(ended, 0.0)
        self.episode_step[:n].masked_fill_(ended, 0)
        observations = torch.empty_like(self.observations[:n])
        self.task.write_observation(self.task.observe(self._state(n)), observations)
        torch.where(ended[:, None], observations, self.observations[:n], out=self.observations[:n])
