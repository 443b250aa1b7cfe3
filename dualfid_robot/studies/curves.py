"""Reads a study's folder: its plan, its runs, and each run's return over measured cost and over samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualfid_robot.errors import ConfigError, as_written
from dualfid_robot.runs.metrics import read_metrics
from dualfid_robot.studies.run_folder import ANY_GAP, NO_CHANGE, RunFolder, RunIdentity

PLAN = "plan.json"
REACHED = 0.8  # normalised score whose cost is asked for


@dataclass(frozen=True)
class Curve:
    """Return of the deployed policy in the high simulator, linear between the points of a run.

    Attributes:
        cost: (points,) measured seconds, ascending, from 0 (the untrained policy).
        high_samples, low_samples: (points,) environment steps so far.
        returns: (points,) mean over a point's episodes.
    """

    cost: np.ndarray
    high_samples: np.ndarray
    low_samples: np.ndarray
    returns: np.ndarray

    @classmethod
    def of(cls, points: Sequence[dict[str, Any]]) -> Curve:
        """The points of a `result.json`."""
        names = ("cost_seconds", "high_samples", "low_samples", "return")
        return cls(*(np.array([point[name] for point in points], dtype=float) for name in names))

    def value_at(self, cost: np.ndarray | float) -> np.ndarray:
        """Return at a cost. A run that ended earlier keeps its last policy."""
        return np.interp(cost, self.cost, self.returns)

    def value_at_high_samples(self, samples: np.ndarray | float) -> np.ndarray:
        """Return after that many steps in the high simulator. The last of several points with equal samples counts,
        because it has learnt more in the low simulator."""
        last = np.append(np.diff(self.high_samples) > 0, True)
        return np.interp(samples, self.high_samples[last], self.returns[last])

    def until(self, budget: float) -> Curve:
        """The curve from cost 0 to a budget, with a point at the budget."""
        cost = np.concatenate([[0.0], self.cost[(self.cost > 0) & (self.cost < budget)], [budget]])
        columns = (np.interp(cost, self.cost, column) for column in (self.high_samples, self.low_samples, self.returns))
        return Curve(cost, *columns)

    def mean_until(self, budget: float) -> float:
        """Area under the curve up to a budget, divided by the budget."""
        part = self.until(budget)
        return float(np.trapezoid(part.returns, part.cost) / budget)

    def cost_to_reach(self, level: float, budget: float) -> float:
        """Measured seconds until the return first reaches a level, or infinity if it does not within the budget."""
        part = self.until(budget)
        reached = np.flatnonzero(part.returns >= level)
        if not reached.size:
            return float("inf")
        after = int(reached[0])
        if after == 0:
            return 0.0
        (x0, x1), (y0, y1) = part.cost[after - 1 : after + 1], part.returns[after - 1 : after + 1]
        return float(x0 + (x1 - x0) * (level - y0) / (y1 - y0))


@dataclass(frozen=True)
class Deployed:
    """A final policy in an engine.

    Attributes:
        engine: a file of cfg/simulator; home: whether the run belongs there, else no run of the study trains in it.
        dial: λ of the policy.
        value: mean return.
    """

    engine: str
    home: bool
    dial: float
    value: float


@dataclass(frozen=True)
class RunRecord(RunIdentity):
    """One run of a study.

    Attributes:
        status: finished, failed, or missing (not begun, or not yet done).
        error: of a failed run; wall_seconds: 0 if unknown.
        curve: of a finished run. means: its log's means.
        deployed: its final policies at home and abroad, where the plan names engines for that.
        machine: where it ran, and versions.
    """

    status: str = "missing"
    error: str = ""
    wall_seconds: float = 0.0
    curve: Curve | None = None
    means: dict[str, float] | None = None
    deployed: tuple[Deployed, ...] = ()
    machine: dict[str, Any] | None = None

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def measured(self) -> Curve:
        """The curve of a finished run."""
        assert self.curve is not None, f"{self.id} is {self.status}"
        return self.curve


@dataclass(frozen=True)
class Cell:
    """A place where methods are compared: one task in one gap at one budget of measured seconds."""

    task: str
    gap: str
    budget: float

    def __str__(self) -> str:
        return f"{self.task}, {self.gap}, {self.budget:g} s"


@dataclass(frozen=True)
class Scale:
    """Normalised score (J - J_untrained)/(J_reference - J_untrained) in one task with one target.

    Attributes:
        untrained: mean return at cost 0 of all runs there. reference: mean final return of the reference runs, NaN
            without any.
        target: the plan's own return to which the cost is compared, if it names one.
    """

    untrained: float
    reference: float
    target: float | None = None

    @property
    def known(self) -> bool:
        """Whether a reference has learnt anything. Otherwise scores are raw returns."""
        return bool(self.reference > self.untrained)

    def __call__(self, returns: np.ndarray) -> np.ndarray:
        return (returns - self.untrained) / (self.reference - self.untrained) if self.known else np.asarray(returns)

    @property
    def reached(self) -> float:
        """The target, or the return whose normalised score is `REACHED`. It is NaN without either."""
        if self.target is not None:
            return self.target
        return self.untrained + REACHED * (self.reference - self.untrained) if self.known else float("nan")


class StudyRecord:
    """A study's folder, read once.

    Attributes:
        plan: plan.json; runs: all that are planned or begun, in the plan's order.
        tasks, methods, gaps: names in the plan's order; prices: of E_high, by gap.
        cells: where methods are compared; ranks: which of its task's budgets each of them has.
    """

    def __init__(self, folder: Path) -> None:
        """Read a folder that study.py writes, whole or partly done.

        Raises:
            ConfigError: the folder holds no plan, or a file in it is damaged.
        """
        self.folder = folder
        if not (folder / PLAN).is_file():
            raise ConfigError(f"{folder}: no folder of a study ({PLAN} is missing)")
        with as_written(folder / PLAN, "study.py writes it again"):
            self._read_plan(json.loads((folder / PLAN).read_text(encoding="utf-8")))
        self.runs = _read_runs(folder, self.plan)
        compared = [run for run in self.runs if not run.reference]
        self._there = {
            cell: [run for run in compared if run.budget == cell.budget and self._stands_in(run, cell.task, cell.gap)]
            for cell in self.cells
        }

    def _read_plan(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.tasks = list(self.plan["tasks"])
        self.methods = [str(method) for method in self.plan["methods"]]
        self.gaps = [str(gap["name"]) for gap in self.plan["gaps"]]
        self.prices = {str(gap["name"]): float(gap.get("price", 1.0)) for gap in self.plan["gaps"]}
        self._low_only = {gap["name"] for gap in self.plan["gaps"] if gap["changes"] == "low"}
        self._same_target = self._low_only | {gap["name"] for gap in self.plan["gaps"] if gap["changes"] == "price"}
        factors = self.plan.get("budget_factors", {})
        self.ranks = {
            Cell(task, str(gap), float(factors.get(gap, 1.0) * budget)): rank
            for task, own in self.plan["tasks"].items()
            for gap in own["gaps"]
            for rank, budget in enumerate(own["budgets"])
        }
        self.cells = list(self.ranks)

    def _stands_in(self, run: RunRecord, task: str, gap: str) -> bool:
        """Whether a run was made in a task with the target and the low simulator of a gap."""
        return run.task == task and (run.gap == gap or (run.gap == ANY_GAP and gap in self._low_only))

    def planned(self, cell: Cell, method: str | None = None) -> list[RunRecord]:
        """The runs of a cell except references, of one method or of all, finished or not."""
        return [run for run in self._there[cell] if method is None or run.method == method]

    def finished(self, cell: Cell, method: str) -> list[RunRecord]:
        """A method's finished runs in a cell, by seed."""
        return sorted((run for run in self.planned(cell, method) if run.finished), key=lambda run: run.seed)

    def same_physics(self, cell: Cell) -> bool:
        """Whether a cell differs from the task's own two simulators by nothing but prices."""
        return cell.gap == NO_CHANGE or cell.gap in self._same_target - self._low_only

    def references(self, cell: Cell) -> list[RunRecord]:
        """The finished runs of the reference there, in the prices of that place."""
        found = [run for run in self.runs if run.reference and run.finished]
        return [run for run in found if self._stands_in(run, cell.task, cell.gap)]

    def scale(self, cell: Cell) -> Scale:
        """How returns are normalised in a cell. Gaps that leave E_high's physics alone share one target and scale."""
        if cell.gap in self._same_target:
            gaps = (*self._same_target, ANY_GAP, NO_CHANGE)
            there = [run for run in self.runs if run.task == cell.task and run.gap in gaps]
        else:
            there = [run for run in self.runs if run.task == cell.task and run.gap == cell.gap]
        curves = [run.curve for run in there if run.curve is not None]
        untrained = [curve.returns[0] for curve in curves]
        references = [run for run in there if run.reference and run.curve is not None]
        largest = max((run.budget for run in references), default=0.0)
        finals = [run.measured.returns[-1] for run in references if run.budget == largest]
        return Scale(_mean(untrained), _mean(finals), self.plan["tasks"][cell.task].get("target"))


def rho_over_cost(study: StudyRecord, run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Measured seconds and the share of low environments in a run's iterations, empty without a log."""
    rows = [row for row in read_metrics(RunFolder(study.folder / "runs" / run.id).metrics) if "allocation/rho" in row]
    cost, rho = ([row[name] for row in rows] for name in ("cost_seconds", "allocation/rho"))
    return np.array(cost, dtype=float), np.array(rho, dtype=float)


def _read_runs(folder: Path, plan: dict[str, Any]) -> list[RunRecord]:
    planned = {str(run["id"]): run for run in plan.get("runs", ())}
    for path in sorted((folder / "runs").glob("*/run.json")):
        planned.setdefault(path.parent.name, RunFolder(path.parent).description())
    runs = []
    for name, described in planned.items():
        with as_written(folder / "runs" / name, "remove this folder, and the run is done again"):
            runs.append(_read_run(folder / "runs" / name, name, described))
    return runs


def _read_run(folder: Path, name: str, described: dict[str, Any]) -> RunRecord:
    run = RunRecord(
        id=name,
        task=str(described["task"]),
        method=str(described["method"]),
        gap=str(described["gap"]),
        budget=float(described["budget"]),
        seed=int(described["seed"]),
        reference=bool(described["reference"]),
    )
    result = RunFolder(folder).result()
    if result is None:
        return run
    wall_seconds = float(result.get("wall_seconds") or 0.0)
    ended = dataclasses.replace(run, status="failed", wall_seconds=wall_seconds, machine=result.get("machine"))
    if result["status"] != "finished":
        return dataclasses.replace(ended, error=str(result.get("error") or "no reason given"))
    curve = Curve.of(result["curve"])
    if not np.isfinite(curve.returns).all():
        return dataclasses.replace(ended, error="returns are not finite")
    means = {key: float("nan") if value is None else float(value) for key, value in result["means"].items()}
    deployed = tuple(
        Deployed(place["engine"], place["home"], place["dial"], place["return"]) for place in result.get("deployed", ())
    )
    return dataclasses.replace(ended, status="finished", curve=curve, means=means, deployed=deployed)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
