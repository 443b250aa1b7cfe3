"""One run of a study in a process of its own: `python -m dualfid_robot.studies.job studies/<name>/runs/<id>`.

Goes on from the run's checkpoint if it has one. The exit status is 0 for a finished run and STOPPED for one that a
signal ended. Anything else is a failure, which the launcher records.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import faulthandler
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualfid_robot.config.machine import set_environment
from dualfid_robot.runs.metrics import read_metrics
from dualfid_robot.studies.run_folder import RunFolder
from dualfid_robot.threads import set_threads

if TYPE_CHECKING:
    from dualfid_robot.evaluate.evaluation import Evaluation
    from dualfid_robot.policies.actor_critic import PolicyName
    from dualfid_robot.train.trainer import Trainer

STOPPED = 3
_WATCH_INTERVAL = 1.0  # s
_SIDES = ("low", "high")
_MEANS = {"allocation/rho": "rho", "divergence/D": "divergence"}  # metrics whose mean is in the result


class Totals:
    """Sums over a run's iterations, from the trainer's metrics."""

    def __init__(self) -> None:
        self.samples = dict.fromkeys(_SIDES, 0)
        self._all_samples = 0.0
        self._seconds = dict.fromkeys((*_SIDES, "learner"), 0.0)
        self._sums: dict[str, list[float]] = {}

    def add(self, metrics: dict[str, float]) -> None:
        """Take in an iteration."""
        samples, self._all_samples = metrics["samples"] - self._all_samples, metrics["samples"]
        n = {side: metrics[f"allocation/n_{side}"] for side in _SIDES}
        for side in _SIDES:
            self.samples[side] += round(samples * n[side] / sum(n.values()))
        for part in self._seconds:
            self._seconds[part] += metrics[f"counted_seconds/{part}"]
        for key, name in _MEANS.items():
            if key in metrics:
                self._sums.setdefault(name, []).append(metrics[key])

    def means(self) -> dict[str, float]:
        """`rho` and `divergence` are means over the iterations. `cost_low` and `cost_high` are counted seconds per
        environment step of that simulator, `cost_learner` of both. `seconds_low` and so on are sums.
        """
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        steps = self.samples | {"learner": sum(self.samples.values())}
        means |= {f"cost_{part}": self._seconds[part] / steps[part] for part in steps if steps[part]}
        return means | {f"seconds_{part}": seconds for part, seconds in self._seconds.items()}


class Job:
    """A run that trains until its budget is spent and is evaluated on its way.

    The curve's points are taken after the first iterations whose cost reaches 0, 1/points, 2/points, … of the budget.
    The run is saved after each, and goes on from there if it is killed. Evaluation is no cost.
    """

    def __init__(self, folder: RunFolder) -> None:
        from dualfid_robot.config.experiment import Experiment
        from dualfid_robot.studies.configuration import compose_run
        from dualfid_robot.train.trainer import Trainer

        self._started = time.monotonic()
        self.folder = folder
        self._run = folder.description()
        self._evaluation = self._run["evaluation"]
        self.trainer: Trainer = Trainer(Experiment(compose_run(self._run["overrides"], self._run["config_dir"])))
        self.totals = Totals()
        self.curve: list[dict[str, Any]] = []
        self._resumed_at: dict[str, float] | None = None
        self._wall_seconds = 0.0
        folder.save_made_of({key: self.trainer.identity[key] for key in ("robot", "task_code")})
        if folder.checkpoint.is_file():
            self._resume()

    def _resume(self) -> None:
        partial = self.folder.partial()
        self.trainer.resume(self.folder.checkpoint)
        self._wall_seconds = partial["wall_seconds"]
        self.curve = [point for point in partial["curve"] if point["iteration"] <= self.trainer.iteration]
        self._resumed_at = {
            "iteration": self.trainer.iteration,
            "samples": self.trainer.samples,
            "cost_seconds": self.trainer.cost_seconds,
        }

    def run(self) -> int:
        """Train to the end or until a signal comes. Returns the exit status."""
        from dualfid_robot.runs.interrupt import Interrupt
        from dualfid_robot.runs.run_log import RunLog

        trainer, budget = self.trainer, self._run["budget"]
        with Interrupt() as interrupt:
            log = RunLog(self.folder.path, trainer.experiment.settings, self._resumed_at)
            try:
                if self._resumed_at is not None:
                    for row in read_metrics(self.folder.metrics):
                        self.totals.add(row)
                if not self.curve:
                    self._take_point()
                while trainer.cost_seconds < budget and not interrupt.requested:
                    metrics = trainer.iterate()
                    log.write(metrics)
                    self.totals.add(metrics)
                    if self._due():
                        self._take_point()
                        trainer.save(self.folder.checkpoint)
                if trainer.cost_seconds < budget:
                    trainer.save(self.folder.checkpoint)
                    self.folder.save_partial(self.curve, self._wall())
                    print(f"{interrupt.name}: saved after iteration {trainer.iteration}")
                    return STOPPED
            finally:
                log.close()
                trainer.close()
        self.folder.finish(
            {
                "status": "finished",
                "error": None,
                "curve": self.curve,
                "deployed": self._deploy(),
                "wall_seconds": self._wall(),
                "means": self.totals.means(),
                "machine": machine(),
            }
        )
        return 0

    def _due(self) -> bool:
        """Whether the cost has passed another of the evenly spaced points since the curve's last one."""
        points, budget = self._evaluation["points"], self._run["budget"]
        passed, before = (int(cost * points / budget) for cost in (self.trainer.cost_seconds, self._last_cost()))
        return passed > before

    def _last_cost(self) -> float:
        cost: float = self.curve[-1]["cost_seconds"]
        return cost

    def _wall(self) -> float:
        return self._wall_seconds + time.monotonic() - self._started

    def _take_point(self) -> None:
        """Evaluate the deployed policy in this run's own E_high."""
        trainer = self.trainer
        result = self._evaluate(trainer.experiment.high_engine, 1.0)
        figure = {name: float(values.mean()) for name, values in result.measures.items()}
        figure |= {f"{name}_at_end": float(values.mean()) for name, values in result.final_measures.items()}
        self.curve.append(
            {
                "cost_seconds": trainer.cost_seconds,
                "high_samples": self.totals.samples["high"],
                "low_samples": self.totals.samples["low"],
                "iteration": trainer.iteration,
                "return": result.mean,
                "returns": result.returns.tolist(),
                "episode_length": float(result.lengths.mean()),
                "figure": figure,
            }
        )
        self.folder.save_partial(self.curve, self._wall())

    def _evaluate(self, simulator: Mapping[str, Any], dial: float) -> Evaluation:
        """Evaluate a policy on the dial, deterministic, in an engine in which nothing is randomised."""
        from dualfid_robot.evaluate.agents import policy_agent
        from dualfid_robot.evaluate.evaluation import evaluate

        policy: PolicyName | float = "adapted" if dial == 1.0 else dial
        experiment = copy.copy(self.trainer.experiment)
        experiment.task = dataclasses.replace(experiment.task, randomize=False)
        pool = experiment.make_pool(simulator, self._evaluation["episodes"], self._evaluation["seed"])
        try:
            return evaluate(policy_agent(copy.deepcopy(self.trainer.policy), policy), pool)
        finally:
            pool.simulator.close()

    def _deploy(self) -> list[dict[str, Any]]:
        """Evaluate the final policies at home and in the engines in which no run of the study trains.

        The dial has one setting where it does nothing: without an adapter, or where that was never trained.
        """
        from dualfid_robot.config.engines import simulator_settings
        from dualfid_robot.config.left_out import home_engine, trained_engines
        from dualfid_robot.studies.configuration import thread_settings

        experiment, settings = self.trainer.experiment, self.trainer.experiment.settings
        abroad = [simulator_settings(name, settings["task"]) for name in self._evaluation["abroad"]]
        abroad = [engine | thread_settings(engine, self._run["threads"]) for engine in abroad]
        one_policy = experiment.network.adapter.kind != "lora" or "simulator.high" not in trained_engines(experiment)
        dials = [1.0] if one_policy else self._evaluation["dials"]
        found = []
        for engine in [home_engine(experiment), *abroad] if abroad else []:
            for dial in dials:
                result = self._evaluate(engine, dial)
                place = {"engine": engine["name"], "home": engine not in abroad, "dial": dial}
                found.append({**place, "return": result.mean, "returns": result.returns.tolist()})
        return found


def machine() -> dict[str, Any]:
    """What the run was measured on."""
    from dualfid_robot.runs.run_log import processor, versions

    return {
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "versions": versions(),
    }


def _stop_with(parent: int) -> None:
    """Signal this process to stop when the process that started it is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_INTERVAL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the run's folder")
    parser.add_argument("--parent", type=int, help="process without which this one shall stop")
    arguments = parser.parse_args()
    folder = RunFolder(arguments.folder)
    set_environment()
    set_threads(folder.description()["threads"])
    faulthandler.enable()
    if arguments.parent is not None:
        _stop_with(arguments.parent)
    with folder.locked():
        if folder.result() is not None:  # another process finished the run while this one waited
            return 0
        return Job(folder).run()


if __name__ == "__main__":
    sys.exit(main())
