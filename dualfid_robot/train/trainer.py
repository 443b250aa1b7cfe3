"""The training loop: roll out in all simulators, measure, update, decide the next split."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.drift import Drift
from dualfid_robot.algorithms.dual_ppo import read_back
from dualfid_robot.algorithms.measurements import SIGNAL_OF_METRIC, measure
from dualfid_robot.algorithms.research import algorithm_class
from dualfid_robot.algorithms.signals import SignalFilter
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.dual import DualEnvironment, capacities
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.stopwatch import CpuClock
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, save_checkpoint
from dualfid_robot.runs.identity import identity
from dualfid_robot.runs.interrupt import Interrupt
from dualfid_robot.runs.resume import check_resumable
from dualfid_robot.runs.run_log import RunLog
from dualfid_robot.train.accounting import Books, IterationReport, Prices
from dualfid_robot.train.control_variate import check_control_variate
from dualfid_robot.train.films import TrainingFilms
from dualfid_robot.train.progress import ProgressDisplay
from dualfid_robot.train.viewer import RunViewer
from dualfid_robot.view.page import wants_page

logger = logging.getLogger(__name__)


class Trainer:
    """One training run: its only process, or one of several that train the same policy (docs/distributed.md).

    Attributes:
        ranks: the processes of the run.
        identity: what its checkpoints say that they were made of.
        policy: both policies in one network.
        env: the dual environment of this process.
        books: what was done so far, and what it cost.
    """

    def __init__(self, experiment: Experiment, ranks: Communicator = ALONE) -> None:
        self.experiment, self.ranks = experiment, ranks
        self.identity = identity(experiment)  # now, since files may change while it trains
        low_seed, high_seed, _, noise_seed = _seeds(experiment.seed, ranks.rank)
        _, _, shuffling_seed, _ = _seeds(experiment.seed, 0)
        device = experiment.rl_device
        allocation = experiment.allocation
        price = experiment.relative_price
        self.allocator = Allocator(experiment.num_envs, allocation, price)
        check_control_variate(experiment, self.allocator)
        self.filter = SignalFilter(experiment.num_envs * ranks.size, allocation.smoothing, price)
        self.policy = ranks.share(experiment.make_policy)
        self.algorithm = algorithm_class(experiment.ppo)(self.policy, experiment.ppo, device, shuffling_seed, ranks)
        self.drift = Drift(self.policy) if "gap" in self.allocator.rule.requires else None
        self.env, self.books = self._open_environment(low_seed, high_seed)
        self.storage = self.algorithm.make_storage(experiment.num_envs)
        self._observations = torch.zeros(experiment.num_envs, self.env.task.num_observations, device=device)
        self._generator = torch.Generator(device).manual_seed(noise_seed)
        self.best_return = -math.inf
        self._last_metrics: dict[str, float] = {}

    def _open_environment(self, low_seed: int, high_seed: int) -> tuple[DualEnvironment, Books]:
        """Build the engines' pools that the allocation can ever use, and the books for them."""
        experiment, allocator = self.experiment, self.allocator
        engines = [("low", engine) for engine in experiment.low_engines] if allocator.max_n_low else []
        shares = [engine["share"] for _, engine in engines]
        sizes = capacities(allocator.max_n_low, shares) if engines else []
        seeds = _seeds_of_pools(low_seed, len(engines))
        if allocator.max_n_high:
            engines.append(("high", experiment.high_engine))
            sizes.append(allocator.max_n_high)
            seeds.append(high_seed)
        pools: list[EnvironmentPool] = []
        try:
            for (side, engine), size, seed in zip(engines, sizes, seeds, strict=True):
                factor = experiment.low_reward_factor if side == "low" else 1.0
                pools.append(experiment.make_pool(engine, size, seed, factor))
        except BaseException:
            for pool in pools:
                pool.simulator.close()
            raise
        high = pools[-1] if allocator.max_n_high else None
        low = pools[: len(pools) - (high is not None)]
        env = DualEnvironment(low, high, experiment.num_envs, experiment.rl_device, shares)
        prices = Prices(tuple(engine["price"] for _, engine in engines), experiment.learner_price)
        steps = experiment.num_envs * experiment.ppo.horizon_length
        on_cpu = all(device.type == "cpu" for device in (experiment.rl_device, *(pool.device for pool in pools)))
        clock = CpuClock(*(pool.simulator for pool in pools)) if on_cpu else None
        return env, Books([(side, engine["name"]) for side, engine in engines], prices, steps, clock)

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.books.iteration

    @property
    def samples(self) -> int:
        """Environment steps of all engines in all processes."""
        return self.books.samples

    @property
    def cost_seconds(self) -> float:
        """Measured cost so far: Σ price · counted seconds of all engines and of the learner, of all processes."""
        return self.books.cost

    def train(self, folder: Path, after_saving: Callable[[bool], None] | None = None) -> bool:
        """Train until the iterations or the cost run out, or a signal asks to stop. The last state is always saved.

        Args:
            folder: the run's folder.
            after_saving: rank 0 calls it with False after each regular save and with True at the end. It is not called
                after a signal. The time that it takes costs nothing.

        Returns:
            whether it went to its end.
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
            logger.warning("%s: saved after iteration %d", stopped_by, self.iteration)
        return not stopped_by

    def _open_outputs(self, folder: Path, stack: ExitStack) -> list[Callable[[dict[str, float]], None]]:
        """The run's log and its display, each as what it does with an iteration's metrics."""
        experiment = self.experiment
        log = RunLog(folder, experiment.settings, resumed_at=self._last_metrics or None)
        stack.callback(log.close)
        title = f"{experiment.run.name} · seed {experiment.seed} · {folder}"
        if self.ranks.size > 1:
            title += f" · {self.ranks.size} processes"
        display = ProgressDisplay(title, experiment.run.max_epochs, experiment.max_cost)
        watching = []
        if experiment.settings["capture_video"]:
            watching.append(TrainingFilms(experiment, self.policy, folder, log.add_video).update)
        if wants_page(experiment.settings):
            viewer = RunViewer(folder, self.policy, self.identity, experiment.settings)
            watching.append(stack.enter_context(viewer).update)
        return [log.write, stack.enter_context(display).update, *watching]

    def _finished(self) -> bool:
        cost = self.experiment.max_cost
        return self.iteration >= self.experiment.run.max_epochs or (cost is not None and self.cost_seconds >= cost)

    def iterate(self) -> dict[str, float]:
        """One iteration of the algorithm (docs/algorithm.md). Returns its metrics, the same on every rank."""
        books = self.books
        books.begin()
        # Move the boundary between E_low's rows and E_high's.
        with books.allocating():
            self.env.reallocate(self.allocator.n_low)
            metrics = self._allocation_metrics()
        # T steps: π_θ acts in E_low, π_{θ,φ} in E_high.
        self._roll_out()
        # Measure how far the two policies are apart, and what else the rule reads.
        with books.allocating():
            scalars = measure(self.policy, self.storage, self.allocator.rule.requires, self.ranks, self.drift)
        # θ learns from all rows, φ from E_high's; `read_back` alone waits for the device.
        progress = self._progress(self.iteration, self.cost_seconds)
        metrics |= read_back(scalars | self.algorithm.update(self.storage, progress))
        statistics = self.env.take_statistics()
        hidden = self.env.hidden_seconds(statistics)
        # Decide the next split from what was measured and what it cost.
        with books.allocating():
            self._decide(metrics, books.report(statistics, hidden))
        # Book what all ranks did.
        metrics |= books.close(self.ranks.exchange(books.report(statistics, hidden)))
        self._last_metrics = metrics
        return metrics

    def _allocation_metrics(self) -> dict[str, float]:
        """The split of this iteration, and what it was decided from, once that was measured."""
        signals = self.filter.signals
        known = {"divergence_smoothed": signals.divergence, "gap": signals.gap, "evidence": signals.evidence}
        measured = {f"allocation/{name}": value for name, value in known.items() if not math.isnan(value)}
        return self.allocator.metrics() | measured

    def _roll_out(self) -> None:
        """Fill the storage with T steps of all rows, and their returns."""
        env, storage = self.env, self.storage
        pairs = 0
        if self.experiment.ppo.control_variate:
            pairs = env.num_envs - env.n_low
            env.pair(self._generator)
        storage.begin(env.n_low)
        env.observe(self._observations)
        with self.policy.frozen_weights():
            for _ in range(storage.horizon):
                drawn = self.policy.act(self._observations, env.n_low, self._generator, pairs)
                env.step(drawn.actions)
                storage.add(
                    self._observations,
                    *drawn,
                    env.reward,
                    env.terminated,
                    env.truncated,
                    env.final_observations,
                )
                env.observe(self._observations)
        self.algorithm.compute_returns(storage, self._observations)

    def _decide(self, metrics: dict[str, float], report: IterationReport) -> None:
        """Rank 0 decides the next iteration's split, for all, by what it knows after this one."""
        measured = {signal: metrics[name] for name, signal in SIGNAL_OF_METRIC.items() if name in metrics}
        measured |= self.books.costs_of_a_step(report)
        iteration = self.iteration + 1
        cost = self.cost_seconds + self.books.cost_of(report) * self.ranks.size

        def decide() -> tuple[dict[str, Any], dict[str, Any]]:
            signals = self.filter.update(measured, iteration, self._progress(iteration, cost))
            self.allocator.update(signals)
            return self.filter.state_dict(), self.allocator.state_dict()

        signals, allocation = self.ranks.share(decide)
        self.filter.load_state_dict(signals)
        self.allocator.load_state_dict(allocation)

    def _progress(self, iterations: int, cost_seconds: float) -> float:
        """How much of the run is over, in [0, 1]. It is the larger of the shares of its iterations and of its cost."""
        bound = self.experiment.max_cost
        of_cost = 0.0 if bound is None else cost_seconds / bound
        return min(max(iterations / self.experiment.run.max_epochs, of_cost), 1.0)

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
        """Write a checkpoint with everything that the next iteration depends on. Rank 0 writes it for all.

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
            **self.identity,
            "metrics": self._last_metrics,
            "iteration": self.iteration,
            "samples": self.samples,
            "cost_seconds": self.cost_seconds,
            "books": self.books.state_dict(),
            "best_return": self.best_return,
            "policy": self.policy.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "allocator": self.allocator.state_dict(),
            "signals": self.filter.state_dict(),
            "drift": None if self.drift is None else self.drift.state_dict(),
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
            ConfigError: it is damaged, belongs to another task, or was made with other structural settings. Or another
                number of processes made it, or the robot or the task's code has changed.
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
            if self.drift is not None:
                self.drift.load_state_dict(state["drift"])
            self.books.load_state_dict(state["books"])
            self.best_return, self._last_metrics = state["best_return"], state["metrics"]

    def close(self) -> None:
        """Close the simulators."""
        self.env.close()


def _nothing(last: bool) -> None:
    pass


def _seeds(seed: int, rank: int) -> list[int]:
    """Seeds of a rank's low pool, high pool, shuffling and noise, independent of those of other ranks and runs."""
    spawn_key = (rank,) if rank else ()
    return [int(seed) for seed in np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(4)]


def _seeds_of_pools(seed: int, count: int) -> list[int]:
    """Independent seeds for E_low's engines; that of the first is the side's own."""
    further = np.random.SeedSequence(seed).generate_state(max(count - 1, 0))
    return [seed, *map(int, further)][:count]


def _digest(policy: DualActorCritic) -> str:
    """Says whether two policies are the same to the bit."""
    digest = hashlib.sha1(usedforsecurity=False)
    for value in policy.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()
