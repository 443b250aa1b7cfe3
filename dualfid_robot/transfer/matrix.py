"""Evaluates every policy in every engine under every perturbation, after checking all of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfid_robot.config import experiment as experiment_module
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.left_out import home_engine, require_left_out, trained_engines
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent, random_agent
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.runs.checkpoint import load_checkpoint, resolve_checkpoint, saved_settings
from dualfid_robot.runs.saved_policy import load_policy, policy_of
from dualfid_robot.transfer.contract import Contract, check_contract
from dualfid_robot.transfer.perturbations import Perturbation

BASE, ADAPTED = 0.0, 1.0
"""Both policies on the dial between them."""


def dial_name(dial: float) -> str:
    """A policy's name: base, adapted, or its λ."""
    return {BASE: "base", ADAPTED: "adapted"}.get(dial, f"dial {dial:g}")


@dataclass(frozen=True)
class TransferRequest:
    """What to evaluate.

    Attributes:
        checkpoints: files.
        simulators: files of cfg/simulator, without suffix.
        dials: λ of each policy W + λ·s·B·A, ascending.
        perturbations: the nominal world first.
        num_envs: environments at once, with one episode each.
        seed: of the starts, which are the same for all policies.
        left_out: an engine that no checkpoint was trained in, compared with the one at home. Empty means none.
    """

    checkpoints: tuple[Path, ...]
    simulators: tuple[str, ...]
    dials: tuple[float, ...]
    perturbations: tuple[Perturbation, ...]
    num_envs: int
    seed: int
    left_out: str = ""


@dataclass(frozen=True)
class Subject:
    """A checkpoint.

    Attributes:
        label: how tables name it: its run's folder, and its file's name unless that is `last`.
        path: its file.
        task: its task's settings.
        trained_in: files of cfg/simulator, by "low" and "high", with the changes of the robot there. Other settings
            may have been changed. It is empty for a fidelity whose engines the run never used.
        home: the one that its policy belongs to. It is empty unless an engine is left out.
        iteration, samples: how long it was trained.
    """

    label: str
    path: Path
    task: dict[str, Any]
    trained_in: dict[str, str]
    home: str
    iteration: int
    samples: int


@dataclass(frozen=True)
class MatrixCell:
    """One policy in one engine under one perturbation.

    Attributes:
        checkpoint: the subject's label.
        dial: λ.
        simulator: its file in cfg/simulator.
        perturbation: what was changed.
        evaluation: the episodes. None if the engine cannot be perturbed so.
        unsupported: the reason for that, or empty.
    """

    checkpoint: str
    dial: float
    simulator: str
    perturbation: Perturbation
    evaluation: Evaluation | None
    unsupported: str = ""

    @property
    def policy(self) -> str:
        """Name of the policy."""
        return dial_name(self.dial)


class Matrix:
    """A checked request. The constructor finds whatever is wrong before anything runs.

    Attributes:
        request: what is asked for, with the simulators that an engine left out needs.
        subjects: the checkpoints.
        simulators: settings of each engine by name, from the first checkpoint's task.
        contracts: what was measured in each engine, once for all checkpoints whose tasks have the same settings.
        differing: settings in which the checkpoints' tasks differ. Each checkpoint is evaluated in its own task.
    """

    def __init__(self, request: TransferRequest) -> None:
        """Check everything.

        Raises:
            ConfigError: a checkpoint or engine that cannot be used, or checkpoints of several tasks. Or a value that a
                perturbation cannot have, or an engine that breaks the contract.
        """
        self.subjects = _subjects(request.checkpoints, request.left_out)
        if request.left_out:
            needed = (*(subject.home for subject in self.subjects), request.left_out, *request.simulators)
            request = dataclasses.replace(request, simulators=tuple(dict.fromkeys(needed)))
        self.request = request
        task = self.subjects[0].task
        self.simulators = {name: simulator_settings(name, task) for name in request.simulators}
        self.differing = sorted({key for subject in self.subjects[1:] for key in _differing(task, subject.task)})
        self._loaded = {
            (subject.label, name): _load(subject, name) for subject in self.subjects for name in request.simulators
        }
        self._unsupported = self._find_unsupported()
        self.contracts = [
            self._contract(subject, name) for subject in self._distinct_tasks() for name in request.simulators
        ]
        broken = [contract.line() for contract in self.contracts if contract.problems]
        if broken:
            raise ConfigError(f"simulators={broken[0]}")

    @property
    def letters(self) -> dict[str, str]:
        """A short name, A, B, …, for each checkpoint, by label."""
        return {subject.label: chr(ord("A") + i) if i < 26 else str(i) for i, subject in enumerate(self.subjects)}

    def subject_lines(self) -> list[str]:
        """What is evaluated, for a reader: a line for each checkpoint, with its letter where there are several."""
        letters = self.letters if len(self.subjects) > 1 else {}
        return [
            (f"{letters[s.label]}: " if letters else "")
            + f"{s.label}: trained in "
            + " and ".join(f"{engines} ({fidelity})" for fidelity, engines in s.trained_in.items() if engines)
            + f", {s.samples:,} samples"
            for s in self.subjects
        ]

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.subjects[0].task["name"])

    def __len__(self) -> int:
        """Number of cells."""
        request = self.request
        return len(self.subjects) * len(request.dials) * len(request.simulators) * len(request.perturbations)

    def cells(self) -> Iterator[MatrixCell]:
        """Evaluate one after another."""
        for subject in self.subjects:
            for name in self.request.simulators:
                loaded = self._loaded[subject.label, name]
                for perturbation in self.request.perturbations:
                    reason = self._unsupported.get((subject.label, name, perturbation), "")
                    for dial in self.request.dials:
                        evaluation = None if reason else self._evaluate(loaded, perturbation, dial)
                        yield MatrixCell(subject.label, dial, name, perturbation, evaluation, reason)

    def random_returns(self) -> dict[str, float]:
        """Mean return of a random agent in the nominal world of each simulator, by name."""
        found = {}
        for name in self.request.simulators:
            loaded = self._loaded[self.subjects[0].label, name]
            pool = loaded.experiment.make_pool(loaded.simulator, self.request.num_envs, self.request.seed)
            try:
                found[name] = evaluate(random_agent(pool.task, self.request.seed), pool).mean
            finally:
                pool.simulator.close()
        return found

    def _evaluate(self, loaded: _Loaded, perturbation: Perturbation, dial: float) -> Evaluation:
        """Complete episodes from the starts that the seed draws, the same for all policies and worlds. Each cell has a
        new pool, so that no engine remembers another cell. The pool is seeded once more, because noise has drawn
        numbers by then."""
        world = perturbation.apply(loaded.experiment)
        pool = world.make_pool(loaded.simulator, self.request.num_envs, self.request.seed)
        try:
            pool.seed(self.request.seed)
            return evaluate(policy_agent(loaded.policy, dial), pool)
        finally:
            pool.simulator.close()

    def _distinct_tasks(self) -> list[Subject]:
        """The checkpoints whose tasks have settings that no earlier checkpoint's task has."""
        found: list[Subject] = []
        for subject in self.subjects:
            if all(any(_differing(other.task, subject.task)) for other in found):
                found.append(subject)
        return found

    def _contract(self, subject: Subject, name: str) -> Contract:
        loaded = self._loaded[subject.label, name]
        return check_contract(loaded.experiment, name, loaded.simulator)

    def _find_unsupported(self) -> dict[tuple[str, str, Perturbation], str]:
        found = {}
        for (label, name), loaded in self._loaded.items():
            for perturbation in self.request.perturbations:
                reason = perturbation.problem(loaded.experiment, loaded.simulator["engine"])
                if reason is not None:
                    found[label, name, perturbation] = reason
        return found


@dataclass(frozen=True)
class _Loaded:
    """A checkpoint for an engine: its task there, its policy, and the engine's settings for its task."""

    experiment: Experiment
    policy: DualActorCritic
    simulator: dict[str, Any]


def _load(subject: Subject, name: str) -> _Loaded:
    simulator = simulator_settings(name, subject.task)
    return _Loaded(*load_policy(subject.path, simulator=simulator, randomize=False), simulator)


def silence_pools() -> None:
    """Keep pools from logging what they randomise, because each cell names it here."""
    logging.getLogger(experiment_module.__name__).setLevel(logging.WARNING)


def _subjects(checkpoints: Sequence[Path], left_out: str) -> list[Subject]:
    """Read what checkpoints say about themselves.

    Raises:
        ConfigError: a file that does not exist, is no checkpoint, or is of another task than the first. Or one that was
            trained in the engine left out.
    """
    subjects: list[Subject] = []
    for given in checkpoints:
        path = resolve_checkpoint(given)
        state = load_checkpoint(path)
        settings = saved_settings(state)
        if subjects and state["task"] != subjects[0].task["name"]:
            raise ConfigError(
                f"checkpoint={given}: was trained on task={state['task']}, and {subjects[0].path} on"
                f" task={subjects[0].task['name']}; all must be of one task"
            )
        experiment, _ = policy_of(path, state)
        home = _home(path, experiment, left_out) if left_out else ""
        trained = trained_engines(experiment).items()
        trained_in = {
            fidelity: ", ".join(_origin(engine) for where, engine in trained if where.split(".")[1] == fidelity)
            for fidelity in ("low", "high")
        }
        label = _label(path)
        if label in {subject.label for subject in subjects}:
            label = str(path)
        subjects.append(Subject(label, path, settings["task"], trained_in, home, state["iteration"], state["samples"]))
    return subjects


def _home(checkpoint: Path, experiment: Experiment, left_out: str) -> str:
    """The engine that a checkpoint's policy belongs to, where another one was left out.

    Raises:
        ConfigError: the run was trained in the one left out, or its robot at home was changed.
    """
    engine = simulator_settings(left_out, experiment.settings["task"], "leave_out")
    require_left_out("leave_out", engine, experiment)
    home = home_engine(experiment)
    if home["changes"]:
        raise ConfigError(f"leave_out={left_out}: {checkpoint} was trained with {_origin(home)}")
    return str(home["name"])


def _origin(simulator: Mapping[str, Any]) -> str:
    """The file of a run's simulator, and the changes of the robot in it."""
    changes = [f"{name}={factor:g}" for name, factor in simulator["changes"].items()]
    return " with ".join([simulator["name"], *([", ".join(changes)] if changes else [])])


def _label(path: Path) -> str:
    run = path.resolve().parent.parent.name if path.resolve().parent.name == "nn" else path.parent.name
    return run if path.stem == "last" else f"{run}/{path.stem}"


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "task") -> Iterator[str]:
    """Names of settings in which two tasks' configurations differ."""
    for key in sorted({*a, *b} - {"randomize", "randomization"}):
        if isinstance(a.get(key), Mapping) and isinstance(b.get(key), Mapping):
            yield from _differing(a[key], b[key], f"{prefix}.{key}")
        elif a.get(key) != b.get(key):
            yield f"{prefix}.{key}"
