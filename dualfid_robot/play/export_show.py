"""An exported policy before a person's eyes, by its files alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dualfid_robot.onboard.commands import Source
from dualfid_robot.onboard.runtime import ExportedPolicy
from dualfid_robot.play.player import Player
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.playback import Step


class ExportShow:
    """Plays one episode after another from the exporter's starts (see `view.playback.Show`).

    All robots begin together. They do so again when the first one's episode is over. Another one that fails meanwhile
    stays in the picture as the engine goes on with it.
    """

    def __init__(
        self,
        policy: ExportedPolicy,
        robot: RobotModel,
        engines: Mapping[str, Mapping[str, Any]],
        n: int = 1,
        device: torch.device | str = "cpu",
        dial: float = 1.0,
        source: Source | None = None,
    ) -> None:
        """Build the first engine.

        Args:
            policy: what acts.
            robot: what it acts on.
            engines: settings of those to choose from. The first is used.
            n: number of robots.
            device: of the engines.
            dial: how much of the adapter acts, where the policy has a dial.
            source: where commands come from; None: from `give_command` alone.

        Raises:
            ConfigError: the engine or the policy does not take the robot.
        """
        metadata = policy.metadata
        self.title, self.robot, self.n = metadata.task, robot, n
        self.period = metadata.timing.control_dt
        head = metadata.policy.head
        self.policies: tuple[str, ...] = ("adapted", "base", "dial") if head == "dial" else (head,)
        self.engines, self.commands = tuple(engines), metadata.commands
        self._policy, self._settings, self._device, self._source = policy, engines, device, source
        self._player = self._make_player(self.engines[0], dial)
        self._first = 0
        self._returns = np.zeros(n)
        self._running = np.ones(n, bool)

    def _make_player(self, engine: str, dial: float) -> Player:
        robot = SimulatedRobot.build(self._policy.metadata, self.robot, self._settings[engine], self.n, self._device)
        return Player(self._policy, robot, dial, self._source)

    def begin(self) -> np.ndarray:
        self._player.begin(self._first)
        self._first = (self._first + 1) % (len(self._player.starts["qpos"]) - self.n + 1)
        self._returns[:], self._running[:] = 0.0, True
        return self._qpos()

    def step(self) -> Step:
        player = self._player
        outcome = player.step()
        self._returns += np.where(self._running, outcome.reward, 0.0)
        over = player.steps >= player.metadata.episode_length
        ended = self._running & (outcome.terminated | over)
        self._running &= ~ended
        returns = tuple(self._returns[ended].tolist())
        rewards = outcome.reward_terms or {"reward": outcome.reward}
        lines: tuple[str, ...] = ()
        if ended[0]:
            lines = (f"return {self._returns[0]:.4g} after {player.time:.2f} s",)
            self.begin()
        return Step(self._qpos(), rewards, returns, lines)

    def choose_policy(self, name: str, dial: float) -> None:
        if "dial" in self.policies:
            self._player.controller.dial = {"adapted": 1.0, "base": 0.0}.get(name, dial)

    def choose_engine(self, name: str) -> None:
        old = self._player
        self._player = self._make_player(name, old.controller.dial)
        self._player.operator.values = dict(old.operator.values)
        old.robot.close()

    def give_command(self, name: str, value: float) -> None:
        self._player.operator.values[name] = value

    def commanded(self) -> dict[str, float]:
        memory, given = self._player.controller.memory, self._player.operator.values
        return {c.name: given.get(c.name, float(memory[c.memory][0, c.column])) for c in self.commands}

    def news(self) -> str:
        return ""

    def close(self) -> None:
        self._player.robot.close()

    def _qpos(self) -> np.ndarray:
        qpos: np.ndarray = self._player.robot.simulator.qpos.cpu().numpy().copy()
        return qpos
