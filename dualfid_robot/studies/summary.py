"""The figures of a study: per method and place, and the primary contrasts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dualfid_robot.studies import statistics
from dualfid_robot.studies.curves import Cell, RunRecord, Scale, StudyRecord
from dualfid_robot.studies.statistics import Estimate

HIGH_ONLY, FINETUNE = "high_only", "finetune_50"  # the methods that all others are compared with
SIDES = ("low", "high", "learner")
Measure = Literal["final", "area", "return"]  # normalised score at the budget, its mean until there, return there
NAN = float("nan")
UNEVEN = 1.25  # value of `Summary.unevenness` above which the page warns


@dataclass(frozen=True)
class Scope:
    """Cells that are summarised together.

    Attributes:
        key: of data/summary.csv; title: for a reader.
    """

    key: str
    title: str
    cells: tuple[Cell, ...]

    @property
    def single(self) -> bool:
        return len(self.cells) == 1


@dataclass(frozen=True)
class Row:
    """A method in a scope. Without data, figures are NaN and comparisons None.

    Attributes:
        planned, finished, failed: numbers of runs; cells: number of the scope's cells with a finished run.
        final: interquartile mean of normalised scores at the budget; area: of the mean scores from cost 0 to the
            budget. In a single cell without references both are raw returns. Several cells together leave such cells
            out.
        raw: interquartile mean of returns at the budget, in a single cell.
        cost_to_reach: median over runs of the cost to 80% of the reference, as a share of the budget. reached: share of
            runs that got there.
        over_high_only, over_finetune: probabilities of improvement at the budget.
        negative: share of runs below high_only's 25th percentile.
        rho, divergence: means over runs of a run's mean.
        shares: of the measured seconds that low, high and learner took, means over runs.
        row_costs: of a step of low and of high, and of the learner for either, in a single cell; means over runs.
        overhead: learner seconds per sample over high_only's, less one, mean over cells.
    """

    method: str
    planned: int
    finished: int
    failed: int
    cells: int
    final: Estimate
    area: Estimate
    raw: Estimate
    cost_to_reach: float
    reached: float
    over_high_only: Estimate | None
    over_finetune: Estimate | None
    negative: float
    rho: float
    divergence: float
    shares: dict[str, float]
    row_costs: dict[str, float]
    overhead: float


@dataclass(frozen=True)
class Contrast:
    """Two methods, compared over all cells that have finished runs of both.

    Attributes:
        improvement: P(ours > theirs) over all runs; paired: over runs of the same seed, None without any.
        difference: of the interquartile means of normalised scores, where returns can be normalised.
        p: of the permutation test; adjusted: after Holm.
    """

    ours: str
    theirs: str
    cells: int
    improvement: Estimate
    paired: Estimate | None
    difference: Estimate | None
    p: float
    adjusted: float


@dataclass
class Summary:
    """Computes rows from a study.

    Attributes:
        repetitions: of the bootstrap.
    """

    study: StudyRecord
    repetitions: int = statistics.REPETITIONS
    _arrays: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict)
    _scales: dict[Cell, Scale] = field(default_factory=dict)

    def scopes(self) -> list[Scope]:
        """Each cell, then the cells of each budget, gap and task together, then all cells.

        Tasks have budgets of their own. The first budgets of all tasks stand together, then the second ones, and so on.
        """
        cells, study, ranks = self.study.cells, self.study, self.study.ranks
        if len(cells) == 1:
            return [_single(cells[0])]
        parts = [
            Scope(f"*/*/{rank + 1}", f"Budget {rank + 1} of each task", tuple(c for c in cells if ranks[c] == rank))
            for rank in sorted(set(ranks.values()))
        ]
        parts += [
            Scope(f"*/{gap}/*", f"{gap}, together", tuple(c for c in cells if c.gap == gap)) for gap in study.gaps
        ]
        parts += [Scope(f"{task}/*/*", task, tuple(c for c in cells if c.task == task)) for task in study.tasks]
        several = [part for part in parts if 1 < len(part.cells) < len(cells)]
        return [*(_single(cell) for cell in cells), *several, self.everything]

    @property
    def everything(self) -> Scope:
        return Scope("*/*/*", "All together", tuple(self.study.cells))

    def scale(self, cell: Cell) -> Scale:
        """How returns are normalised in a cell."""
        if cell not in self._scales:
            self._scales[cell] = self.study.scale(cell)
        return self._scales[cell]

    def rows(self, scope: Scope) -> list[Row]:
        """A row for each method that is planned anywhere in the scope."""
        methods = [method for method in self.study.methods if any(self.study.planned(c, method) for c in scope.cells)]
        return [self._row(scope, method) for method in methods]

    def contrasts(self) -> list[Contrast]:
        """The plan's primary contrasts over all cells, with Holm's correction for their number."""
        pairs = [(str(ours), str(theirs)) for ours, theirs in self.study.plan.get("contrasts", ())]
        found = [self._contrast(*pair, cells) for pair in pairs if (cells := self._common(self.study.cells, *pair))]
        adjusted = statistics.holm([contrast.p for contrast in found])
        return [dataclasses.replace(contrast, adjusted=float(p)) for contrast, p in zip(found, adjusted, strict=True)]

    def _contrast(self, ours: str, theirs: str, cells: Sequence[Cell]) -> Contrast:
        finals = self._scores("final", ours, cells), self._scores("final", theirs, cells)
        pairs = [pair for cell in cells if len((pair := self._pairs(cell, ours, theirs))[0])]
        paired, difference = None, None
        if pairs:
            first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            paired = statistics.improvement(first, second, paired=True, repetitions=self.repetitions)
        if scaled := self._scaled(cells):
            scores = self._scores("final", ours, scaled), self._scores("final", theirs, scaled)
            difference = statistics.difference(scores[0], scores[1], repetitions=self.repetitions)
        improvement = statistics.improvement(finals[0], finals[1], repetitions=self.repetitions)
        p = statistics.improvement_p_value(finals[0], finals[1], repetitions=self.repetitions)
        return Contrast(ours, theirs, len(cells), improvement, paired, difference, p, adjusted=NAN)

    def _row(self, scope: Scope, method: str) -> Row:
        study = self.study
        planned = {run.id: run for cell in scope.cells for run in study.planned(cell, method)}
        with_runs = [cell for cell in scope.cells if study.finished(cell, method)]
        runs = list({run.id: run for cell in with_runs for run in study.finished(cell, method)}.values())
        costs = np.concatenate([[], *(self._costs_to_reach(cell, method) for cell in self._scaled(with_runs))])
        return Row(
            method=method,
            planned=len(planned),
            finished=len(runs),
            failed=sum(run.status == "failed" for run in planned.values()),
            cells=len(with_runs),
            final=self._aggregate(self._scores("final", method, self._scored(method, scope.cells))),
            area=self._aggregate(self._scores("area", method, self._scored(method, scope.cells))),
            raw=self._aggregate(self._scores("return", method, with_runs) if scope.single else []),
            cost_to_reach=float(np.median(costs)) if costs.size else NAN,
            reached=float(np.isfinite(costs).mean()) if costs.size else NAN,
            over_high_only=self._over(scope, method, HIGH_ONLY),
            over_finetune=self._over(scope, method, FINETUNE),
            negative=self._negative(scope, method),
            rho=_mean_of(runs, "rho"),
            divergence=_mean_of(runs, "divergence"),
            shares=_shares(runs),
            row_costs={side: _mean_of(runs, f"cost_{side}") if scope.single else NAN for side in SIDES},
            overhead=self._overhead(with_runs, method),
        )

    def _aggregate(self, strata: list[np.ndarray]) -> Estimate:
        return statistics.aggregate(strata, repetitions=self.repetitions) if strata else Estimate(NAN)

    def _over(self, scope: Scope, method: str, other: str) -> Estimate | None:
        cells = self._common(scope.cells, method, other)
        if method == other or not cells:
            return None
        ours, theirs = self._scores("final", method, cells), self._scores("final", other, cells)
        return statistics.improvement(ours, theirs, repetitions=self.repetitions)

    def _negative(self, scope: Scope, method: str) -> float:
        cells = [
            cell
            for cell in self._common(scope.cells, method, HIGH_ONLY)
            if len(self.study.finished(cell, HIGH_ONLY)) >= statistics.MIN_RUNS
        ]
        if not cells:
            return NAN
        ours, baseline = self._scores("final", method, cells), self._scores("final", HIGH_ONLY, cells)
        return statistics.negative_transfer(ours, baseline)

    def _overhead(self, cells: Sequence[Cell], method: str) -> float:
        ratios = [
            _mean_of(self.study.finished(cell, method), "cost_learner")
            / _mean_of(self.study.finished(cell, HIGH_ONLY), "cost_learner")
            for cell in self._common(cells, method, HIGH_ONLY)
        ]
        return _nan_mean(ratios) - 1

    def unevenness(self, cell: Cell) -> float:
        """How unequally the machine served a cell's runs. This is the largest over the smallest learner seconds per
        sample among a method's runs, as the median over methods. NaN if no method has two runs."""
        found = []
        for method in self.study.methods:
            costs = [(run.means or {}).get("cost_learner", NAN) for run in self.study.finished(cell, method)]
            known = [cost for cost in costs if cost > 0.0]
            if len(known) > 1:
                found.append(max(known) / min(known))
        return float(np.median(found)) if found else NAN

    def _scaled(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if self.scale(cell).known]

    def _scored(self, method: str, cells: Sequence[Cell]) -> list[Cell]:
        """The cells whose scores can be averaged: those with a scale, or a single one without."""
        with_runs = [cell for cell in cells if self.study.finished(cell, method)]
        return with_runs if len(cells) == 1 else self._scaled(with_runs)

    def _common(self, cells: Sequence[Cell], ours: str, theirs: str) -> list[Cell]:
        return [cell for cell in cells if self.study.finished(cell, ours) and self.study.finished(cell, theirs)]

    def _costs_to_reach(self, cell: Cell, method: str) -> np.ndarray:
        level = self.scale(cell).reached
        runs = self.study.finished(cell, method)
        return np.array([run.measured.cost_to_reach(level, cell.budget) / cell.budget for run in runs])

    def _pairs(self, cell: Cell, ours: str, theirs: str) -> tuple[np.ndarray, np.ndarray]:
        """Final returns of both methods for the seeds that both have."""
        found = [
            {run.seed: float(run.measured.value_at(cell.budget)) for run in self.study.finished(cell, method)}
            for method in (ours, theirs)
        ]
        seeds = sorted(found[0].keys() & found[1].keys())
        return np.array([found[0][seed] for seed in seeds]), np.array([found[1][seed] for seed in seeds])

    def _scores(self, measure: Measure, method: str, cells: Sequence[Cell]) -> list[np.ndarray]:
        """Scores (runs,) of each cell. The same runs give the same array object, as the statistics need."""
        found = []
        for cell in cells:
            runs = self.study.finished(cell, method)
            key = (measure, cell.budget, *(run.id for run in runs))
            if key not in self._arrays:
                scale = self.scale(cell)  # the scale of the runs' target, so it is the same in all their cells
                self._arrays[key] = np.array([_measured(measure, run, cell.budget, scale) for run in runs])
            found.append(self._arrays[key])
        return found


def _measured(measure: Measure, run: RunRecord, budget: float, scale: Scale) -> float:
    curve = run.measured
    if measure == "return":
        return float(curve.value_at(budget))
    return float(scale(np.asarray(curve.mean_until(budget) if measure == "area" else curve.value_at(budget))))


def _single(cell: Cell) -> Scope:
    return Scope(f"{cell.task}/{cell.gap}/{cell.budget:g}", str(cell), (cell,))


def _mean_of(runs: Sequence[RunRecord], name: str) -> float:
    return _nan_mean([(run.means or {}).get(name, NAN) for run in runs])


def _nan_mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NAN


def _shares(runs: Sequence[RunRecord]) -> dict[str, float]:
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for run in runs:
        seconds = {side: (run.means or {}).get(f"seconds_{side}", 0.0) for side in SIDES}
        total = sum(value for value in seconds.values() if not np.isnan(value))
        for side in SIDES if total > 0 else ():
            found[side].append(0.0 if np.isnan(seconds[side]) else seconds[side] / total)
    return {side: _nan_mean(shares) for side, shares in found.items()}
