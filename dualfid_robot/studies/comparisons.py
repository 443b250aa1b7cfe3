"""What two simulators buy: the cost of a return, the return at the end, and what an unseen engine keeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualfid_robot.studies import statistics
from dualfid_robot.studies.censored import CostRatio, Costs, cost_ratio, ratio_of_medians
from dualfid_robot.studies.curves import Cell, Deployed, RunRecord
from dualfid_robot.studies.statistics import Estimate
from dualfid_robot.studies.summary import HIGH_ONLY, Summary

OURS = "default"  # the method that is compared with the best of the others


@dataclass(frozen=True)
class Against:
    """A method against high_only in one cell, at equal cost.

    Attributes:
        costs: of its runs until 80% of the reference, or the task's target. It is None without either.
        speed: their median over high_only's. It is None where there is none.
        final: return at the budget; difference, ratio: to high_only's.
    """

    cell: Cell
    method: str
    costs: Costs | None
    speed: CostRatio | None
    final: Estimate
    difference: Estimate | None
    ratio: Estimate | None


@dataclass(frozen=True)
class Verdict:
    """`OURS` against the other method that is the quickest in one cell.

    Attributes:
        price: of a second of E_high there.
        best: the other method; over_best: our median cost over its.
    """

    cell: Cell
    price: float
    ours: Costs
    best: str
    theirs: Costs
    over_best: CostRatio | None


@dataclass(frozen=True)
class Kept:
    """A method's policy in an engine that no run has seen.

    Attributes:
        dial: λ of the policy: 0 is the base policy, 1 the adapted one.
        engine: where it goes; home: where it comes from.
        runs: how many.
        at_home, there: its returns.
        kept: return there over return at home, run by run; over_high_only: return there over that of high_only's
            deployed policy there.
    """

    cell: Cell
    method: str
    dial: float
    engine: str
    home: str
    runs: int
    at_home: Estimate
    there: Estimate
    kept: Estimate
    over_high_only: Estimate | None


class Comparisons:
    """Compares the methods of a study.

    Args:
        summary: of the study.
    """

    def __init__(self, summary: Summary) -> None:
        self._summary, self._study = summary, summary.study
        self.against = [self._against(cell, method) for cell in self._study.cells for method in self._methods(cell)]
        self.verdicts = [verdict for cell in self._study.cells if (verdict := self._verdict(cell)) is not None]
        self.kept = [
            kept for cell in self._study.cells for method in self._methods(cell) for kept in self._kept(cell, method)
        ]

    def _methods(self, cell: Cell) -> list[str]:
        return [method for method in self._study.methods if self._study.finished(cell, method)]

    def costs(self, cell: Cell, method: str) -> Costs | None:
        """What each run paid until 80% of the reference, or the task's target; None without either or without runs.

        The reference's own runs count as further, longer runs of their method.
        """
        level = self._summary.scale(cell).reached
        if np.isnan(level) or not self._study.finished(cell, method):
            return None
        runs = [(run, cell.budget) for run in self._study.finished(cell, method)]
        runs += [(run, run.budget) for run in self._study.references(cell) if run.method == method]
        paid = np.array([run.measured.cost_to_reach(level, budget) for run, budget in runs])
        budgets = np.array([budget for _, budget in runs])
        return Costs(np.where(np.isinf(paid), budgets, paid), np.isfinite(paid))

    def over_prices(self, task: str, method: str) -> list[tuple[float, CostRatio]]:
        """Prices of E_high, ascending, and the median cost of a method there over that of `OURS`."""
        places = [(self._study.prices[cell.gap], cell) for cell in self._study.cells if cell.task == task]
        priced = sorted((price, cell.budget, cell) for price, cell in places if self._study.same_physics(cell))
        found = []
        for price, _, cell in priced:
            ours, theirs = (self.costs(cell, name) for name in (OURS, method))
            if ours is not None and theirs is not None and (ratio := ratio_of_medians(theirs, ours)) is not None:
                found.append((price, ratio))
        return found

    def _against(self, cell: Cell, method: str) -> Against:
        repetitions = self._summary.repetitions
        ours, costs = self._finals(cell, method), self.costs(cell, method)
        final = statistics.aggregate([ours], repetitions=repetitions)
        if method == HIGH_ONLY or not self._study.finished(cell, HIGH_ONLY):
            return Against(cell, method, costs, None, final, None, None)
        theirs, their_costs = self._finals(cell, HIGH_ONLY), self.costs(cell, HIGH_ONLY)
        speed = cost_ratio(costs, their_costs, repetitions) if costs and their_costs else None
        difference = statistics.difference([ours], [theirs], repetitions)
        return Against(cell, method, costs, speed, final, difference, statistics.ratio([ours], [theirs], repetitions))

    def _finals(self, cell: Cell, method: str) -> np.ndarray:
        """(runs,) returns at the budget."""
        return np.array([run.measured.value_at(cell.budget) for run in self._study.finished(cell, method)])

    def _verdict(self, cell: Cell) -> Verdict | None:
        """None without runs of ours, without others or without a reference."""
        found = {method: self.costs(cell, method) for method in self._methods(cell)}
        known = {method: costs for method, costs in found.items() if costs is not None}
        ours = known.pop(OURS, None)
        if ours is None or not known:
            return None
        best = min(known, key=lambda method: known[method].median)
        ratio = cost_ratio(ours, known[best], self._summary.repetitions)
        return Verdict(cell, self._study.prices[cell.gap], ours, best, known[best], ratio)

    def _kept(self, cell: Cell, method: str) -> list[Kept]:
        """One for each policy and engine abroad."""
        runs = [run for run in self._study.finished(cell, method) if run.deployed]
        places = dict.fromkeys((place.engine, place.dial) for run in runs for place in run.deployed if not place.home)
        return [self._kept_in(cell, method, runs, *place) for place in places]

    def _kept_in(self, cell: Cell, method: str, runs: list[RunRecord], engine: str, dial: float) -> Kept:
        repetitions = self._summary.repetitions
        home = [_place(run, dial, home=True) for run in runs]
        at_home = np.array([place.value for place in home])
        there = np.array([_place(run, dial, engine).value for run in runs])
        baseline = [run for run in self._study.finished(cell, HIGH_ONLY) if run.deployed]
        over_high_only = None
        if baseline and method != HIGH_ONLY:
            theirs = np.array([_place(run, 1.0, engine).value for run in baseline])
            over_high_only = statistics.ratio([there], [theirs], repetitions)
        # A run without a positive return at home has nothing that it could keep.
        kept = Estimate(float("nan"))
        if (at_home > 0.0).all():
            kept = statistics.aggregate([there / at_home], repetitions=repetitions)
        return Kept(
            cell,
            method,
            dial,
            engine,
            home[0].engine,
            len(runs),
            statistics.aggregate([at_home], repetitions=repetitions),
            statistics.aggregate([there], repetitions=repetitions),
            kept,
            over_high_only,
        )


def _place(run: RunRecord, dial: float, engine: str = "", home: bool = False) -> Deployed:
    """A run's policy at home, or in an engine abroad."""
    return next(p for p in run.deployed if p.dial == dial and p.home == home and (home or p.engine == engine))
