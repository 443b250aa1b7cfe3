"""A study's plan: the settings of its YAML, and the runs that follow from them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.progress import track

from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.config.command_line import describe
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.output import plain_console
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings, require, require_integer, require_number
from dualfid_robot.studies.configuration import compose_run, options, settle
from dualfid_robot.studies.gaps import Sides, changed_sides
from dualfid_robot.studies.run_folder import ANY_GAP, RunFolder, RunIdentity
from dualfid_robot.train.control_variate import check_control_variate

NO_CHANGE = "default"  # a gap without a file in cfg/gap: the task's own two simulators
_UNBOUNDED = 1_000_000  # iterations: the cost alone ends a run
_LONGEST = 1e7  # s


@dataclass(frozen=True)
class TaskPlan:
    """Settings of one task of a plan.

    Attributes:
        gaps: of this task, or empty for the plan's.
        budgets: s of measured cost, or empty for the plan's.
        overrides: settings of train.py.
    """

    gaps: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_different("gaps", self.gaps)
        _require_budgets(self.budgets)


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
        require_number("factor", self.factor, 1.0, 1e3)
        _require_seeds(self.seeds)


@dataclass(frozen=True)
class EvaluationPlan:
    """How a run's curve is measured.

    Attributes:
        points: evaluations besides that of the untrained policy, at equal distances of the cost.
        episodes: complete episodes of each, from the same starts every time.
        seed: of the starts, disjoint from those of training.
    """

    points: int = 5
    episodes: int = 32
    seed: int = 10_000

    def __post_init__(self) -> None:
        require_integer("points", self.points, 1)
        require_integer("episodes", self.episodes, 1)
        require_integer("seed", self.seed, 0)


@dataclass(frozen=True)
class Plan:
    """A file of cfg/study.

    Attributes:
        tasks: by name, {} for a task without settings of its own.
        methods: files of cfg/method.
        seeds: of the runs, the same for every method.
        gaps: files of cfg/gap, or `default` for the task's own two simulators. They hold for tasks without gaps of
            their own.
        budgets: s of measured cost, for tasks without budgets of their own.
        reference: null for none.
        overrides: settings of train.py for every run.
        threads: of the learner and of each simulator of a run.
        replayed: the method whose low shares the rule `replay` repeats, unless it names a file.
        contrasts: pairs of methods that the study is about. The report corrects its tests for their number.
        timeout: wall seconds after which a run is ended and counts as failed. null stands for 600 plus 5 budgets.
    """

    tasks: dict[str, TaskPlan]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    gaps: tuple[str, ...] = ()
    budgets: tuple[float, ...] = ()
    reference: ReferencePlan | None = field(default_factory=ReferencePlan)
    evaluation: EvaluationPlan = field(default_factory=EvaluationPlan)
    overrides: tuple[str, ...] = ()
    threads: int = 1
    replayed: str = "kl_guarded"
    contrasts: tuple[tuple[str, ...], ...] = ()
    timeout: float | None = None

    def __post_init__(self) -> None:
        for key in ("tasks", "methods", "seeds"):
            require(len(getattr(self, key)) > 0, key, list(getattr(self, key)), "at least one")
        for key in ("methods", "gaps"):
            _require_different(key, getattr(self, key))
        _require_seeds(self.seeds)
        _require_budgets(self.budgets)
        for task in self.tasks:
            for key, values in (("gaps", self.gaps_of(task)), ("budgets", self.budgets_of(task))):
                require(bool(values), key, [], f"given, here or in tasks.{task}")
        require_integer("threads", self.threads, 1)
        if self.timeout is not None:
            require_number("timeout", self.timeout, 0.0, _LONGEST, open_low=True)
        for pair in self.contrasts:
            require(len(pair) == 2, "contrasts", list(pair), "a pair of methods")
            for method in pair:
                require(method in self.methods, "contrasts", method, f"one of the plan's methods {list(self.methods)}")

    def gaps_of(self, task: str) -> tuple[str, ...]:
        """Gaps of a task's runs."""
        return self.tasks[task].gaps or self.gaps

    def budgets_of(self, task: str) -> tuple[float, ...]:
        """s of measured cost of a task's runs."""
        return self.tasks[task].budgets or self.budgets


@dataclass(frozen=True)
class PlannedRun(RunIdentity):
    """One training run.

    Attributes:
        overrides: settings that give train.py the same run.
        replays: id of the run whose low shares this one repeats and which must finish before, or empty.
    """

    overrides: tuple[str, ...]
    replays: str = ""

    def description(self) -> dict[str, Any]:
        """What the report needs to know of it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PlannedCell:
    """The common part of all runs of one task, method and gap.

    Attributes:
        settings: the composed configuration without seed and budget.
        overrides: settings that lead to it.
        uses_low: whether it ever has an environment in the low simulator.
        replays: whether it repeats the low shares of another run that the study names.
    """

    task: str
    method: str
    gap: str
    settings: dict[str, Any]
    overrides: tuple[str, ...]
    uses_low: bool
    replays: bool


class PlannedStudy:
    """A plan with all its runs, checked as far as possible without training.

    Attributes:
        changes: the side that each gap changes.
        runs: in the order in which they begin. References come first. The others follow seed by seed, so that an
            interrupted study has whole seeds. The methods of a task and gap are in random order, so that a slower
            machine meets all alike.
    """

    def __init__(self, name: str, plan: Plan, folder: Path) -> None:
        """Compose and check every run.

        Args:
            folder: the study's.

        Raises:
            ConfigError: names what is wrong.
        """
        self.name, self.plan, self.folder = name, plan, folder
        reference = [plan.reference.method] if plan.reference else []
        self._gaps = [*dict.fromkeys(gap for task in plan.tasks for gap in plan.gaps_of(task))]
        for key, group, names in (
            ("tasks", "task", list(plan.tasks)),
            ("methods", "method", [*plan.methods]),
            ("reference.method", "method", reference),
            ("gaps", "gap", self._gaps),
        ):
            allowed = options(group) + ([NO_CHANGE] if group == "gap" else [])
            for item in names:
                require(item in allowed, f"study.{key}", item, f"one of {allowed}")
        self._pools: set[str] = set()
        self._settled: dict[tuple[str, str], tuple[DictConfig, list[str]]] = {}
        self.changes = {gap: self._changes_of(gap) for gap in self._gaps}
        self._cells = self._compose_all([*dict.fromkeys([*plan.methods, *reference])])
        self.runs = tuple(dict.fromkeys([*self._reference_runs(), *self._method_runs()]))

    def folder_of(self, run: PlannedRun) -> RunFolder:
        """Its files."""
        return RunFolder(self.folder / "runs" / run.id)

    def description(self) -> dict[str, Any]:
        """The resolved plan, as plan.json holds it."""
        plan = self.plan
        return {
            "name": self.name,
            "tasks": {
                task: {
                    "gaps": list(plan.gaps_of(task)),
                    "budgets": list(plan.budgets_of(task)),
                    "overrides": list(settings.overrides),
                }
                for task, settings in plan.tasks.items()
            },
            "methods": list(plan.methods),
            "gaps": [{"name": gap, "changes": changes} for gap, changes in self.changes.items()],
            "budgets": sorted({budget for task in plan.tasks for budget in plan.budgets_of(task)}),
            "seeds": list(plan.seeds),
            "reference": dataclasses.asdict(plan.reference) if plan.reference else None,
            "evaluation": dataclasses.asdict(plan.evaluation),
            "overrides": list(plan.overrides),
            "threads": plan.threads,
            "contrasts": [list(pair) for pair in plan.contrasts],
            "runs": [run.description() for run in self.runs],
        }

    def _compose_all(self, methods: Sequence[str]) -> dict[tuple[str, str, str], PlannedCell]:
        console, plan = plain_console(stderr=True), self.plan
        triples = [(task, method, gap) for task in plan.tasks for gap in plan.gaps_of(task) for method in methods]
        cells: dict[tuple[str, str, str], PlannedCell] = {}
        without_gap: dict[tuple[str, str], PlannedCell] = {}
        for task, method, gap in track(triples, "checking", console=console, disable=not console.is_terminal):
            if self.changes[gap] == "low":
                if (task, method) not in without_gap:
                    without_gap[task, method] = self._compose(task, method, NO_CHANGE)
                if not without_gap[task, method].uses_low:
                    cells[task, method, gap] = dataclasses.replace(without_gap[task, method], gap=ANY_GAP)
                    continue
            cells[task, method, gap] = self._compose(task, method, gap)
        return cells

    def _changes_of(self, gap: str) -> Sides:
        """The side that a gap changes."""
        if gap == NO_CHANGE:
            return "low"  # it names each task's own low simulator
        tasks = [task for task in self.plan.tasks if gap in self.plan.gaps_of(task)]
        found = set()
        for task in tasks:
            with_gap, without = (self._settle(task, name) for name in (gap, NO_CHANGE))
            found.add(changed_sides(_plain(with_gap[0]), _plain(without[0])))
        return found.pop() if len(found) == 1 else "both"

    def _settle(self, task: str, gap: str) -> tuple[DictConfig, list[str]]:
        """`settle` for a task and gap. A method leaves the simulators as they are."""
        if (task, gap) not in self._settled:
            with _naming(task, None, gap):
                self._settled[task, gap] = settle(self._overrides(task, gap), self.plan.threads)
        return self._settled[task, gap]

    def _overrides(self, task: str, gap: str) -> list[str]:
        return [
            f"task={task}",
            *([f"+gap={gap}"] if gap != NO_CHANGE else []),
            f"max_iterations={_UNBOUNDED}",
            *self.plan.overrides,
            *self.plan.tasks[task].overrides,
        ]

    def _compose(self, task: str, method: str, gap: str) -> PlannedCell:
        overrides = [*self._settle(task, gap)[1], f"+method={method}"]
        with _naming(task, method, gap):
            cfg = compose_run(overrides)
            experiment = Experiment(cfg)
            rule = experiment.settings["allocation"]["rule"]
            replays = rule["name"] == "replay" and not rule["file"]
            allocation = experiment.allocation
            if not replays:
                check_control_variate(experiment, Allocator(experiment.num_envs, allocation))
            self._check_pools(experiment)
        if replays and self.plan.replayed not in self.plan.methods:
            raise ConfigError(
                f"study.methods={method}: replays the runs of method {self.plan.replayed}, which the plan has not"
            )
        uses_low = allocation.rho_max > 0.0
        return PlannedCell(task, method, gap, _plain(cfg), tuple(overrides), uses_low, replays)

    def _check_pools(self, experiment: Experiment) -> None:
        """Build both simulators with two worlds. An engine that is not installed, or that cannot take the robot or the
        gap, is refused now."""
        for where, simulator in experiment.engines.items():
            key = json.dumps([experiment.settings["task"], simulator], sort_keys=True)
            if key not in self._pools:
                try:
                    experiment.make_pool(simulator, 2, seed=0).simulator.close()
                except ConfigError as error:
                    group = "/".join(where.split(".")[:2])
                    raise ConfigError(f"{group}={simulator['name']}: {error}") from error
                self._pools.add(key)

    def _reference_runs(self) -> Iterator[PlannedRun]:
        plan, reference = self.plan, self.plan.reference
        if reference is None:
            return
        for task in plan.tasks:
            for gap in plan.gaps_of(task):
                for seed in reference.seeds:
                    cell = self._cells[task, reference.method, gap]
                    yield self._run(cell, reference.factor * max(plan.budgets_of(task)), seed, True)

    def _method_runs(self) -> Iterator[PlannedRun]:
        plan, order = self.plan, random.Random(0)
        for seed in plan.seeds:
            for task in plan.tasks:
                for gap in plan.gaps_of(task):
                    for budget in plan.budgets_of(task):
                        for method in order.sample(plan.methods, len(plan.methods)):
                            yield self._run(self._cells[task, method, gap], budget, seed, False)

    def _run(self, cell: PlannedCell, budget: float, seed: int, reference: bool) -> PlannedRun:
        overrides = [*cell.overrides, f"seed={seed}", f"max_cost={budget:g}"]
        replayed = ""
        if cell.replays:
            source = self._run(self._cells[cell.task, self.plan.replayed, cell.gap], budget, seed, False)
            replayed, metrics = source.id, (self.folder_of(source).metrics).resolve()
            overrides += [f"allocation.rule.file='{metrics}'", f"allocation.rule.seed={seed}"]
        meaning = [cell.settings, dataclasses.asdict(self.plan.evaluation), budget, seed, reference, replayed]
        digest = hashlib.sha1(json.dumps(meaning, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:8]
        gap = "anygap" if cell.gap == ANY_GAP else cell.gap
        words = [cell.task, cell.method, gap, f"{budget:g}s", f"seed{seed}", *["reference"] * reference, digest]
        name = re.sub(r"[^\w.-]", "", "-".join(words))
        return PlannedRun(name, cell.task, cell.method, cell.gap, budget, seed, reference, tuple(overrides), replayed)


def parse_plan(settings: Mapping[str, Any]) -> Plan:
    """The plan that a composed configuration's `study` describes.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    plan: Plan = parse_settings(Plan, settings, "study")
    return plan


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


@contextmanager
def _naming(task: str, method: str | None, gap: str) -> Iterator[None]:
    """Add to an error which run it is about."""
    words = [f"task {task}", *([f"method {method}"] if method else []), *([f"gap {gap}"] if gap != NO_CHANGE else [])]
    try:
        yield
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{', '.join(words)}: {describe(error)}") from error


def _plain(cfg: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
