"""A pool of environments: a simulator's worlds under a task, with automatic resets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.randomization import Randomization
from dualfid_robot.envs.reward import StepMeans, add_up, rows_of
from dualfid_robot.envs.stopwatch import Stopwatch
from dualfid_robot.envs.task import Start, State, Task
from dualfid_robot.robots.changes import position_bounds
from dualfid_robot.simulators.base import Simulator


@dataclass(frozen=True)
class PoolStatistics:
    """What happened in a pool since its statistics were last taken.

    Attributes:
        returns: (k,) undiscounted return of each finished episode, in order of time, on the CPU.
        lengths: (k,) number of steps of each.
        failures: worlds that went non-finite or were refused by the engine, and were reset.
        overflows: see `Simulator.take_overflows`.
        env_steps: environment steps done.
        reward_terms: mean over them of each term of `Task.reward`, which together are the mean reward of a step.
        measures: mean over them of each of `Task.measure`.
        randomized: present mean over all worlds of each of `Randomization.values`.
        step_seconds: wall time of each step: simulation, observation, reward and reset.
        adoption_seconds: wall time of all of `EnvironmentPool.adopt`.
        cpu_seconds: CPU time of both, of this process and of the engine's workers.
    """

    returns: Tensor = field(default_factory=lambda: torch.zeros(0))
    lengths: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int32))
    failures: int = 0
    overflows: int = 0
    env_steps: int = 0
    reward_terms: dict[str, float] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    randomized: dict[str, float] = field(default_factory=dict)
    step_seconds: list[float] = field(default_factory=list)
    adoption_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """Wall time of all that the pool did."""
        return sum(self.step_seconds) + self.adoption_seconds


class EnvironmentPool:
    """`simulator.num_worlds` environments, of which each step advances the first n and freezes the others.

    If the simulator resets by mask, a step never makes the host wait for the device.

    Attributes:
        observations: (N, num_observations) current observations, those of the next episode where one ended.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step (first n rows).
        final_observations: (N, num_observations): the last observations, before the reset, of the episodes that ended
            in the last step. Other rows hold no values.
        episode_step: (N,) int32, steps since each episode began.
        reward_terms: (n,) of each term of `Task.reward` in the last step, times the reward's factor; 0 in worlds that
            failed.
        measured: (n,) of each of `Task.measure` in the last step.
    """

    def __init__(
        self,
        simulator: Simulator,
        task: Task,
        seed: int,
        pin_memory: bool = False,
        randomization: Randomization | None = None,
        reward_factor: float = 1.0,
    ) -> None:
        """Begin an episode in every world.

        Args:
            simulator: the worlds. Its robot may be the task's with changes. Joints then begin an episode at the nearest
                positions within its own ranges.
            task: what to do in them, on the simulator's device.
            seed: of the initial states and of whatever else is drawn.
            pin_memory: keep the public tensors in page-locked memory, from which a GPU copies without the host.
            randomization: of the task and as many worlds, or nothing is randomised.
            reward_factor: factor on the task's reward.
        """
        n, device = simulator.num_worlds, simulator.device
        self.simulator = simulator
        self.task = task
        self.randomization = randomization
        self.reward_factor = reward_factor
        self._bounds: tuple[Tensor, Tensor] | None = None
        if simulator.robot.changes.joint_range != task.robot.changes.joint_range:
            lower, upper = torch.from_numpy(position_bounds(simulator.robot.model)).to(device, torch.float32)
            self._bounds = (lower, upper)
        self.observations = torch.zeros(n, task.num_observations, device=device, pin_memory=pin_memory)
        self.final_observations = torch.zeros_like(self.observations, pin_memory=pin_memory)
        self.reward = torch.zeros(n, device=device, pin_memory=pin_memory)
        self.terminated = torch.zeros(n, dtype=torch.bool, device=device, pin_memory=pin_memory)
        self.truncated = torch.zeros(n, dtype=torch.bool, device=device, pin_memory=pin_memory)
        self.reward_terms: dict[str, Tensor] = {}
        self.measured: dict[str, Tensor] = {}
        self._actions = torch.zeros(n, task.num_actions, device=device)
        self._controls = torch.zeros(n, task.num_actions, device=device)
        self._memory = {name: torch.zeros(n, columns, device=device) for name, columns in task.memory.items()}
        self._previous_qpos = torch.empty_like(simulator.qpos)
        self._episode_return = torch.zeros(n, device=device)
        self.episode_step = torch.zeros(n, dtype=torch.int32, device=device)
        self._generator = torch.Generator(device)
        self._finished: list[tuple[Tensor, Tensor]] = []
        self._failures = torch.zeros((), dtype=torch.int64, device=device)
        self._name = f"task={type(task).__name__}"
        self._reward_means, self._measure_means = (
            StepMeans(f"{self._name}: {function}") for function in ("reward", "measure")
        )
        self._env_steps = 0
        self._stopwatch, self._adoption_stopwatch = (Stopwatch(device, simulator) for _ in range(2))
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

    @property
    def memory(self) -> dict[str, Tensor]:
        """(N, columns) of each name of `Task.memory`, as it is now."""
        return self._memory

    def seed(self, seed: int) -> None:
        """Restart the random numbers of the pool."""
        self._generator.manual_seed(seed)

    def reset_all(self) -> None:
        """Begin a new episode everywhere."""
        self._reset(torch.arange(self.num_envs, device=self.device))

    def adopt(self, source: EnvironmentPool, rows: Tensor) -> None:
        """Put the first len(rows) environments into the present states of environments of another pool.

        All that the next step depends on is taken over, the observation as the source shows it. Two things are lost,
        because simulators do not carry them between engines: digits beyond float32 and contact memory. If this pool's
        robot has narrower joint ranges, joints move to the nearest positions within them. Random numbers stay this
        pool's own.

        Args:
            source: a pool of the same task, in any engine and on any device. Neither pool may be randomised.
            rows: (k,) int64, rows of the source, which may repeat.
        """
        with self._adoption_stopwatch:
            n, rows = len(rows), rows.to(source.device)

            def taken(tensor: Tensor) -> Tensor:
                return tensor[rows].to(self.device)

            ids = torch.arange(n, device=self.device)
            qpos, qvel = taken(source.simulator.qpos), taken(source.simulator.qvel)
            self.simulator.set_state(ids, self._reachable(qpos), qvel)
            for name, values in self._memory.items():
                values[:n] = taken(source.memory[name])
            for own, other in zip(self._carried(), source._carried(), strict=True):
                own[:n] = taken(other)
        self._adoption_stopwatch.end_lap()

    def step(self, actions: Tensor) -> None:
        """Advance the first len(actions) environments by one control period.

        Args:
            actions: (n, num_actions), unclipped.
        """
        self.start_step(actions)
        self.finish_step()

    def start_step(self, actions: Tensor) -> None:
        """Begin a step. An engine in other processes or on a GPU goes on working after this returns."""
        with self._stopwatch:
            self._n = n = len(actions)
            self._previous_qpos[:n] = self.simulator.qpos[:n]
            applied = self._actions[:n] = self.task.clip_action(actions)
            if self.randomization is not None:
                steps = self.episode_step[:n]
                self.randomization.push(self.simulator, steps, self._generator)
                applied = self.randomization.disturb(applied, steps, self._generator)
            self._controls[:n] = self.task.control(applied, self._controls[:n])
            self.simulator.start_step(self._controls[:n], n)

    def finish_step(self) -> None:
        """Wait for the step, compute rewards, ends and observations, and reset the environments that ended."""
        with self._stopwatch:
            n, task = self._n, self.task
            self.simulator.finish_step()
            failed = self.simulator.failed[:n]
            self.episode_step[:n] += 1
            state = self._state(n)
            observed = task.observe(state)
            terminated = task.terminated(state, observed)
            self._pay(task.reward(self._previous_qpos[:n], state, observed, terminated), failed)
            torch.logical_or(terminated, failed, out=self.terminated[:n])
            self._measure(state, observed)
            task.advance(state, observed, self._generator)
            self._show(observed, self.observations[:n], first=False)
            self._episode_return[:n] += self.reward[:n]
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
        steps, adoptions = self._stopwatch.take_laps(), self._adoption_stopwatch.take_laps()
        ended = lengths > 0  # with resets by mask, environments that went on stand here with length 0
        statistics = PoolStatistics(
            returns[ended],
            lengths[ended],
            int(self._failures),
            self.simulator.take_overflows(),
            self._env_steps,
            self._reward_means.take(self._env_steps),
            self._measure_means.take(self._env_steps),
            {} if self.randomization is None else self.randomization.means(),
            [lap.wall for lap in steps],
            sum(lap.wall for lap in adoptions),
            sum(lap.cpu for lap in (*steps, *adoptions)),
        )
        self._finished.clear()
        self._failures.zero_()
        self._env_steps = 0
        return statistics

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        state = {
            "simulator": self.simulator.snapshot(),
            "observations": self.observations,
            "actions": self._actions,
            "controls": self._controls,
            "memory": self._memory,
            "episode_return": self._episode_return,
            "episode_step": self.episode_step,
            "generator": self._generator.get_state(),
        }
        return state if self.randomization is None else state | {"randomization": self.randomization.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a pool of the same task, engine and size."""
        self.simulator.restore({name: np.asarray(value) for name, value in state["simulator"].items()})
        self.observations.copy_(state["observations"])
        self._actions.copy_(state["actions"])
        self._controls.copy_(state["controls"])
        for name, values in self._memory.items():
            values.copy_(state["memory"][name])
        self._episode_return.copy_(state["episode_return"])
        self.episode_step.copy_(state["episode_step"])
        self._generator.set_state(state["generator"])
        if self.randomization is not None:
            self.randomization.load_state_dict(state["randomization"])

    def _carried(self) -> tuple[Tensor, ...]:
        """What an environment carries from step to step besides its simulator's state and the task's memory."""
        return self.observations, self._actions, self._controls, self._episode_return, self.episode_step

    def _state(self, n: int) -> State:
        simulator = self.simulator
        return State(
            simulator.qpos[:n],
            simulator.qvel[:n],
            simulator.contact_wrench[:n],
            self._actions[:n],
            self._controls[:n],
            self.episode_step[:n],
            {name: values[:n] for name, values in self._memory.items()},
            {} if self.randomization is None else {name: v[:n] for name, v in self.randomization.values.items()},
        )

    def _pay(self, terms: Mapping[str, Tensor], failed: Tensor) -> None:
        """Add a reward's terms up. A world that failed is paid nothing."""
        rows = rows_of(terms, len(failed), self._name).masked_fill_(failed, 0.0)
        torch.mul(add_up(rows), self.reward_factor, out=self.reward[: len(failed)])
        if self.reward_factor != 1.0:
            rows.mul_(self.reward_factor)
        self.reward_terms = dict(zip(terms, rows, strict=True))
        self._reward_means.add(terms, rows)

    def _measure(self, state: State, observed: dict[str, Tensor]) -> None:
        self.measured = self.task.measure(state, observed)
        if self.measured:
            self._measure_means.add(self.measured, torch.stack(list(self.measured.values())))

    def _show(self, observed: dict[str, Tensor], out: Tensor, first: bool) -> None:
        if self.randomization is not None:
            self.randomization.add_noise(observed, self._generator)
        self.task.write_observation(observed, out, first)

    def _end(self, ids: Tensor) -> None:
        """End the episodes of the environments `ids` and begin new ones."""
        if len(ids):
            self.final_observations[ids] = self.observations[ids]
            self._finished.append((self._episode_return[ids], self.episode_step[ids]))
            self._reset(ids)

    def _reset(self, ids: Tensor) -> None:
        if self.randomization is not None:
            self.randomization.begin_episode(self.simulator, ids, self._generator)
        state = self._state(self.num_envs)  # views, so they show the new state after the reset
        start = self._begin_episode(state.rows(ids))
        self.simulator.set_state(ids, start.qpos, start.qvel)
        for name, values in start.memory.items():
            self._memory[name][ids] = values
        self._actions[ids] = 0.0
        self._controls[ids] = self.task.initial_control(start.qpos)
        self._episode_return[ids] = 0.0
        self.episode_step[ids] = 0
        observations = self.observations.new_empty(len(ids), self.observations.shape[1])
        self._show(self.task.observe(state.rows(ids)), observations, first=True)
        self.observations[ids] = observations

    def _begin_episode(self, last: State) -> Start:
        start = self.task.begin_episode(last, self._generator)
        return start._replace(qpos=self._reachable(start.qpos))

    def _reachable(self, qpos: Tensor) -> Tensor:
        """The nearest coordinates that are within the simulator's own joint ranges."""
        return qpos if self._bounds is None else qpos.clamp(*self._bounds)

    def _end_where(self, ended: Tensor) -> None:
        """`_end` for a mask (n,) of environments. Every row is computed, so that the host need not know which are in
        it."""
        n = len(ended)
        self.final_observations[:n] = self.observations[:n]
        self._finished.append((self._episode_return[:n].clone(), self.episode_step[:n] * ended))
        rows = ended[:, None]
        if self.randomization is not None and len(ids := ended.nonzero().squeeze(1)):  # here the host waits
            self.randomization.begin_episode(self.simulator, ids, self._generator)
        state = self._state(n)
        start = self._begin_episode(state)
        self.simulator.set_state_where(ended, start.qpos, start.qvel)
        for name, values in start.memory.items():
            torch.where(rows, values, self._memory[name][:n], out=self._memory[name][:n])
        self._actions[:n].masked_fill_(rows, 0.0)
        torch.where(rows, self.task.initial_control(start.qpos), self._controls[:n], out=self._controls[:n])
        self._episode_return[:n].masked_fill_(ended, 0.0)
        self.episode_step[:n].masked_fill_(ended, 0)
        observations = torch.empty_like(self.observations[:n])
        self._show(self.task.observe(state), observations, first=True)
        torch.where(rows, observations, self.observations[:n], out=self.observations[:n])
