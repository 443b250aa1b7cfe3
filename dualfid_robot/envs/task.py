"""The contract of a task: pure functions of the state, declared by name, without any engine.

A task file in `tasks/` defines one subclass of `Task`. The observation is an ordered list of named terms. The action is
a declared mapping to control units. One declaration serves every engine, the exporter and a robot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.command import Command
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require


@dataclass(frozen=True)
class Term:
    """One named part of the observation.

    Attributes:
        name: unique within the task.
        size: number of columns of one value.
        scale: factor applied to the raw value.
        unit: unit of the raw value.
        frame: frame in which it is expressed, where that matters.
        history: number of values shown, of this and the steps before, oldest first. In an episode's first steps its
            first value stands for the missing ones.
    """

    name: str
    size: int
    scale: float = 1.0
    unit: str = "1"
    frame: str = ""
    history: int = 1

    @property
    def columns(self) -> int:
        """Columns that the term takes in the observation."""
        return self.size * self.history


@dataclass(frozen=True)
class ActionMapping:
    """How an action becomes a control, per actuator:

        control = scale * clip(action, -clip, clip) + offset                          or, if cumulative,
        control = limit(previous control + scale * clip(action, -clip, clip)),

    where limit is the actuator's `ctrlrange` and the first previous control is `Task.initial_control`.

    Attributes:
        kind: what a control means, such as "torque" or "joint position". The asset's actuators have gear, gains and
            limits.
        scale, offset: one number, or one per actuator.
        cumulative: whether an action changes the control instead of naming it.
    """

    kind: str
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    clip: float = 1.0
    cumulative: bool = False


@dataclass
class State:
    """What a task may look at, for n worlds (see `simulators.base` for frames and units).

    Attributes:
        qpos: (n, nq).
        qvel: (n, nv).
        contact_wrench: (n, len(contact_bodies), 6).
        action: (n, nu), the clipped action that led here, zero after a reset.
        control: (n, nu), the control that it became, the initial control after a reset.
        step: (n,) int32, steps since the episode began, the one that led here included.
        memory: (n, columns) of each name of `Task.memory`.
        parameters: what domain randomisation drew for the episode, by name, for privileged terms
            (docs/randomization.md). A name is absent if nothing is drawn for it.
    """

    qpos: Tensor
    qvel: Tensor
    contact_wrench: Tensor
    action: Tensor
    control: Tensor
    step: Tensor
    memory: dict[str, Tensor] = field(default_factory=dict)
    parameters: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, ids: Tensor) -> State:
        """The state of some of the worlds."""
        return State(
            self.qpos[ids],
            self.qvel[ids],
            self.contact_wrench[ids],
            self.action[ids],
            self.control[ids],
            self.step[ids],
            {name: values[ids] for name, values in self.memory.items()},
            {name: values[ids] for name, values in self.parameters.items()},
        )


class Start(NamedTuple):
    """How n episodes begin: qpos (n, nq), qvel (n, nv), and (n, columns) of each name of `Task.memory`."""

    qpos: Tensor
    qvel: Tensor
    memory: dict[str, Tensor]


@dataclass(frozen=True)
class TaskConfig:
    """Settings of every task, under IsaacGymEnvs' names.

    Attributes:
        numEnvs: number of environments N when `num_envs` is not given.
        episodeLength: control steps after which an episode is truncated.
        clipObservations: bound on each scaled observation.
        clipActions: bound on each action.
    """

    numEnvs: int
    episodeLength: int
    clipObservations: float = 5.0
    clipActions: float = 1.0

    def __post_init__(self) -> None:
        for key in ("numEnvs", "episodeLength", "clipObservations", "clipActions"):
            require(getattr(self, key) > 0, key, getattr(self, key), "positive")


class Task(ABC):
    """A task: observation, action, reward, termination and initial states as batched functions.

    Between steps a task keeps only what it declares as `memory`, such as a command or a curriculum's level. The pool
    holds memory for every world, freezes it with the world, and saves it with a checkpoint.

    An exporter traces all functions except those that begin episodes (docs/policy_format.md). Traced functions compute
    with torch alone. They take sizes from `x.shape` and decide by `torch.where`, not by `if`.

    Attributes:
        Config: dataclass of the settings under `task.env` of the task's YAML.
        contact_bodies: bodies whose contact wrench the task looks at.
        memory: columns of each named quantity that a world carries from step to step (float32).
        terms: the observation, in order.
        privileged_terms: what only the critic sees, behind the terms.
        action_mapping: from actions to controls.
        commands: which numbers of its memory are an operator's where the policy runs on a robot.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    contact_bodies: ClassVar[tuple[str, ...]] = ()
    memory: ClassVar[Mapping[str, int]] = {}
    terms: tuple[Term, ...]
    privileged_terms: tuple[Term, ...] = ()
    action_mapping: ActionMapping
    commands: tuple[Command, ...] = ()

    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        self.config = config
        self.robot = robot
        self.control_dt = control_dt
        self.device = torch.device(device)

    @property
    def num_observations(self) -> int:
        """Columns of the observation, privileged ones included."""
        return sum(term.columns for term in (*self.terms, *self.privileged_terms))

    @property
    def num_privileged(self) -> int:
        """The last so many columns of the observation are for the critic alone."""
        return sum(term.columns for term in self.privileged_terms)

    @property
    def num_actions(self) -> int:
        """Columns of the action: one per actuator, in the model's order."""
        return len(self.robot.actuator_names)

    @abstractmethod
    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Initial qpos (n, nq) and qvel (n, nv) of n episodes."""

    def begin_episode(self, last: State, generator: torch.Generator) -> Start:
        """Begin new episodes in n worlds, by default from `sample_initial_state` with memory of zeros.

        Args:
            last: how the worlds' last episodes ended, for curricula. `last.step` is 0 for a first episode. Its
                `parameters` are already those of the new episodes.
        """
        n = len(last.qpos)
        memory = {name: torch.zeros(n, columns, device=self.device) for name, columns in self.memory.items()}
        return Start(*self.sample_initial_state(n, generator), memory)

    @abstractmethod
    def observe(self, state: State) -> dict[str, Tensor]:
        """The raw value of each term, (n, size), or (n,) for size 1. Further quantities for the reward may be added
        under names that are no terms."""

    @abstractmethod
    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        """(n,) bool: the episode ends here for good (not by its time limit)."""

    @abstractmethod
    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        """Terms of the reward for the step from `previous_qpos` to `state`, by name, (n,) float32 each.

        The reward is their sum. Every call gives the same names. A cost is negative. Terms are logged as
        `reward/<name>/<low|high>`, so a name holds no "/". See `envs.reward` for rewards that are clipped or replaced.
        """

    def advance(  # noqa: B027
        self, state: State, observed: dict[str, Tensor], generator: torch.Generator
    ) -> None:
        """Move `state.memory` on, in place, after the reward and before the observation is shown. Replace entries of
        `observed` that were computed from it. By default memory stays as it is."""

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Figures of merit besides the return, (n,) each, such as a tracking error in m/s. Every call returns new
        tensors under the same names. They are taken together with the reward."""
        return {}

    def clip_action(self, action: Tensor) -> Tensor:
        """Actions within the mapping's bounds."""
        return action.clamp(-self.action_mapping.clip, self.action_mapping.clip)

    def initial_control(self, qpos: Tensor) -> Tensor:
        """Controls (n, nu) before the first action of episodes that begin at qpos (n, nq): by default the offset."""
        return self._offset.expand(qpos.shape[0], -1)

    def control(self, clipped_action: Tensor, previous: Tensor) -> Tensor:
        """Controls (n, nu) in actuator units.

        Args:
            clipped_action: (n, nu).
            previous: (n, nu), the controls of the step before.
        """
        mapping = self.action_mapping
        if mapping.cumulative:
            return torch.addcmul(previous, clipped_action, self._scale).clamp_(*self._control_range)
        if mapping.offset == 0.0:
            return clipped_action if mapping.scale == 1.0 else clipped_action * self._scale
        return torch.addcmul(self._offset, clipped_action, self._scale)

    def write_observation(self, observed: Mapping[str, Tensor], out: Tensor, first: bool) -> None:
        """Scale the terms, put them in their declared order into `out` and clip.

        Args:
            out: (n, num_observations), the observations of the step before, of which the histories are kept.
            first: whether these are the first observations of their episodes.
        """
        layout = self._layout
        if not layout.histories:
            self._newest_values(layout, observed, out)
            return
        newest = self._newest_values(layout, observed)
        if first:
            torch.index_select(newest, 1, layout.fill, out=out)
        else:
            out.index_copy_(1, layout.older, out.index_select(1, layout.next))
            out.index_copy_(1, layout.newest, newest)

    def newest_values(self, observed: Mapping[str, Tensor]) -> Tensor:
        """The terms (n, values) without privileged ones and histories, otherwise as `write_observation` shows them."""
        return self._newest_values(self._actor_layout, observed)

    def _newest_values(self, layout: _Layout, observed: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        bound = self.config.clipObservations
        n = observed[layout.terms[0][0]].shape[0]
        values = [observed[name].reshape(n, size) for name, size in layout.terms]
        return torch.cat(values, 1, out=out).mul_(layout.scale).clamp_(-bound, bound)

    @cached_property
    def _layout(self) -> _Layout:
        return _Layout((*self.terms, *self.privileged_terms), self.device)

    @cached_property
    def _actor_layout(self) -> _Layout:
        return _Layout(self.terms, self.device)

    @cached_property
    def _scale(self) -> Tensor:
        return self._per_actuator(self.action_mapping.scale)

    @cached_property
    def _offset(self) -> Tensor:
        return self._per_actuator(self.action_mapping.offset)

    @cached_property
    def _control_range(self) -> tuple[Tensor, Tensor]:
        model = self.robot.model
        limits = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, (-np.inf, np.inf))
        lower, upper = torch.from_numpy(limits).to(self.device, torch.float32).unbind(1)
        return lower, upper

    def _per_actuator(self, value: float | tuple[float, ...]) -> Tensor:
        return torch.tensor(value, dtype=torch.float32, device=self.device).expand(self.num_actions)


class _Layout:
    """Where the values of terms go in an observation.

    Attributes:
        terms: name and size of each, in order.
        scale: (values,) their scales, one per column of all newest values side by side.
        histories: whether a term has any. Without histories the order says all.
        fill: (columns,) which newest value each column of an episode's first observation takes.
        older: the columns that hold values of steps before; next: the columns of the values one step younger.
        newest: (values,) the columns of the newest values.
    """

    def __init__(self, terms: Sequence[Term], device: torch.device) -> None:
        self.terms = [(term.name, term.size) for term in terms]
        self.scale = torch.tensor([term.scale for term in terms for _ in range(term.size)], device=device)
        self.histories = any(term.history > 1 for term in terms)
        sizes = torch.tensor([(term.size, term.columns) for term in terms])
        starts = (sizes.cumsum(0) - sizes).tolist()
        parts = []
        for term, (value, column) in zip(terms, starts, strict=True):
            columns = torch.arange(column, column + term.columns).view(term.history, term.size)
            fill = torch.arange(value, value + term.size).repeat(term.history)
            parts.append((fill, columns[:-1].flatten(), columns[1:].flatten(), columns[-1]))
        self.fill, self.older, self.next, self.newest = (
            torch.cat(part).to(device) for part in zip(*parts, strict=True)
        )


def uniform(n: int, size: int, half_width: float, generator: torch.Generator) -> Tensor:
    """(n, size) uniform in [-half_width, half_width)."""
    return (torch.rand(n, size, generator=generator, device=generator.device) * 2 - 1) * half_width
