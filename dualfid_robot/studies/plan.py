"""The runs that follow from a study's plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.config.command_line import describe
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.left_out import require_left_out
from dualfid_robot.config.progress import track
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require
from dualfid_robot.studies.configuration import compose_run, options, settle
from dualfid_robot.studies.gaps import Sides, changed_sides
from dualfid_robot.studies.plan_file import Plan
from dualfid_robot.studies.run_folder import ANY_GAP, NO_CHANGE, RunFolder, RunIdentity
from dualfid_robot.train.control_variate import check_control_variate

_UNBOUNDED = 1_000_000  # iterations: the cost alone ends a run


@dataclass(frozen=True)
class PlannedRun(RunIdentity):
    """One training run.

    Attributes:
        overrides: settings that give train.py the same run.
        replays: id of the run whose low shares this one repeats and which must finish before, or empty.
        evaluation_steps: environment steps of all its evaluations.
    """

    overrides: tuple[str, ...]
    replays: str = ""
    evaluation_steps: int = 0

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
        changes: by gap, what it changes; prices: by gap, the price of a second of E_high.
        experiments: one of each task.
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
        self.experiments: dict[str, Experiment] = {}
        self._pools: set[str] = set()
        self._settled: dict[tuple[str, str], tuple[DictConfig, list[str]]] = {}
        self.changes = {gap: self._changes_of(gap) for gap in self._gaps}
        self.prices = {gap: self._price_of(gap) for gap in self._gaps}
        self._cells = self._compose_all()
        self.runs = tuple(dict.fromkeys([*self._reference_runs(), *self._method_runs()]))

    def folder_of(self, run: PlannedRun) -> RunFolder:
        """The files of a run."""
        return RunFolder(self.folder / "runs" / run.id)

    def evaluation_of(self, reference: bool) -> dict[str, Any]:
        """How a run is evaluated. A reference has as many points for the same cost as other runs, and stays at home."""
        plan, found = self.plan, dataclasses.asdict(self.plan.evaluation)
        if reference and plan.reference is not None:
            found["points"] = round(plan.reference.factor * plan.evaluation.points)
        stays = reference or not plan.abroad
        return found | ({"abroad": [], "dials": []} if stays else {"abroad": list(plan.abroad)})

    def description(self) -> dict[str, Any]:
        """The resolved plan, as plan.json holds it."""
        plan = self.plan
        return {
            "name": self.name,
            "tasks": {
                task: {
                    "gaps": list(plan.gaps_of(task)),
                    "budgets": list(plan.budgets_of(task)),
                    "seeds": list(plan.seeds_of(task)),
                    "overrides": list(settings.overrides),
                    "target": settings.target,
                }
                for task, settings in plan.tasks.items()
            },
            "methods": list(plan.methods),
            "gaps": [
                {"name": gap, "changes": changes, "price": self.prices[gap]} for gap, changes in self.changes.items()
            ],
            "budgets": sorted({budget for task in plan.tasks for budget in plan.budgets_of(task)}),
            "budget_factors": dict(plan.budget_factors),
            "abroad": list(plan.abroad),
            "seeds": list(plan.seeds),
            "reference": dataclasses.asdict(plan.reference) if plan.reference else None,
            "evaluation": dataclasses.asdict(plan.evaluation),
            "overrides": list(plan.overrides),
            "threads": plan.threads,
            "contrasts": [list(pair) for pair in plan.contrasts],
            "runs": [run.description() for run in self.runs],
        }

    def _compose_all(self) -> dict[tuple[str, str, str], PlannedCell]:
        """The cells of all methods, and those of the reference."""
        plan = self.plan
        places = [(task, gap) for task in plan.tasks for gap in plan.gaps_of(task)]
        triples = [(task, method, gap) for task, gap in places for method in plan.methods_of(gap)]
        if plan.reference:
            triples += [(task, plan.reference.method, self._target(gap)) for task, gap in places]
        cells: dict[tuple[str, str, str], PlannedCell] = {}
        without_gap: dict[tuple[str, str], PlannedCell] = {}
        distinct = [*dict.fromkeys(triples)]
        for task, method, gap in track(distinct, "checking", len(distinct)):
            if self.changes.get(gap, "low") == "low":
                if (task, method) not in without_gap:
                    without_gap[task, method] = self._compose(task, method, NO_CHANGE)
                if not without_gap[task, method].uses_low:
                    cells[task, method, gap] = dataclasses.replace(without_gap[task, method], gap=ANY_GAP)
                    continue
            cells[task, method, gap] = self._compose(task, method, gap)
        return cells

    def _target(self, gap: str) -> str:
        """The gap whose references are a gap's: prices do not change what can be learnt."""
        return NO_CHANGE if self.changes[gap] == "price" else gap

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

    def _price_of(self, gap: str) -> float:
        """The price of E_high in a gap. It is NaN where it differs between tasks."""
        tasks = [task for task in self.plan.tasks if gap in self.plan.gaps_of(task)]
        found = {float(self._settle(task, gap)[0].simulator.high.price) for task in tasks}
        return found.pop() if len(found) == 1 else float("nan")

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
            experiment = self.experiments[task] = Experiment(cfg)
            rule = experiment.settings["allocation"]["rule"]
            replays = rule["name"] == "replay" and not rule["file"]
            allocation = experiment.allocation
            if not replays:
                check_control_variate(experiment, Allocator(experiment.num_envs, allocation))
            self._check_pools(experiment)
            uses_low = allocation.rho_max > 0.0
            if gap in self._gaps or not uses_low:  # else it is composed for `uses_low` alone
                self._check_abroad(experiment)
        if replays and self.plan.replayed not in self.plan.methods_of(gap):
            raise ConfigError(
                f"study.methods={method}: replays the runs of method {self.plan.replayed}, which is not in the plan"
            )
        return PlannedCell(task, method, gap, _plain(cfg), tuple(overrides), uses_low, replays)

    def _check_pools(self, experiment: Experiment) -> None:
        """Build both simulators with two worlds. An engine that is not installed, or that cannot take the robot or the
        gap, is refused now."""
        for where, simulator in experiment.engines.items():
            self._check_pool(experiment, simulator, "/".join(where.split(".")[:2]))

    def _check_abroad(self, experiment: Experiment) -> None:
        """Build a simulator with two worlds for each engine of `abroad`, in which the run must not train."""
        for name in self.plan.abroad:
            simulator = simulator_settings(name, experiment.settings["task"], "study.abroad")
            require_left_out("study.abroad", simulator, experiment)
            self._check_pool(experiment, simulator, "study.abroad")

    def _check_pool(self, experiment: Experiment, simulator: Mapping[str, Any], group: str) -> None:
        key = json.dumps([experiment.settings["task"], simulator], sort_keys=True)
        if key not in self._pools:
            try:
                experiment.make_pool(simulator, 2, seed=0).simulator.close()
            except ConfigError as error:
                raise ConfigError(f"{group}={simulator['name']}: {error}") from error
            self._pools.add(key)

    def _reference_runs(self) -> Iterator[PlannedRun]:
        plan, reference = self.plan, self.plan.reference
        if reference is None:
            return
        for task in plan.tasks:
            for gap in map(self._target, plan.gaps_of(task)):
                budget = reference.factor * max(plan.budgets_of(task, gap))
                for seed in reference.seeds:
                    yield self._run(self._cells[task, reference.method, gap], budget, seed, True)

    def _method_runs(self) -> Iterator[PlannedRun]:
        plan, order = self.plan, random.Random(0)
        for place in range(max(len(plan.seeds_of(task)) for task in plan.tasks)):
            for task in plan.tasks:
                for seed in plan.seeds_of(task)[place : place + 1]:
                    for gap in plan.gaps_of(task):
                        methods = plan.methods_of(gap)
                        for budget in plan.budgets_of(task, gap):
                            for method in order.sample(methods, len(methods)):
                                yield self._run(self._cells[task, method, gap], budget, seed, False)

    def _run(self, cell: PlannedCell, budget: float, seed: int, reference: bool) -> PlannedRun:
        overrides = [*cell.overrides, f"seed={seed}", f"max_cost={budget:g}"]
        replayed = ""
        if cell.replays:
            source = self._run(self._cells[cell.task, self.plan.replayed, cell.gap], budget, seed, False)
            replayed, metrics = source.id, (self.folder_of(source).metrics).resolve()
            overrides += [f"allocation.rule.file='{metrics}'", f"allocation.rule.seed={seed}"]
        evaluation = self.evaluation_of(reference)
        settings = cell.settings
        if not cell.uses_low:  # then E_low's settings mean nothing
            settings = settings | {"simulator": {"high": settings["simulator"]["high"]}}
        meaning = [settings, evaluation, budget, seed, reference, replayed]
        digest = hashlib.sha1(json.dumps(meaning, sort_keys=True).encode(), usedforsecurity=False).hexdigest()[:8]
        gap = "anygap" if cell.gap == ANY_GAP else cell.gap
        words = [cell.task, cell.method, gap, f"{budget:g}s", f"seed{seed}", *["reference"] * reference, digest]
        return PlannedRun(
            id=re.sub(r"[^\w.-]", "", "-".join(words)),
            task=cell.task,
            method=cell.method,
            gap=cell.gap,
            budget=budget,
            seed=seed,
            reference=reference,
            overrides=tuple(overrides),
            replays=replayed,
            evaluation_steps=_evaluation_steps(evaluation, cell.settings["task"]["env"]["episodeLength"]),
        )


def _evaluation_steps(evaluation: Mapping[str, Any], episode_length: int) -> int:
    """Environment steps of all evaluations of a run, where no episode ends early."""
    abroad = len(evaluation["dials"]) * (1 + len(evaluation["abroad"])) if evaluation["abroad"] else 0
    return int((evaluation["points"] + 1 + abroad) * evaluation["episodes"] * episode_length)


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
