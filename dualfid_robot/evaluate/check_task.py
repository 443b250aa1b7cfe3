"""What check_task.py does: describe a task, ask every engine whether it takes it, and watch a random agent in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dualfid_robot.config.engines import simulator_names, simulator_settings
from dualfid_robot.config.experiment import Experiment, complete_experiment, plain
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.reward import rows_of
from dualfid_robot.envs.task import State, Task, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import Agent, random_agent
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate
from dualfid_robot.evaluate.task_tables import (
    action_line,
    actuator_table,
    column_names,
    joint_table,
    observation_table,
    reward_table,
)
from dualfid_robot.settings import require_integer
from dualfid_robot.simulators.registry import engine_class, lost_contacts

TIMED_ENVS = 512  # at most, where nothing else is said: to build worlds takes time too
TIMED_STEPS = (5, 30)  # that do not count, and that do
CLIPPED_SHARE = 0.01  # of a column's values, from which on it is named


def check(cfg: DictConfig, console: Console) -> Experiment:
    """Print what there is to know about a task before it is trained.

    Raises:
        ConfigError: the task, its files or one of its functions is wrong, or its simulators do not take it. It is also
            raised when a random agent meets values that are not finite.
    """
    require_integer("episodes", cfg.episodes, 1)
    experiment = complete_experiment(cfg, plain(cfg.simulator), num_envs=cfg.num_envs)
    task = experiment.make_task()
    _describe(experiment, task, console)
    if not isinstance(task, ForeignTask):
        check_functions(task)
    console.print(_engine_table(experiment, cfg))
    for engine in experiment.low_engines:
        if lost := lost_contacts(engine, experiment.high_engine, experiment.robot):
            console.print(f"{engine['name']}: {lost}", soft_wrap=True, highlight=False)
    timed_envs = experiment.num_envs if cfg.num_envs != "" else min(experiment.num_envs, TIMED_ENVS)
    low = experiment.low_engines
    sides = {"low" if len(low) == 1 else f"low {engine['name']}": engine for engine in low}
    sides["high"] = experiment.high_engine
    trials = {side: Trial.run(experiment, engine, cfg.episodes, timed_envs, cfg.seed) for side, engine in sides.items()}
    _report(trials, task, timed_envs, console)
    for side, trial in trials.items():
        where = f"the {side} simulator, {trial.engine}"
        if bad := trial.seen.columns_where(trial.seen.not_finite > 0):
            raise ConfigError(f"task={experiment.task.name}: not finite in {where}: {_few(bad)}")
        if not math.isfinite(trial.evaluation.mean):
            raise ConfigError(f"task={experiment.task.name}: the reward is not finite in {where}")
    return experiment


def _describe(experiment: Experiment, task: Task, console: Console) -> None:
    settings, robot = experiment.task, experiment.robot
    model = robot.model
    console.print(
        f"{settings.name}: {robot.path.name}, {model.nbody - 1} bodies, {model.body_mass.sum():.4g} kg,"
        f" {'floating' if robot.floating_base else 'fixed'} base, feet {list(robot.feet)}",
        f"\ncontrol period {1e3 * settings.sim.dt:.4g} ms ({1 / settings.sim.dt:.4g} Hz), episodes of at most"
        f" {task.config.episodeLength} steps ({task.config.episodeLength * settings.sim.dt:.4g} s),"
        f" {experiment.num_envs} environments, {experiment.run.max_epochs} iterations of"
        f" {experiment.ppo.horizon_length} steps\n",
    )
    console.print(joint_table(model))
    console.print(observation_table(task))
    console.print(f"Action: {action_line(task)}\n")
    console.print(actuator_table(model))


def check_functions(task: Task) -> None:
    """Compare what a task's functions return with what it declares.

    Raises:
        ConfigError: names the function and what is wrong with its result.
    """
    n, model = 3, task.robot.model
    generator = torch.Generator(task.device).manual_seed(0)
    zeros = torch.zeros(n, task.num_actions, device=task.device)
    qpos = torch.from_numpy(model.qpos0).to(task.device, torch.float32).repeat(n, 1)
    qvel = torch.zeros(n, model.nv, device=task.device)
    wrench = torch.zeros(n, len(task.contact_bodies), 6, device=task.device)
    step = torch.zeros(n, dtype=torch.int32, device=task.device)
    memory = {name: torch.zeros(n, columns, device=task.device) for name, columns in task.memory.items()}
    start = task.begin_episode(State(qpos, qvel, wrench, zeros, zeros, step, memory), generator)
    _check_tensor(task, "qpos of sample_initial_state", start.qpos, (n, model.nq))
    _check_tensor(task, "qvel of sample_initial_state", start.qvel, (n, model.nv))
    for name, columns in task.memory.items():
        _check_tensor(task, f"{name} of begin_episode's memory", start.memory[name], (n, columns))
    control = task.initial_control(start.qpos)
    _check_tensor(task, "initial_control", control, (n, task.num_actions))
    state = State(start.qpos, start.qvel, wrench, zeros, control, step + 1, start.memory)
    observed = task.observe(state)
    for term in (*task.terms, *task.privileged_terms):
        if term.name not in observed:
            raise ConfigError(f"task={_name(task)}: observe gives no {term.name}; it gives {sorted(observed)}")
        value = observed[term.name]
        shape = (n,) if term.size == 1 and value.ndim == 1 else (n, term.size)
        _check_tensor(task, f"{term.name} of observe", value, shape)
    terminated = task.terminated(state, observed)
    _check_tensor(task, "terminated", terminated, (n,), torch.bool)
    rewards = task.reward(start.qpos, state, observed, terminated)
    rows_of(rewards, n, f"task={_name(task)}")
    for name, values in rewards.items():
        _check_tensor(task, f"{name} of reward", values, (n,))
    for name, values in task.measure(state, observed).items():
        _check_tensor(task, f"{name} of measure", values, (n,), values.dtype)


def _check_tensor(
    task: Task, what: str, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> None:
    if values.shape != shape or values.dtype != dtype:
        raise ConfigError(
            f"task={_name(task)}: {what} is {values.dtype} of shape {tuple(values.shape)} for {shape[0]} worlds;"
            f" {dtype} of shape {shape} is expected"
        )


def _name(task: Task) -> str:
    return type(task).__name__


def _engine_table(experiment: Experiment, cfg: DictConfig) -> Table:
    """Which of the files of cfg/simulator take the task. Two worlds are built of each."""
    table = Table(title="Engines", title_justify="left")
    for header in ("simulator", "physics step", "accepts the task"):
        table.add_column(header, no_wrap=header != "accepts the task")
    task = plain(cfg.task)
    for name in simulator_names():
        settings = simulator_settings(name, task)
        substeps = settings["substeps"]
        period = f"{1e3 * experiment.task.sim.dt / substeps:.3g} ms, {substeps} per control"
        table.add_row(name, period, verdict(experiment, settings))
    return table


def verdict(experiment: Experiment, simulator: Mapping[str, Any]) -> str:
    """Whether a simulator takes an experiment's task: "yes", or "no" and the reason.

    An engine for GPUs compiles kernels for every robot, which takes minutes on a CPU. There it is asked only if it was
    chosen.
    """
    chosen = {settings["engine"] for settings in experiment.engines.values()}
    for_gpu = "cuda" in engine_class(simulator["engine"]).DEVICE_TYPES
    if for_gpu and experiment.sim_device.type == "cpu" and simulator["engine"] not in chosen:
        return "not asked: compiles for minutes on a CPU; choose it with simulator/high=… to know"
    try:
        experiment.make_pool(simulator, 2, seed=0).simulator.close()
    except ConfigError as error:
        return f"no: {error}"
    return "yes"


class Watched:
    """An agent with statistics of what it saw.

    Attributes:
        count: observations seen.
        smallest, largest, total, squares: (columns,) float64, of the finite values of each column.
        clipped, not_finite: (columns,) how many of its values lay at the bound of observations, or were not finite.
    """

    def __init__(self, agent: Agent, task: Task) -> None:
        self.agent, self.terms, self.bound = agent, (*task.terms, *task.privileged_terms), task.config.clipObservations
        self.count = 0
        zeros = torch.zeros(task.num_observations, dtype=torch.float64)
        self.smallest, self.largest = torch.full_like(zeros, torch.inf), torch.full_like(zeros, -torch.inf)
        self.total, self.squares, self.clipped, self.not_finite = (torch.zeros_like(zeros) for _ in range(4))

    def __call__(self, observations: Tensor) -> Tensor:
        seen = observations.double().cpu()
        finite = seen.isfinite()
        values = torch.where(finite, seen, 0.0)
        self.count += len(seen)
        torch.minimum(self.smallest, torch.where(finite, seen, torch.inf).amin(0), out=self.smallest)
        torch.maximum(self.largest, torch.where(finite, seen, -torch.inf).amax(0), out=self.largest)
        self.total += values.sum(0)
        self.squares += values.square().sum(0)
        self.clipped += (values.abs() >= self.bound).sum(0)
        self.not_finite += (~finite).sum(0)
        return self.agent(observations)

    def columns_where(self, mask: Tensor) -> list[str]:
        """Names of the columns of a mask (columns,)."""
        return [name for name, chosen in zip(column_names(self.terms), mask.tolist(), strict=True) if chosen]

    def by_term(self) -> dict[str, tuple[float, float, float, float]]:
        """Smallest, largest, mean and standard deviation of each term's values, all its columns together."""
        found, start = {}, 0
        for term in self.terms:
            rows = slice(start, start + term.columns)
            mean = self.total[rows].sum() / (self.count * term.columns)
            variance = self.squares[rows].sum() / (self.count * term.columns) - mean.square()
            numbers = self.smallest[rows].min(), self.largest[rows].max(), mean, variance.clamp(min=0.0).sqrt()
            found[term.name] = cast(tuple[float, float, float, float], tuple(float(number) for number in numbers))
            start += term.columns
        return found


@dataclass(frozen=True)
class Trial:
    """A random agent in one simulator.

    Attributes:
        engine: its name.
        evaluation: of complete episodes.
        seen: what the agent saw in them.
        steps_per_second: environment steps per second of as many environments as were timed.
    """

    engine: str
    evaluation: Evaluation
    seen: Watched
    steps_per_second: float

    @classmethod
    def run(
        cls, experiment: Experiment, simulator: Mapping[str, Any], episodes: int, timed_envs: int, seed: int
    ) -> Trial:
        """Let it act.

        Raises:
            ConfigError: the simulator does not take the task.
        """
        pool = experiment.make_pool(simulator, episodes, seed)
        try:
            seen = Watched(random_agent(pool.task, seed), pool.task)
            evaluation = evaluate(seen, pool)
        finally:
            pool.simulator.close()
        timed = experiment.make_pool(simulator, timed_envs, seed)
        try:
            return cls(simulator["name"], evaluation, seen, steps_per_second(timed, seed))
        finally:
            timed.simulator.close()


def steps_per_second(pool: EnvironmentPool, seed: int) -> float:
    """Environment steps per second under random actions: simulation, observation, reward and resets."""
    agent = random_agent(pool.task, seed)
    for steps in TIMED_STEPS:
        pool.take_statistics()
        for _ in range(steps):
            pool.step(agent(pool.observations))
    statistics = pool.take_statistics()
    return statistics.env_steps / statistics.seconds


def _report(trials: Mapping[str, Trial], task: Task, timed_envs: int, console: Console) -> None:
    console.print("\nA random agent, uniform within the action's bounds:")
    for side, trial in trials.items():
        console.print(f"  {_called(side, trial)}: {trial.evaluation.line()}", soft_wrap=True)
    for side, trial in trials.items():
        console.print(
            f"  {_called(side, trial)}: {trial.steps_per_second:,.0f} env steps/s with {timed_envs} environments"
        )
    console.print()
    console.print(reward_table({side: trial.evaluation.reward_terms for side, trial in trials.items()}))
    console.print(_seen_table(trials, (*task.terms, *task.privileged_terms)))
    for side, trial in trials.items():
        seen = trial.seen
        constant = seen.columns_where(seen.largest == seen.smallest)
        clipped = seen.columns_where(seen.clipped > CLIPPED_SHARE * seen.count)
        for what, names in (
            ("the same in every step", constant),
            (f"clipped to ±{seen.bound:g} in more than {CLIPPED_SHARE:.0%} of the steps", clipped),
        ):
            if names:
                console.print(f"{side}: {what}: {_few(names)}", soft_wrap=True)


def _called(side: str, trial: Trial) -> str:
    """A side and its engine. Where a side has several engines, its name says already which one."""
    return side if side.endswith(trial.engine) else f"{side}, {trial.engine}"


def _seen_table(trials: Mapping[str, Trial], terms: tuple[Term, ...]) -> Table:
    table = Table(title="Observations that it met, scaled and clipped", title_justify="left")
    for header in ("term", "in"):
        table.add_column(header)
    for figure in ("min", "max", "mean", "std"):
        table.add_column(figure, justify="right")
    by_side = {side: trial.seen.by_term() for side, trial in trials.items()}
    for term in terms:
        for side, found in by_side.items():
            table.add_row(term.name, side, *(f"{number:.3g}" for number in found[term.name]))
        table.add_section()
    return table


def _few(names: list[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
