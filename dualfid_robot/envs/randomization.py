"""Domain randomisation: what differs between worlds and from episode to episode (docs/randomization.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require
from dualfid_robot.simulators.base import Simulator, parameter_problem, parameter_shape

_WHERE = "task.randomization"
# Settings that are parameters of the engine, drawn for every world. All but two are factors on the asset's values.
_FACTORS = ("friction", "mass", "damping", "servo_stiffness", "servo_damping", "motor_strength")
_PARAMETERS = (*_FACTORS, "com", "gravity")


@dataclass(frozen=True)
class Range:
    """Values between two bounds, drawn uniformly, or so that their logarithm is uniform."""

    range: tuple[float, ...]
    distribution: Literal["uniform", "loguniform"] = "uniform"

    def __post_init__(self) -> None:
        bounds = list(self.range)
        ordered = len(bounds) == 2 and -math.inf < bounds[0] <= bounds[1] < math.inf
        require(ordered, "range", bounds, "two finite numbers, the lower one first")
        logarithmic = self.distribution == "loguniform"
        require(not logarithmic or bounds[0] > 0.0, "range", bounds, "positive where the distribution is loguniform")

    def __str__(self) -> str:
        low, high = self.range
        return f"{self.distribution} in [{low:g}, {high:g}]"

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Float32 values of a shape, on the generator's device. Equal bounds draw nothing."""
        low, high = self.range
        if low == high:
            return torch.full(shape, low, device=generator.device)
        share = torch.rand(shape, generator=generator, device=generator.device)
        if self.distribution == "loguniform":
            return (math.log(low) + math.log(high / low) * share).exp_().clamp_(low, high)
        return (low + (high - low) * share).clamp_(low, high)


@dataclass(frozen=True)
class PushConfig:
    """Sudden changes of the root's horizontal velocity, in a direction drawn uniformly.

    Attributes:
        interval: time between two pushes of a world, s.
        velocity: magnitude of the change, m/s.
    """

    interval: Range
    velocity: Range

    def __post_init__(self) -> None:
        require(self.interval.range[0] > 0.0, "interval.range", list(self.interval.range), "positive")
        require(self.velocity.range[0] >= 0.0, "velocity.range", list(self.velocity.range), "at least 0")


@dataclass(frozen=True)
class RandomizationConfig:
    """What is randomised: `task.randomization` of a task's YAML. An absent entry randomises nothing.

    Attributes:
        friction, damping: factor of the whole world.
        mass: factor of each body, shared by bodies without a joint between them.
        com: shift of each body's centre of mass along each axis of the body, m.
        servo_stiffness, servo_damping, motor_strength: factor of each actuator.
        gravity: acceleration added along each axis of the world, m/s².
        slope: inclination of the ground along x, degrees, positive if it rises towards +x. The world's axes stay the
            ground's, so gravity turns instead, about y.
        latency: age of the action that becomes the control, whole control steps.
        action_noise: standard deviation of Gaussian noise on every action that becomes a control.
        observation_noise: standard deviation of Gaussian noise by term, in the unit of the term's raw value.
        push: sudden changes of the root's velocity.
    """

    friction: Range | None = None
    mass: Range | None = None
    com: Range | None = None
    damping: Range | None = None
    servo_stiffness: Range | None = None
    servo_damping: Range | None = None
    motor_strength: Range | None = None
    gravity: Range | None = None
    slope: Range | None = None
    latency: Range | None = None
    action_noise: float = 0.0
    observation_noise: dict[str, float] = field(default_factory=dict)
    push: PushConfig | None = None

    def __post_init__(self) -> None:
        for name in _FACTORS:
            limits = getattr(self, name)
            if limits is not None:
                least, allowed = (limits.range[0], "positive" if name == "mass" else "at least 0")
                require(least > 0.0 or (name != "mass" and least == 0.0), f"{name}.range", list(limits.range), allowed)
        if self.slope is not None:
            bounds = list(self.slope.range)
            require(bounds[0] > -90.0 and bounds[1] < 90.0, "slope.range", bounds, "within (-90, 90) degrees")
        if self.latency is not None:
            bounds = list(self.latency.range)
            whole = bounds[0] >= 0.0 and all(bound.is_integer() for bound in bounds)
            require(whole, "latency.range", bounds, "whole numbers of at least 0")
            distribution = self.latency.distribution
            require(distribution == "uniform", "latency.distribution", distribution, "uniform")
        require(0.0 <= self.action_noise < math.inf, "action_noise", self.action_noise, "a finite number of at least 0")

    @property
    def parameters(self) -> dict[str, Range]:
        """The ranges of the engine's parameters, by name."""
        return {name: limits for name in _PARAMETERS if (limits := getattr(self, name)) is not None}

    @property
    def engine_ranges(self) -> dict[str, Range]:
        """The ranges of what is set in the engine, by name: its parameters and the slope."""
        return self.parameters | ({"slope": self.slope} if self.slope else {})

    def __str__(self) -> str:
        ranges = self.engine_ranges | ({"latency": self.latency} if self.latency else {})
        parts = [f"{name} {limits}" for name, limits in ranges.items()]
        if self.action_noise:
            parts.append(f"action_noise {self.action_noise:g}")
        parts += [f"observation_noise.{name} {deviation:g}" for name, deviation in self.observation_noise.items()]
        if self.push is not None:
            parts.append(f"push by {self.push.velocity} m/s every {self.push.interval} s")
        return ", ".join(parts) or "nothing"


class Randomization:
    """What a pool draws for its worlds. Parameters, latency and times of pushes hold for an episode, noise for a step.

    Attributes:
        values: what was drawn for the episode of each world, by name, (N, …). Parameters are as in the settings, so
            gravity is the acceleration added. The slope is (N,) degrees, the latency (N,) int64.
    """

    def __init__(
        self,
        config: RandomizationConfig,
        task: Task,
        engine: type[Simulator],
        num_worlds: int,
        robot: RobotModel | None = None,
    ) -> None:
        """Allocate for `num_worlds` worlds.

        Args:
            robot: the engine's, if it is not the task's. Its gravity may differ.

        Raises:
            ConfigError: something that the engine, the robot or the task does not have.
        """
        _check(config, task, engine)
        self.config = config
        self._task = task
        self._num_worlds, self._device = num_worlds, task.device
        model = (robot or task.robot).model
        self._shapes = {name: parameter_shape(task.robot, name) for name in config.parameters}
        self._weld = torch.from_numpy(np.maximum(model.body_weldid[1:] - 1, 0)).to(self._device, torch.int64)
        self._gravity = torch.from_numpy(model.opt.gravity).to(self._device, torch.float32)
        self.values = {name: self._zeros(*self._shapes[name]) for name in config.parameters}
        if config.slope is not None:
            self.values["slope"] = self._zeros()
        self._rows = torch.arange(num_worlds, device=self._device)
        if config.latency is not None:
            self.values["latency"] = self._zeros(dtype=torch.int64)
            self._actions = self._zeros(int(config.latency.range[1]) + 1, task.num_actions)
        self._next_push = self._zeros(dtype=torch.int32)
        noisy = [(term, float(config.observation_noise.get(term.name, 0.0))) for term in task.terms]
        self._noisy_terms = [(term.name, term.size) for term, deviation in noisy if deviation > 0.0]
        deviations = [deviation for term, deviation in noisy if deviation > 0.0 for _ in range(term.size)]
        self._deviations = torch.tensor(deviations, device=self._device)

    def begin_episode(self, simulator: Simulator, ids: Tensor, generator: torch.Generator) -> None:
        """Draw anew for the worlds `ids` (k,), before their new state is set."""
        config, k = self.config, len(ids)
        for name, limits in config.parameters.items():
            values = limits.sample((k, *self._shapes[name]), generator)
            self.values[name][ids] = values[:, self._weld] if name == "mass" else values
        parameters = {name: self.values[name][ids] for name in config.parameters}
        if config.slope is not None:
            self.values["slope"][ids] = config.slope.sample((k,), generator)
        if config.slope is not None or "gravity" in parameters:
            parameters["gravity"] = self._total_gravity(ids)
        if parameters:
            simulator.set_parameters(ids, parameters)
        if config.latency is not None:
            low, high = (int(bound) for bound in config.latency.range)
            drawn = torch.randint(low, high + 1, (k,), generator=generator, device=self._device) if low < high else low
            self.values["latency"][ids] = drawn
            self._actions[ids] = 0.0
        if config.push is not None:
            self._next_push[ids] = self._push_interval(k, generator)

    def disturb(self, actions: Tensor, step: Tensor, generator: torch.Generator) -> Tensor:
        """The actions that become controls: delayed, then noisy, then clipped.

        Args:
            actions: (n, num_actions), clipped actions of the first n worlds.
            step: (n,) steps of their episodes so far. Before the first action of an episode all were 0.
        """
        n = len(actions)
        if self.config.latency is not None:
            slots, rows = self._actions.shape[1], self._rows[:n]
            self._actions[rows, step % slots] = actions
            actions = self._actions[rows, (step - self.values["latency"][:n]) % slots]
        if self.config.action_noise:
            noise = torch.randn(actions.shape, generator=generator, device=self._device)
            actions = self._task.clip_action(noise.mul_(self.config.action_noise).add_(actions))
        return actions

    def push(self, simulator: Simulator, step: Tensor, generator: torch.Generator) -> None:
        """Push those of the first n worlds whose time has come.

        Args:
            step: (n,) steps of their episodes so far.
        """
        if self.config.push is None:
            return
        n = len(step)
        due = step >= self._next_push[:n]
        if simulator.RESETS_BY_MASK:
            qvel, interval = self._pushed(simulator.qvel[:n], generator)
            simulator.set_state_where(due, simulator.qpos[:n], qvel)
            torch.where(due, step + interval, self._next_push[:n], out=self._next_push[:n])
        elif len(ids := due.nonzero().squeeze(1)):
            qvel, interval = self._pushed(simulator.qvel[ids], generator)
            simulator.set_state(ids, simulator.qpos[ids], qvel)
            self._next_push[ids] = step[ids] + interval

    def add_noise(self, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        """Replace raw values by noisy ones, of the terms that have noise."""
        if self._noisy_terms:
            n = len(observed[self._noisy_terms[0][0]])
            noise = torch.randn(n, len(self._deviations), generator=generator, device=self._device)
            parts = noise.mul_(self._deviations).split([size for _, size in self._noisy_terms], 1)
            for (name, _), part in zip(self._noisy_terms, parts, strict=True):
                observed[name] = part + observed[name].reshape(part.shape)

    def means(self) -> dict[str, float]:
        """Mean over all worlds of what was drawn for their present episodes. The host waits for the device."""
        means = [values.mean(dtype=torch.float64) for values in self.values.values()]
        return dict(zip(self.values, torch.stack(means).tolist(), strict=True)) if means else {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on. The engine's own snapshot holds its parameters."""
        state: dict[str, Any] = {"values": self.values, "next_push": self._next_push}
        return state | ({} if self.config.latency is None else {"actions": self._actions})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of the same settings and size."""
        for name, values in self.values.items():
            values.copy_(state["values"][name])
        self._next_push.copy_(state["next_push"])
        if self.config.latency is not None:
            self._actions.copy_(state["actions"])

    def _total_gravity(self, ids: Tensor) -> Tensor:
        """Gravity (k, 3) in the frame of the ground: the model's, turned by the slope, plus what is added."""
        total = self._gravity.repeat(len(ids), 1)
        if "slope" in self.values:
            angle = torch.deg2rad(self.values["slope"][ids])
            x, y, z = total.unbind(1)
            total = torch.stack((x * angle.cos() + z * angle.sin(), y, z * angle.cos() - x * angle.sin()), 1)
        return total + self.values["gravity"][ids] if "gravity" in self.values else total

    def _pushed(self, qvel: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Velocities (k, nv) after a push, and steps (k,) until the next one."""
        assert self.config.push is not None
        k = len(qvel)
        angle = torch.rand(k, generator=generator, device=self._device).mul_(2.0 * math.pi)
        change = self.config.push.velocity.sample((k,), generator)[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
        return torch.cat((qvel[:, :2] + change, qvel[:, 2:]), 1), self._push_interval(k, generator)

    def _push_interval(self, k: int, generator: torch.Generator) -> Tensor:
        assert self.config.push is not None
        seconds = self.config.push.interval.sample((k,), generator)
        return (seconds / self._task.control_dt).round_().clamp_(min=1.0).to(torch.int32)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self._num_worlds, *shape, dtype=dtype, device=self._device)


def _check(config: RandomizationConfig, task: Task, engine: type[Simulator]) -> None:
    """Raise ConfigError for what the engine, the robot or the task does not have."""
    robot = task.robot
    for name, limits in config.engine_ranges.items():
        parameter = "gravity" if name == "slope" else name
        if parameter not in engine.SUPPORTED_PARAMETERS:
            allowed = sorted({*engine.SUPPORTED_PARAMETERS} & {*_PARAMETERS})
            what = "it, which turns gravity," if name == "slope" else "it"
            raise ConfigError(
                f"{_WHERE}.{name}={list(limits.range)}: engine {engine.name()} cannot set {what} per world; "
                f"allowed are {allowed}"
            )
        problem = parameter_problem(robot, parameter)
        if problem is not None:
            raise ConfigError(f"{_WHERE}.{name}={list(limits.range)}: {problem}; allowed is null")
    if config.push is not None and not robot.floating_base:
        raise ConfigError(f"{_WHERE}.push: the base of {robot.path.name} is fixed; allowed is null")
    terms = [term.name for term in task.terms]
    for term, deviation in config.observation_noise.items():
        key = f"{_WHERE}.observation_noise.{term}"
        if term not in terms:
            raise ConfigError(f"{key}={deviation}: no such term; allowed are {terms}")
        require(0.0 <= deviation < math.inf, key, deviation, "a finite number of at least 0")
