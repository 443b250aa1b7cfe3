"""Agents before a person's eyes, in the task's own environments (see `view.playback.Show`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.evaluate.agents import Agent
from dualfid_robot.view.playback import Step


class EnvironmentShow:
    """Plays an agent in environments that reset themselves."""

    def __init__(
        self,
        experiment: Experiment,
        agents: Mapping[str, Agent],
        engines: Mapping[str, Mapping[str, Any]],
        n: int = 1,
        seed: int = 0,
    ) -> None:
        """Build the first engine.

        Args:
            experiment: the task and its settings.
            agents: those to choose from, by name. The first acts.
            engines: settings of those to choose from. The first is used.
            n: number of robots.
            seed: of what the environments draw.

        Raises:
            ConfigError: the engine does not take the robot.
        """
        self._experiment, self._agents, self._settings, self._seed = experiment, agents, engines, seed
        self.n, self.title = n, experiment.task.name
        self.robot, self.period = experiment.robot, experiment.task.sim.dt
        self.policies, self.engines = tuple(agents), tuple(engines)
        self._agent = agents[self.policies[0]]
        self._given: dict[str, float] = {}
        self._pool = self._make_pool(self.engines[0])
        self.commands = self._pool.task.commands
        self._returns = np.zeros(n)

    def _make_pool(self, engine: str) -> EnvironmentPool:
        return self._experiment.make_pool(self._settings[engine], self.n, self._seed)

    def begin(self) -> np.ndarray:
        self._pool.reset_all()
        self._returns[:] = 0.0
        return self._qpos()

    def step(self) -> Step:
        pool = self._pool
        for command in self.commands:
            if command.name in self._given:
                pool.memory[command.memory][:, command.column] = self._given[command.name]
        lengths = pool.episode_step.cpu().numpy() + 1
        pool.step(self._agent(pool.observations))
        reward = pool.reward.cpu().numpy()
        self._returns += reward
        ended = (pool.terminated | pool.truncated).cpu().numpy()
        returns = tuple(self._returns[ended].tolist())
        lines = tuple(
            f"return {total:.4g} after {length * self.period:.2f} s"
            for total, length in zip(returns, lengths[ended], strict=True)
        )
        self._returns[ended] = 0.0
        terms = {name: values.cpu().numpy() for name, values in pool.reward_terms.items()}
        return Step(self._qpos(), terms or {"reward": reward.copy()}, returns, lines)

    def choose_policy(self, name: str, dial: float) -> None:
        self._agent = self._agents[name]

    def choose_engine(self, name: str) -> None:
        old, self._pool = self._pool, self._make_pool(name)
        old.simulator.close()

    def give_command(self, name: str, value: float) -> None:
        self._given[name] = value

    def commanded(self) -> dict[str, float]:
        memory = self._pool.memory
        return {c.name: self._given.get(c.name, float(memory[c.memory][0, c.column])) for c in self.commands}

    def news(self) -> str:
        return ""

    def close(self) -> None:
        self._pool.simulator.close()

    def _qpos(self) -> np.ndarray:
        qpos: np.ndarray = self._pool.simulator.qpos.cpu().numpy().copy()
        return qpos
