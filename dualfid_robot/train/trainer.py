"""The training loop: roll out in both simulators, measure, update, decide the next split."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfid_robot.algorithms.allocation import AllocationConfig, Allocator
from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.dual_ppo import read_back
from dualfid_robot.algorithms.measurements import SIGNAL_OF_METRIC, measure
from dualfid_robot.algorithms.research import make_algorithm
from dualfid_robot.algorithms.signals import SignalFilter
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.dual import DualEnvironment
from dualfid_robot.envs.pool import EnvironmentPool, PoolStatistics
from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, save_checkpoint
from dualfid_robot.runs.identity import identity
from dualfid_robot.runs.interrupt import Interrupt
from dualfid_robot.runs.resume import check_resumable
from dualfid_robot.runs.run_log import RunLog
from dualfid_robot.settings import parse_settings
from dualfid_robot.train.control_variate import check_control_variate, optimal_split
from dualfid_robot.train.progress import ProgressDisplay

logger = logging.getLogger(__name__)

EPISODES = 100  # a return is reported as the mean of so many finished episodes
SIDES = ("low", "high")


class Trainer:
    """One training run: its only process, or one of several that train the same policy (docs/distributed.md).

    Attributes:
        ranks: the processes of the run.
        policy: both policies in one network.
        env: the dual environment of this process.
        iteration: iterations done; samples: environment steps of both simulators in all processes.
        cost_seconds: measured cost so far: seconds of both simulators and of the learner, of all processes together.
    """

    def __init__(self, experiment: Experiment, ranks: Communicator = ALONE) -> None:
        self.experiment, self.ranks = experiment, ranks
        low_seed, high_seed, _, noise_seed = _seeds(experiment.seed, ranks.rank)
        _, _, shuffling_seed, _ = _seeds(experiment.seed, 0)
        device = experiment.rl_device
        allocation = parse_settings(AllocationConfig, experiment.settings["allocation"], "allocation")
        self.allocator = Allocator(experiment.num_envs, allocation)
        check_control_variate(experiment, self.allocator)
        self.filter = SignalFilter(experiment.num_envs * ranks.size, allocation.smoothing)
        self.policy = ranks.share(experiment.make_policy)
        self.algorithm = make_algorithm(self.policy, experiment.ppo, device, shuffling_seed, ranks)
        self.env = self._make_environment(low_seed, high_seed)
        self.storage = self.algorithm.make_storage(experiment.num_envs)
        self._observations = torch.zeros(experiment.num_envs, self.env.task.num_observations, device=device)
        self._generator = torch.Generator(device).manual_seed(noise_seed)
        self.iteration = 0
        self.samples = 0
        self.cost_seconds = 0.0
        self.best_return = -math.inf
        self._recent = {side: deque[tuple[float, float]](maxlen=EPISODES) for side in SIDES}
        self._last_metrics: dict[str, float] = {}

    def _make_environment(self, low_seed: int, high_seed: int) -> DualEnvironment:
        experiment = self.experiment
        if len(experiment.low_engines) > 1:
            raise ConfigError(f"simulator/low={[engine['name'] for engine in experiment.low_engines]}: one is expected")
        simulators = {"low": experiment.low_engines[0], "high": experiment.high_engine}
        pools: dict[str, EnvironmentPool | None] = {"low": None, "high": None}
        sizes = {
            "low": (self.allocator.max_n_low, low_seed, experiment.low_reward_factor),
            "high": (self.allocator.max_n_high, high_seed, 1.0),
        }
        try:
            for side, (size, seed, reward_factor) in sizes.items():
                if size:
                    pools[side] = experiment.make_pool(simulators[side], size, seed, reward_factor)
        except BaseException:
            for pool in pools.values():
                if pool is not None:
                    pool.simulator.close()
            raise
        return DualEnvironment(pools["low"], pools["high"], experiment.num_envs, experiment.rl_device)

    def train(self, folder: Path, after_saving: Callable[[bool], None] | None = None) -> None:
        """Train until the iterations or the cost run out, or a signal asks to stop; the last state is always saved.

        Args:
            folder: the run's folder.
            after_saving: called by rank 0 with False after each regular save and with True at the end, but not after a
                signal; the time that it takes costs nothing.
        """
        stopped_by = ""
        with Interrupt() as interrupt, ExitStack() as outputs:
            reporters = self._open_outputs(folder, outputs) if self.ranks.rank == 0 else []
            if after_saving is None or self.ranks.rank != 0:
                after_saving = _nothing
            while not self._finished() and not stopped_by:
                metrics = self.iterate()
                for report in reporters:
                    report(metrics)
                self._save_best(folder)
                if self.iteration % self.experiment.run.save_frequency == 0:
                    self.save(folder / "nn" / f"iteration_{self.iteration:06d}.pth")
                    self.save(folder / "nn" / "last.pth")
                    after_saving(False)
                stopped_by = max(self.ranks.exchange(interrupt.name))  # a signal to any rank stops all, here
            self.save(folder / "nn" / "last.pth")
            if not stopped_by:
                after_saving(True)
        if stopped_by:
            logger.warning("%s: saved after iteration %d; go on with", stopped_by, self.iteration)
            logger.warning("the same command and checkpoint=%s", folder / "nn" / "last")

    def _open_outputs(self, folder: Path, stack: ExitStack) -> list[Callable[[dict[str, float]], None]]:
        """The run's log and its display, each as what it does with an iteration's metrics."""
        experiment = self.experiment
        log = RunLog(folder, experiment.settings, resumed_at=self._last_metrics or None)
        stack.callback(log.close)
        title = f"{experiment.run.name} · seed {experiment.seed} · {folder}"
        if self.ranks.size > 1:
            title += f" · {self.ranks.size} processes"
        display = ProgressDisplay(title, experiment.run.max_epochs, experiment.max_cost)
        return [log.write, stack.enter_context(display).update]

    def _finished(self) -> bool:
        cost = self.experiment.max_cost
        return self.iteration >= self.experiment.run.max_epochs or (cost is not None and self.cost_seconds >= cost)

    def iterate(self) -> dict[str, float]:
        """One iteration of the algorithm (docs/algorithm.md); returns its metrics, the same on every rank."""
        experiment = self.experiment
        started = time.perf_counter()
        self.env.reallocate(self.allocator.n_low)
        metrics = self.allocator.metrics()
        if not math.isnan(self.filter.signals.divergence):  # measured before
            metrics["allocation/divergence_smoothed"] = self.filter.signals.divergence
        reallocation_seconds = time.perf_counter() - started
        self._roll_out()
        measuring = time.perf_counter()
        scalars = measure(self.policy, self.storage, self.allocator.rule.requires, self.ranks)
        measuring_seconds = time.perf_counter() - measuring
        progress = self._progress(self.iteration, self.cost_seconds)
        scalars |= self.algorithm.update(self.storage, progress)
        metrics |= read_back(scalars)
        statistics = self.env.take_statistics()  # only now: it asks the device too
        hidden = self.env.hidden_seconds(statistics)
        allocating = time.perf_counter()
        spent = allocating - started
        learner = spent - sum(part.seconds for part in statistics.values()) + hidden
        self._allocate(self._measured(metrics, statistics, learner), self.cost_seconds + spent * self.ranks.size)
        finished = time.perf_counter()
        elapsed = finished - started
        seconds = {
            "seconds/iteration": elapsed,
            "seconds/hidden": hidden,
            "seconds/learner": elapsed - sum(part.seconds for part in statistics.values()) + hidden,
            "seconds/allocation": reallocation_seconds + measuring_seconds + finished - allocating,
        }
        if experiment.ppo.control_variate:
            seconds["control_variate/seconds"] = statistics["low"].adoption_seconds
        metrics |= self._account(self.ranks.exchange((seconds, statistics)))
        if experiment.ppo.control_variate:
            metrics["control_variate/optimal_low_per_high"] = optimal_split(metrics)
        self._last_metrics = metrics
        return metrics

    def _progress(self, iterations: int, cost_seconds: float) -> float:
        """How much of the run is over, in [0, 1]: of its iterations or of its cost, whichever is the more."""
        bound = self.experiment.max_cost
        of_cost = 0.0 if bound is None else cost_seconds / bound
        return min(max(iterations / self.experiment.run.max_epochs, of_cost), 1.0)

    def _measured(
        self, metrics: dict[str, float], statistics: dict[str, PoolStatistics], learner_seconds: float
    ) -> dict[str, float]:
        """What an iteration measured, by the names of `Signals`."""
        measured = {signal: metrics[name] for name, signal in SIGNAL_OF_METRIC.items() if name in metrics}
        for side, part in statistics.items():
            if part.env_steps:
                measured[f"cost_{side}"] = part.seconds / part.env_steps
        measured["cost_learner"] = learner_seconds / (self.storage.horizon * self.env.num_envs)
        return measured

    def _allocate(self, measured: dict[str, float], cost_seconds: float) -> None:
        """Rank 0 decides the next iteration's split, for all, by what it knows after an iteration."""
        iteration = self.iteration + 1

        def decide() -> tuple[dict[str, Any], dict[str, Any]]:
            signals = self.filter.update(measured, iteration, self._progress(iteration, cost_seconds))
            self.allocator.update(signals)
            return self.filter.state_dict(), self.allocator.state_dict()

        signals, allocation = self.ranks.share(decide)
        self.filter.load_state_dict(signals)
        self.allocator.load_state_dict(allocation)

    def _account(self, reports: list[tuple[dict[str, float], dict[str, PoolStatistics]]]) -> dict[str, float]:
        """Take in what an iteration cost on every rank and what its episodes brought; the metrics of it.

        Seconds are means over the ranks, so that they add up to the time that passed; the cost is the ranks' sum.
        """
        ranks = len(reports)
        metrics = {key: sum(seconds[key] for seconds, _ in reports) / ranks for key in reports[0][0]}
        samples = self.storage.horizon * self.env.num_envs * ranks
        self.iteration += 1
        self.samples += samples
        self.cost_seconds += metrics["seconds/iteration"] * ranks
        metrics |= {
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost_seconds,
            "env_steps_per_second": samples / metrics["seconds/iteration"],
            "seconds_per_env_step/learner": metrics["seconds/learner"] * ranks / samples,
        }
        for side in SIDES:
            metrics |= self._side_metrics(side, [statistics[side] for _, statistics in reports])
        return metrics

    def _roll_out(self) -> None:
        env, storage = self.env, self.storage
        pairs = 0
        if self.experiment.ppo.control_variate:
            pairs = env.num_envs - env.n_low
            env.pair(self._generator)
        storage.begin(env.n_low)
        env.observe(self._observations)
        with self.policy.frozen_weights():
            for _ in range(storage.horizon):
                actions, log_probs, values = self.policy.act(self._observations, env.n_low, self._generator, pairs)
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

    def _side_metrics(self, side: str, parts: list[PoolStatistics]) -> dict[str, float]:
        seconds, env_steps = sum(part.seconds for part in parts), sum(part.env_steps for part in parts)
        failures = sum(part.failures for part in parts)
        metrics: dict[str, float] = {
            f"seconds/{side}": seconds / len(parts),
            f"failures/{side}": failures,
            f"overflows/{side}": sum(part.overflows for part in parts),
        }
        if env_steps:
            metrics[f"seconds_per_env_step/{side}"] = seconds / env_steps
            for name in parts[0].measures:
                total = sum(part.measures[name] * part.env_steps for part in parts)
                metrics[f"measure_{name}/{side}"] = total / env_steps
        for name in parts[0].randomized:
            metrics[f"randomized_{name}/{side}"] = sum(part.randomized[name] for part in parts) / len(parts)
        recent = self._recent[side]
        for part in parts:
            recent.extend(zip(part.returns.tolist(), part.lengths.tolist(), strict=True))
        if recent:
            metrics[f"return/{side}"] = sum(r for r, _ in recent) / len(recent)
            metrics[f"episode_length/{side}"] = sum(length for _, length in recent) / len(recent)
        if failures:
            logger.warning("%d world(s) of the %s simulator went non-finite and were reset", failures, side)
        return metrics

    def _save_best(self, folder: Path) -> None:
        """Keep the policy with the best return in the simulator that it is meant for: high, where there is one.

        Only iterations after `save_best_after` count: what may not be saved sets no mark for what may.
        """
        side = "high" if self.env.high is not None else "low"
        current = self._last_metrics.get(f"return/{side}", -math.inf)
        if self.iteration > self.experiment.run.save_best_after and current > self.best_return:
            self.best_return = current
            self.save(self.experiment.save_path(folder))

    def save(self, path: Path) -> None:
        """Write a checkpoint with everything that the next iteration depends on; rank 0 writes it for all.

        Raises:
            RuntimeError: the ranks' policies have come to differ.
        """
        own = {"env": self.env.state_dict(), "generator": self._generator.get_state()}
        collected = self.ranks.collect((own, _digest(self.policy)))
        if self.ranks.rank != 0:
            return
        if len({digest for _, digest in collected}) > 1:
            raise RuntimeError("the processes' policies differ: are their devices and versions the same?")
        state = {
            **identity(self.experiment),
            "metrics": self._last_metrics,
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost_seconds,
            "best_return": self.best_return,
            "recent": {side: list(map(list, recent)) for side, recent in self._recent.items()},
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "allocator": self.allocator.state_dict(),
            "signals": self.filter.state_dict(),
            **own,
            "other_ranks": [other for other, _ in collected[1:]],
        }
        save_checkpoint(path, state)

    def resume(self, path: Path, accept_changes: bool = False) -> None:
        """Go on from a checkpoint exactly; only rank 0 reads it.

        Args:
            path: the checkpoint.
            accept_changes: go on although the robot or the task's code is no longer what it was.

        Raises:
            ConfigError: it is damaged, belongs to another task, or was made with other structural settings, by another
                number of processes, or from a robot or a task's code that has changed.
        """

        def read() -> dict[str, Any]:
            state = load_checkpoint(path)
            with fitting(path):
                check_resumable(path, state, self.experiment, self.ranks.size, accept_changes)
            return state

        state = self.ranks.share(read)
        own = [state, *state["other_ranks"]][self.ranks.rank]
        with fitting(path):
            self._generator.set_state(own["generator"])
            self.env.load_state_dict(own["env"])
            self.policy.load_state_dict(state["policy"])
            self.algorithm.load_state_dict(state["algorithm"])
            self.allocator.load_state_dict(state["allocator"])
            self.filter.load_state_dict(state["signals"])
            self.iteration, self.samples = state["iteration"], state["samples"]
            self.cost_seconds, self.best_return = state["cost_seconds"], state["best_return"]
            self._last_metrics = state["metrics"]
            for side, episodes in state["recent"].items():
                self._recent[side].extend((r, length) for r, length in episodes)

    def close(self) -> None:
        """Close the simulators."""
        self.env.close()


def _nothing(last: bool) -> None:
    pass


def _seeds(seed: int, rank: int) -> list[int]:
    """Seeds of a rank's low pool, high pool, shuffling and noise, independent of those of other ranks and runs."""
    spawn_key = (rank,) if rank else ()
    return [int(seed) for seed in np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(4)]


def _digest(policy: DualActorCritic) -> str:
    """Says whether two policies are the same to the bit."""
    digest = hashlib.sha1(usedforsecurity=False)
    for value in policy.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
