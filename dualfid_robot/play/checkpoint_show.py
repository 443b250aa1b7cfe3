"""A checkpoint's policy before a person's eyes, in the task's own environments; also while its run goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.evaluate.agents import policy_agent, policy_agents
from dualfid_robot.evaluate.environment_show import EnvironmentShow
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.saved_policy import policy_of
from dualfid_robot.view.playback import Step

_LOOK_PERIOD = 1.0  # s between two looks at a file that changes


class CheckpointShow(EnvironmentShow):
    """Plays a policy, with a dial where it has an adapter, and takes it up again where its file changes."""

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
        experiment, self._policy = policy_of(checkpoint, state, first, sim_device)
        self._checkpoint, self._follow = checkpoint, follow
        self._read_at, self._looked_at = checkpoint.stat().st_mtime, time.monotonic()
        self._news = ""
        agents = policy_agents(experiment, self._policy)
        super().__init__(experiment, agents, engines, n, seed)
        if len(agents) > 1:
            self.policies = (*self.policies, "dial")

    def step(self) -> Step:
        self._read_again()
        return super().step()

    def choose_policy(self, name: str, dial: float) -> None:
        if name == "dial":
            self._agent = policy_agent(self._policy, dial)
        else:
            super().choose_policy(name, dial)

    def news(self) -> str:
        return self._news

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


def engines_of(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Settings of the engines that a run was trained in, by name."""
    return {str(settings["name"]): settings for settings in experiment.engines.values()}
