"""What a file of cfg/study says, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualfid_robot.settings import parse_settings, require, require_integer, require_number

_LONGEST = 1e7  # s
_MOST = 1e3  # of a factor
_DIAL_HIGH = 1.5  # beyond the adapted policy's 1


@dataclass(frozen=True)
class TaskPlan:
    """Settings of one task of a plan.

    Attributes:
        gaps: of this task, or empty for the plan's.
        budgets: measured cost, or empty for the plan's.
        seeds: of the task's runs, or empty for the plan's.
        overrides: settings of train.py.
        target: return to which the cost is compared; null for 80% of the reference.
    """

    gaps: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    target: float | None = None

    def __post_init__(self) -> None:
        _require_different("gaps", self.gaps)
        _require_budgets(self.budgets)
        _require_seeds(self.seeds)
        if self.target is not None:
            require_number("target", self.target, -math.inf, math.inf)


@dataclass(frozen=True)
class ReferencePlan:
    """Runs with more budget, whose return sets the scale of the others'.

    Attributes:
        factor: of the task's greatest budget.
    """

    method: str = "high_only"
    factor: float = 4.0
    seeds: tuple[int, ...] = (101,)

    def __post_init__(self) -> None:
        require_number("factor", self.factor, 1.0, _MOST)
        _require_seeds(self.seeds)


@dataclass(frozen=True)
class EvaluationPlan:
    """How a run's curve is measured.

    Attributes:
        points: evaluations besides that of the untrained policy, at equal distances of the cost. A reference run has
            `factor` times as many, so that the distances are the same.
        episodes: complete episodes of each, from the same starts every time.
        seed: of the starts, disjoint from those of training.
        dials: λ of the policies that are evaluated in the engines of `Plan.abroad` and at home when a run ends.
    """

    points: int = 5
    episodes: int = 32
    seed: int = 10_000
    dials: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)

    def __post_init__(self) -> None:
        require_integer("points", self.points, 1)
        require_integer("episodes", self.episodes, 1)
        require_integer("seed", self.seed, 0)
        for dial in self.dials:
            require_number("dials", dial, 0.0, _DIAL_HIGH)
        require(1.0 in self.dials, "dials", list(self.dials), "a list with 1, the adapted policy")


@dataclass(frozen=True)
class Plan:
    """A file of cfg/study.

    Attributes:
        tasks: by name, {} for a task without settings of its own.
        methods: files of cfg/method.
        seeds: of the runs, the same for every method.
        gaps: files of cfg/gap, or `default` for the task's own two simulators. They hold for tasks without gaps of
            their own.
        budgets: measured cost, for tasks without budgets of their own.
        budget_factors: by gap, factors on the budgets of its runs, where a dearer E_high needs more.
        method_gaps: by method, the only gaps in which it is run.
        abroad: files of cfg/simulator in which no run trains and the policies of all are evaluated when they end.
        reference: null for none.
        overrides: settings of train.py for every run.
        threads: of the learner and of each simulator of a run.
        replayed: the method whose low shares the rule `replay` repeats, unless it names a file.
        contrasts: pairs of methods that the study is about. The report corrects its tests for their number.
        timeout: wall seconds after which a run is ended and counts as failed. null stands for 600 plus 5 budgets.
        runs_of: names of studies beside this one, of which finished runs with the same settings are taken.
    """

    tasks: dict[str, TaskPlan]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    gaps: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    budget_factors: dict[str, float] = field(default_factory=dict)
    method_gaps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    abroad: tuple[str, ...] = ()
    reference: ReferencePlan | None = field(default_factory=ReferencePlan)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    overrides: tuple[str, ...] = ()
    threads: int = 1
    replayed: str = "default"
    contrasts: tuple[tuple[str, ...], ...] = ()
    timeout: float | None = None
    runs_of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key in ("tasks", "methods", "seeds"):
            require(len(getattr(self, key)) > 0, key, list(getattr(self, key)), "at least one")
        for key in ("methods", "gaps", "abroad"):
            _require_different(key, getattr(self, key))
        _require_seeds(self.seeds)
        _require_budgets(self.budgets)
        for task in self.tasks:
            for key, values in (("gaps", self.gaps_of(task)), ("budgets", self.budgets_of(task))):
                require(bool(values), key, [], f"given, here or in tasks.{task}")
        self._check_names()
        require_integer("threads", self.threads, 1)
        if self.timeout is not None:
            require_number("timeout", self.timeout, 0.0, _LONGEST, open_low=True)

    def _check_names(self) -> None:
        """Raise ConfigError where a key speaks of a method or gap that the plan has not."""
        methods, gaps = list(self.methods), [*dict.fromkeys(gap for task in self.tasks for gap in self.gaps_of(task))]
        for pair in self.contrasts:
            require(len(pair) == 2, "contrasts", list(pair), "a pair of methods")
            for method in pair:
                require(method in methods, "contrasts", method, f"one of the plan's methods {methods}")
        for gap, factor in self.budget_factors.items():
            require(gap in gaps, "budget_factors", gap, f"one of the plan's gaps {gaps}")
            require_number(f"budget_factors.{gap}", factor, 0.0, _MOST, open_low=True)
        for method, only in self.method_gaps.items():
            require(method in methods, "method_gaps", method, f"one of the plan's methods {methods}")
            for gap in only:
                require(gap in gaps, f"method_gaps.{method}", gap, f"one of the plan's gaps {gaps}")

    def gaps_of(self, task: str) -> tuple[str, ...]:
        """Gaps of a task's runs."""
        return self.tasks[task].gaps or self.gaps

    def budgets_of(self, task: str, gap: str = "") -> tuple[float, ...]:
        """Measured cost of a task's runs in a gap; without one, before its factor."""
        factor = self.budget_factors.get(gap, 1.0)
        return tuple(factor * budget for budget in self.tasks[task].budgets or self.budgets)

    def seeds_of(self, task: str) -> tuple[int, ...]:
        """Seeds of a task's runs."""
        return self.tasks[task].seeds or self.seeds

    def methods_of(self, gap: str) -> tuple[str, ...]:
        """Methods that are run in a gap."""
        return tuple(method for method in self.methods if gap in self.method_gaps.get(method, (gap,)))


def parse_plan(settings: Mapping[str, Any]) -> Plan:
    """The plan that a composed configuration's `study` describes.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    plan: Plan = parse_settings(Plan, settings, "study")
    return plan


@dataclass(frozen=True)
class Series:
    """A file of cfg/study that names other plans.

    Attributes:
        plans: files of cfg/study, in the order in which they are run.
    """

    plans: tuple[str, ...]

    def __post_init__(self) -> None:
        require(len(self.plans) > 0, "plans", list(self.plans), "at least one")
        _require_different("plans", self.plans)


def parse_series(settings: Mapping[str, Any], allowed: Sequence[str]) -> Series:
    """The series of plans that a composed configuration's `study` describes.

    Args:
        allowed: names of plans.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    series: Series = parse_settings(Series, settings, "study")
    for plan in series.plans:
        require(plan in allowed, "study.plans", plan, f"one of {list(allowed)}")
    return series


def _require_budgets(budgets: Sequence[float]) -> None:
    for budget in budgets:
        require_number("budgets", budget, 0.0, _LONGEST, open_low=True)
    require(len(set(budgets)) == len(budgets), "budgets", list(budgets), "different from each other")


def _require_seeds(seeds: Sequence[int]) -> None:
    for seed in seeds:
        require_integer("seeds", seed, 0)
    require(len(set(seeds)) == len(seeds), "seeds", list(seeds), "different from each other")


def _require_different(key: str, values: Sequence[str]) -> None:
    require(len(set(values)) == len(values), key, list(values), "different from each other")
