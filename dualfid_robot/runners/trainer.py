"""The training loop: roll out in both simulators, measure the divergence, decide the next split, update."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfid_robot.algorithms.allocation import AllocationConfig, Allocator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.envs.dual import DualEnvironment
from dualfid_robot.envs.pool import EnvironmentPool, PoolStatistics
from dualfid_robot.errors import ConfigError
from dualfid_robot.runners.checkpoint import load_checkpoint, save_checkpoint
from dualfid_robot.runners.experiment import Experiment
from dualfid_robot.runners.interrupt import Interrupt
from dualfid_robot.runners.progress import ProgressDisplay
from dualfid_robot.runners.run_log import RunLog
from dualfid_robot.settings import parse_settings

logger = logging.getLogger(__name__)

EPISODES = 100  # a return is reported as the mean of so many finished episodes
SIDES = ("low", "high")
# Settings that give a checkpoint its shapes and meaning; a run cannot go on with other ones.
_STRUCTURAL = ("task", "num_envs", "simulator", "train.params.network", "train.params.config.horizon_length")


class Trainer:
    """One training run.

    Attributes:
        policy: both policies in one network.
        env: the dual environment.
        iteration: iterations done; samples: environment steps of both simulators.
        cost_seconds: measured cost so far: seconds of both simulators and of the learner.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        seeds = [int(seed) for seed in np.random.SeedSequence(experiment.seed).generate_state(4)]
        allocation = parse_settings(AllocationConfig, experiment.settings["allocation"], "allocation")
        self.allocator = Allocator(experiment.num_envs, allocation)
        self.policy = experiment.make_policy()
        self.algorithm = DualPPO(self.policy, experiment.ppo, seed=seeds[2])
        self.env = self._make_environment(seeds[0], seeds[1])
        self.storage = self.algorithm.make_storage(experiment.num_envs)
        self._observations = torch.zeros(experiment.num_envs, self.env.task.num_observations)
        self._generator = torch.Generator().manual_seed(seeds[3])
        self.iteration = 0
        self.samples = 0
        self.cost_seconds = 0.0
        self.best_return = -math.inf
        self._recent = {side: deque[tuple[float, float]](maxlen=EPISODES) for side in SIDES}
        self._last_metrics: dict[str, float] = {}

    def _make_environment(self, low_seed: int, high_seed: int) -> DualEnvironment:
        experiment, simulators = self.experiment, self.experiment.settings["simulator"]
        pools: dict[str, EnvironmentPool | None] = {"low": None, "high": None}
        sizes = {"low": (self.allocator.max_n_low, low_seed), "high": (self.allocator.max_n_high, high_seed)}
        try:
            for side, (size, seed) in sizes.items():
                if size:
                    pools[side] = experiment.make_pool(simulators[side], size, seed)
        except BaseException:
            for pool in pools.values():
                if pool is not None:
                    pool.simulator.close()
            raise
        return DualEnvironment(pools["low"], pools["high"], experiment.num_envs, experiment.rl_device)

    def train(self, folder: Path) -> None:
        """Train until the iterations or the cost run out, or a signal asks to stop; the last state is always saved.

        Args:
            folder: the run's folder.
        """
        run = self.experiment.run
        resumed_at = self._last_metrics or None
        log = RunLog(folder, self.experiment.settings, resumed_at)
        title = f"{run.name} · seed {self.experiment.seed} · {folder}"
        try:
            with Interrupt() as interrupt, ProgressDisplay(title, run.max_epochs, self.experiment.max_cost) as display:
                while not self._finished() and not interrupt.requested:
                    metrics = self.iterate()
                    log.write(metrics)
                    display.update(metrics)
                    self._save_best(folder)
                    if self.iteration % run.save_frequency == 0:
                        self.save(folder / "nn" / f"iteration_{self.iteration:06d}.pth")
                        self.save(folder / "nn" / "last.pth")
            self.save(folder / "nn" / "last.pth")
        finally:
            log.close()
        if interrupt.requested:
            logger.warning("%s: saved after iteration %d; go on with", interrupt.name, self.iteration)
            logger.warning("the same command and checkpoint=%s", folder / "nn" / "last")

    def _finished(self) -> bool:
        cost = self.experiment.max_cost
        return self.iteration >= self.experiment.run.max_epochs or (cost is not None and self.cost_seconds >= cost)

    def iterate(self) -> dict[str, float]:
        """One iteration of the algorithm (docs/algorithm.md); returns its metrics."""
        started = time.perf_counter()
        self.env.reallocate(self.allocator.n_low)
        metrics = self.allocator.metrics()
        reallocation_seconds = time.perf_counter() - started
        self._roll_out()
        statistics = self.env.take_statistics()
        hidden = self.env.hidden_seconds(statistics)
        simulated = sum(part.seconds for part in statistics.values()) - hidden
        allocating = time.perf_counter()
        divergence = policy_divergence(self.policy, self.storage.low_observations)
        self.allocator.update(None if divergence is None else float(divergence))
        allocation_seconds = reallocation_seconds + time.perf_counter() - allocating
        if divergence is not None:
            metrics["divergence/D"] = float(divergence)
        metrics |= self.algorithm.update(self.storage)
        elapsed = time.perf_counter() - started
        self.iteration += 1
        self.samples += self.storage.horizon * self.env.num_envs
        self.cost_seconds += elapsed
        metrics |= {
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost_seconds,
            "env_steps_per_second": self.storage.horizon * self.env.num_envs / elapsed,
            "seconds/iteration": elapsed,
            "seconds/learner": elapsed - simulated,
            "seconds/allocation": allocation_seconds,
            "seconds/hidden": hidden,
        }
        metrics |= self._pool_metrics(statistics)
        self._last_metrics = metrics
        return metrics

    def _roll_out(self) -> None:
        env, storage = self.env, self.storage
        storage.begin(env.n_low)
        env.observe(self._observations)
        with self.policy.frozen_weights():
            for _ in range(storage.horizon):
                actions, log_probs, values = self.policy.act(self._observations, env.n_low, self._generator)
                env.step(actions)
                storage.add(
                    self._observations,
                    actions,
                    log_probs,
                    values,
                    env.reward,
                    env.terminated,
                    env.truncated,
                    env.final_observations,
                )
                env.observe(self._observations)
        self.algorithm.compute_returns(storage, self._observations)

    def _pool_metrics(self, statistics: dict[str, PoolStatistics]) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for side, part in statistics.items():
            metrics[f"seconds/{side}"] = part.seconds
            metrics[f"failures/{side}"] = part.failures
            if part.env_steps:
                metrics[f"seconds_per_env_step/{side}"] = part.seconds / part.env_steps
            recent = self._recent[side]
            recent.extend(zip(part.returns.tolist(), part.lengths.tolist(), strict=True))
            if recent:
                metrics[f"return/{side}"] = sum(r for r, _ in recent) / len(recent)
                metrics[f"episode_length/{side}"] = sum(length for _, length in recent) / len(recent)
            if part.failures:
                logger.warning("%d world(s) of the %s simulator went non-finite and were reset", part.failures, side)
        return metrics

    def _save_best(self, folder: Path) -> None:
        """Keep the policy with the best return in the simulator that it is meant for: high, where there is one."""
        side = "high" if self.env.high is not None else "low"
        current = self._last_metrics.get(f"return/{side}")
        if current is None or current <= self.best_return:
            return
        self.best_return = current
        if self.iteration > self.experiment.run.save_best_after:
            self.save(self.experiment.save_path(folder))

    def save(self, path: Path) -> None:
        """Write a checkpoint with everything that the next iteration depends on."""
        state = {
            "task": self.experiment.task.name,
            "settings": json.dumps(self.experiment.settings),
            "metrics": self._last_metrics,
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost_seconds,
            "best_return": self.best_return,
            "recent": {side: list(map(list, recent)) for side, recent in self._recent.items()},
            "generator": self._generator.get_state(),
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "allocator": self.allocator.state_dict(),
            "env": self.env.state_dict(),
        }
        save_checkpoint(path, state)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint exactly.

        Raises:
            ConfigError: it is damaged, belongs to another task, or was made with other structural settings.
        """
        state = load_checkpoint(path)
        check_resumable(path, state, self.experiment)
        self._generator.set_state(state["generator"])
        self.policy.load_state_dict(state["policy"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.allocator.load_state_dict(state["allocator"])
        self.env.load_state_dict(state["env"])
        self.iteration, self.samples = state["iteration"], state["samples"]
        self.cost_seconds, self.best_return = state["cost_seconds"], state["best_return"]
        self._last_metrics = state["metrics"]
        for side, episodes in state["recent"].items():
            self._recent[side].extend((r, length) for r, length in episodes)

    def close(self) -> None:
        """Close the simulators."""
        self.env.close()


def check_resumable(path: Path, state: dict[str, Any], experiment: Experiment) -> None:
    """Compare a checkpoint's settings with the present ones; changes that are allowed are announced.

    Raises:
        ConfigError: another task, or another value of a structural setting.
    """
    if state["task"] != experiment.task.name:
        raise ConfigError(f"checkpoint={path}: was trained on task={state['task']}, not on task={experiment.task.name}")
    before, now = _flat(json.loads(state["settings"])), _flat(experiment.settings)
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    for key in changed:
        text = f"{key}={now.get(key)}: the checkpoint was made with {before.get(key)}"
        if key.startswith(_STRUCTURAL):
            raise ConfigError(f"{text}; go on with that value")
        if key.startswith(("train.", "allocation.", "seed")):
            logger.warning(text)


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
