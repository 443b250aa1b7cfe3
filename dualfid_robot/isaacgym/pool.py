"""A pool whose environments are one instance of other people's vectorised class, over an engine of ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.attributes import Rows, remember, remembered
from dualfid_robot.isaacgym.random_numbers import RandomNumbers
from dualfid_robot.isaacgym.session import Session, say_once, using
from dualfid_robot.isaacgym.simulation import Simulation, announce
from dualfid_robot.isaacgym.styles import Shown, Step, Style

if TYPE_CHECKING:
    from dualfid_robot.isaacgym.foreign_task import GymTask


@dataclass(frozen=True)
class Origin:
    """Where environments come from.

    Attributes:
        style: what their base class is like.
        task_class: the class.
        configure: its configuration for a number of environments.
        measures: names of figures of merit.
        session: choices besides the engine.
    """

    style: Style
    task_class: type
    configure: Callable[[int], Any]
    measures: tuple[str, ...]
    session: Session

    def build(self, session: Session, num_envs: int, seed: int) -> tuple[Any, RandomNumbers]:
        """The environments, and the random numbers with which they go on.

        Raises:
            ConfigError: the class does not make a simulation of its own, or lacks a measure.
        """
        numbers = RandomNumbers(seed)
        with using(session), numbers.drawn(), torch.no_grad():
            env = self.style.build(self.task_class, self.configure(num_envs))
        where = f"task.env.taskClass={self.task_class.__name__}"
        simulation = getattr(env, "sim", None)
        if not isinstance(simulation, Simulation) or simulation.num_envs != num_envs:
            raise ConfigError(f"{where}: must make a simulation of {num_envs} environments and keep it as `sim`")
        for name in self.measures:
            if not hasattr(env, name):
                raise ConfigError(f"task.env.measures={name}: {self.task_class.__name__} has no such attribute")
        return env, numbers


class GymPool(EnvironmentPool):
    """`num_envs` environments of one instance of the class.

    Their code always computes all rows, but the engine steps the active ones alone. The other rows are put back after a
    step. So a frozen environment goes on later where it was.

    Attributes:
        env: the instance.
    """

    task: GymTask

    def __init__(
        self,
        task: GymTask,
        origin: Origin,
        simulator: Mapping[str, Any],
        num_envs: int,
        seed: int,
        reward_factor: float = 1.0,
    ) -> None:
        """Build the environments and begin an episode in each.

        Args:
            task: what the class says of itself.
            origin: how it is built.
            simulator: settings of the engine; its `substeps` are those that the class sets.
            num_envs: environments.
            seed: of all that their code draws, in its constructor too.
            reward_factor: factor on the class's reward.
        """
        self._origin = origin
        self._session = dataclasses.replace(origin.session, engine=simulator["name"], settings=simulator)
        announce(task.name, self._session)
        self.env, self._numbers = origin.build(self._session, num_envs, seed)
        self._simulation: Simulation = self.env.sim
        super().__init__(self._simulation.simulator, task, seed, reward_factor=reward_factor)
        self._rows = Rows(self.env, num_envs)

    def seed(self, seed: int) -> None:
        """Restart the random numbers that their code draws."""
        self._numbers.seed(seed)

    def reset_all(self) -> None:
        """Begin a new episode everywhere."""
        with self._inside(self.num_envs):
            self._take(self._origin.style.reset_all(self.env), self.observations)
        self._episode_return.zero_()
        self.episode_step.zero_()

    def adopt(self, source: EnvironmentPool, rows: Tensor) -> None:
        """Refused: the class cannot be put into a state."""
        self.task.refuse("states of another pool")

    def start_step(self, actions: Tensor) -> None:
        """Take over the actions; the step itself is one call of their code."""
        self._n = len(actions)
        self._actions[: self._n] = actions

    def finish_step(self) -> None:
        """Let their code step, and read what it says."""
        with self._stopwatch:
            n = self._n
            with self._inside(n):
                step = self._origin.style.step(self.env, self._actions.clone())
                failed = self._simulation.failed[:n].clone()
                self._settle(step, n, failed)
                if failed.any():
                    self._origin.style.end(self.env, failed.nonzero().squeeze(1))
                    self._simulation.failed.zero_()
        self._stopwatch.end_lap()

    def _settle(self, step: Step, n: int, failed: Tensor) -> None:
        """Take over a step's observations, rewards and ends, and book them."""
        if step.last is None:
            self.final_observations[:n] = self.observations[:n]
            say_once(
                "the last observation of an episode is lost to its class's reset: the one before it stands for it, as "
                "in rsl_rl"
            )
        else:
            self._take(step.last, self.final_observations[:n])
        self._take(step.shown, self.observations[:n])
        self._pay({"reward": step.reward[:n]}, failed)
        torch.logical_and(step.ended[:n], step.timed_out[:n] & ~failed, out=self.truncated[:n])
        torch.logical_or(step.ended[:n] & ~step.timed_out[:n], failed, out=self.terminated[:n])
        self.measured = {name: self._measured(name)[:n].clone().float() for name in self._origin.measures}
        if self.measured:
            self._measure_means.add(self.measured, torch.stack(list(self.measured.values())))
        self._book(n, failed)

    def _book(self, n: int, failed: Tensor) -> None:
        """Count steps, failures and the episodes that ended."""
        self.episode_step[:n] += 1
        self._episode_return[:n] += self.reward[:n]
        self._failures += failed.sum()
        self._env_steps += n
        ids = (self.terminated[:n] | self.truncated[:n]).nonzero().squeeze(1)
        if len(ids):
            self._finished.append((self._episode_return[ids], self.episode_step[ids]))
            self._episode_return[ids] = 0.0
            self.episode_step[ids] = 0

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on, but for properties of actors that their code changes after construction."""
        return {
            "simulation": self._simulation.state_dict(),
            "environments": [[list(path), value] for path, value in remembered(self.env).items()],
            "random_numbers": self._numbers.state_dict(),
            "observations": self.observations,
            "episode_return": self._episode_return,
            "episode_step": self.episode_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a pool of the same class, configuration, engine and size."""
        self._simulation.load_state_dict(state["simulation"])
        remember(self.env, {tuple(path): value for path, value in state["environments"]})
        self._numbers.load_state_dict(state["random_numbers"])
        self.observations.copy_(state["observations"])
        self._episode_return.copy_(state["episode_return"])
        self.episode_step.copy_(state["episode_step"])

    @contextmanager
    def _inside(self, n: int) -> Iterator[None]:
        """Around calls of their code: this pool's engine and random numbers, and only the first n rows move."""
        frozen = self._rows.beyond(n) if n < self.num_envs else None
        with ExitStack() as stack:
            stack.enter_context(using(self._session))
            stack.enter_context(self._numbers.drawn())
            stack.enter_context(torch.no_grad())
            self._simulation.active = n
            yield
            self._simulation.active = None
            self.simulator = self._simulation.simulator  # properties that they set may have made it anew
        if frozen is not None:
            self._rows.put_back(n, frozen)

    def _take(self, shown: Shown, out: Tensor) -> None:
        """Copy the first rows of what is shown to `out`, the critic's own columns last."""
        n, columns = len(out), self.task.num_observations - self.task.num_privileged
        out[:, :columns] = shown.observations[:n]
        if shown.privileged is not None:
            out[:, columns:] = shown.privileged[:n]

    def _measured(self, name: str) -> Tensor:
        value = getattr(self.env, name)
        found: Tensor = value() if callable(value) else value
        if found.shape != (self.num_envs,):
            raise ConfigError(f"task.env.measures={name}: is of shape {tuple(found.shape)}, not ({self.num_envs},)")
        return found
