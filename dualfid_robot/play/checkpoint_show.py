"""A checkpoint's policy before a person's eyes, in the task's own environments; also while its run goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.policies.actor_critic import PolicyName
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.saved_policy import policy_of
from dualfid_robot.view.playback import Step

_LOOK_PERIOD = 1.0  # s between two looks at a file that changes


class CheckpointShow:
    """Plays a policy in environments that reset themselves (see `view.playback.Show`)."""

    def __init__(
        self,
        checkpoint: Path,
        state: Mapping[str, Any],
        engines: Mapping[str, Mapping[str, Any]],
        n: int = 1,
        seed: int = 0,
        sim_device: str = "",
        follow: bool = False,
    ) -> None:
        """Take up the policy and build the first engine.

        Args:
            checkpoint: the file.
            state: its content.
            engines: settings of those to choose from. The first is used.
            n: number of robots.
            seed: of what the environments draw.
            sim_device: of the engines; empty: a GPU where there is one.
            follow: take up the file's policy again whenever it has changed.

        Raises:
            ConfigError: the checkpoint is damaged, or the engine does not take its robot.
        """
        first = next(iter(engines.values()))
        self._experiment, self._policy = policy_of(checkpoint, state, first, sim_device)
        self._checkpoint, self._settings, self._seed, self._follow = checkpoint, engines, seed, follow
        self._read_at, self._looked_at = checkpoint.stat().st_mtime, time.monotonic()
        self._news = ""
        self.n, self.title = n, self._experiment.task.name
        self.robot, self.period = self._experiment.robot, self._experiment.task.sim.dt
        both = self._experiment.network.adapter.kind != "none"
        self.policies: tuple[str, ...] = ("adapted", "base", "dial") if both else ("adapted",)
        self.engines = tuple(engines)
        self._acting: PolicyName | float = "adapted"
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
        self._read_again()
        pool = self._pool
        for command in self.commands:
            if command.name in self._given:
                pool.memory[command.memory][:, command.column] = self._given[command.name]
        lengths = pool.episode_step.cpu().numpy() + 1
        pool.step(self._policy.to(pool.device).action_mean(pool.observations, self._acting))
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
        self._acting = dial if name == "dial" else name  # type: ignore[assignment]

    def choose_engine(self, name: str) -> None:
        old, self._pool = self._pool, self._make_pool(name)
        old.simulator.close()

    def give_command(self, name: str, value: float) -> None:
        self._given[name] = value

    def commanded(self) -> dict[str, float]:
        memory = self._pool.memory
        return {c.name: self._given.get(c.name, float(memory[c.memory][0, c.column])) for c in self.commands}

    def news(self) -> str:
        return self._news

    def close(self) -> None:
        self._pool.simulator.close()

    def _read_again(self) -> None:
        """Take up a policy that has changed since."""
        if not self._follow or time.monotonic() - self._looked_at < _LOOK_PERIOD:
            return
        self._looked_at = time.monotonic()
        changed = self._checkpoint.stat().st_mtime
        if changed == self._read_at:
            return
        self._read_at = changed
        state = load_checkpoint(self._checkpoint)
        self._policy.load_state_dict(state["policy"])
        metrics = state["metrics"]
        returns = [f"{side} {metrics[f'return/{side}']:.4g}" for side in ("low", "high") if f"return/{side}" in metrics]
        reached = f"return {', '.join(returns)}" if returns else "no episode has ended yet"
        self._news = f"training: iteration {state['iteration']}, {reached}"

    def _qpos(self) -> np.ndarray:
        qpos: np.ndarray = self._pool.simulator.qpos.cpu().numpy().copy()
        return qpos


def engines_of(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Settings of the engines that a run was trained in, by name."""
    return {str(settings["name"]): settings for settings in experiment.engines.values()}
