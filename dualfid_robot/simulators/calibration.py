"""Fit a coarse engine's free parameters to a reference engine, from the same states and controls.

Scripted controls drive the reference from a standing start. They are white noise, held random values and oscillations,
with amplitudes from none to full. The reference's motion is cut into windows. Each is a state, the controls of the next
ten periods, and what the reference made of them. The coarse engine is put into each window's first state and given the
same controls. The fit makes its error after 1, 5 and 10 periods small, relative to how much the reference has changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.robots.contacts import touching_bodies
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import make_simulator

HORIZONS = (1, 5, 10)
"""Control periods after which the engines are compared, with equal weight."""

_STRIDE = 20
_WORST = 5.0  # a relative error beyond this counts as this: one lost window must not decide the fit


@dataclasses.dataclass(frozen=True)
class Fit:
    """What `calibrate` found.

    Attributes:
        values: the fitted settings of the engine, chosen ones included.
        before, after: the residual (see `residual`) with what was in force, all its settings included, and with the
            fit.
        cost: of a step, relative to the reference.
    """

    values: dict[str, float]
    before: dict[str, float]
    after: dict[str, float]
    cost: float

    @property
    def is_better(self) -> bool:
        """Whether it is nearer to the reference than what was in force."""
        return self.after["all"] < self.before["all"]


def calibrate(
    windows: Windows,
    robot: RobotModel,
    reference: Mapping[str, Any],
    engine: Mapping[str, Any],
    control_dt: float,
    bounds: Mapping[str, tuple[float, float]],
    choices: Mapping[str, Sequence[int]],
    cost_bound: float,
    in_force: Mapping[str, Any],
    report: Callable[[str], None] = lambda line: None,
    say: Callable[[str], None] = lambda stage: None,
) -> Fit:
    """Choose the discrete settings that the cost bound allows, then fit the continuous ones.

    Args:
        engine: configuration of the coarse engine; the search starts from it.
        bounds: settings to fit, and between what.
        choices: values to try for each discrete setting.
        cost_bound: largest cost of a step, relative to the reference's. If every combination costs more, the discrete
            settings in force stay.
        in_force: configuration of the coarse engine that the fit would take the place of.
        report: takes a line of what was found now and then.
        say: takes a name of what begins now.
    """
    # The discrete settings: the nearest to the reference of those that the bound allows.
    present = {key: in_force[key] for key in choices}
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    combinations += [present] * (present not in combinations)
    tried = []
    for number, chosen in enumerate(combinations, 1):
        say(f"discrete settings, {number} of {len(combinations)}")
        cost = relative_cost(windows, robot, reference, {**engine, **chosen}, control_dt)
        error = residual(windows, robot, {**engine, **chosen}, control_dt)["all"]
        report(f"{_words(chosen)}: costs {cost:.2f} of the reference, residual {error:.3f}")
        tried.append((error, cost, chosen))
    allowed = [entry for entry in tried if entry[1] <= cost_bound]
    if not allowed:
        report(f"every combination costs more than cost_bound={cost_bound:g}, so these stay: {_words(present)}")
        allowed = [entry for entry in tried if entry[2] == present]
    _, cost, chosen = min(allowed, key=lambda entry: entry[0])

    # The continuous ones.
    fixed = {**engine, **chosen}
    values: dict[str, float] = {}
    trials = itertools.count(1)

    def error_of(trial: dict[str, float]) -> float:
        say(f"continuous settings, trial {next(trials)}")
        return residual(windows, robot, {**fixed, **trial}, control_dt)["all"]

    for values, error in fit(
        error_of,
        {name: engine[name] for name in bounds},
        bounds,
    ):
        report(f"residual {error:.4f} at " + _words(values))
    values = {name: float(f"{value:.4g}") for name, value in values.items()}

    # What they are worth, rounded as they are written, beside what was in force.
    before = residual(windows, robot, in_force, control_dt)
    after = residual(windows, robot, {**fixed, **values}, control_dt)
    return Fit({**chosen, **values}, before, after, cost)


def _words(settings: Mapping[str, float]) -> str:
    """Settings for a reader."""
    return ", ".join(f"{name} {value:.4g}" for name, value in settings.items())


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of the reference's motion; w windows of h = max(HORIZONS) control periods.

    Attributes:
        qpos: (w, h + 1, nq) states at the borders of the periods.
        qvel: (w, h + 1, nv).
        ctrl: (w, h, nu).
        wrench: (w, h, feet, 6) contact wrenches of `measured_feet` at the end of each period.
    """

    qpos: Tensor
    qvel: Tensor
    ctrl: Tensor
    wrench: Tensor

    def __len__(self) -> int:
        return len(self.qpos)


Controller = Callable[[Tensor, Tensor, int], Tensor]
"""Controls (n, nu) from qpos, qvel and the number of the period."""


def collect(
    robot: RobotModel,
    reference: Mapping[str, Any],
    control_dt: float,
    num_worlds: int = 256,
    periods: int = 200,
    max_windows: int = 1024,
    seed: int = 0,
    controller: Controller | None = None,
) -> Windows:
    """Drive the reference engine and cut its motion into windows.

    Windows in which a body other than a foot touches something are left out. An engine with contacts of feet alone
    cannot follow them.

    Args:
        reference: configuration of the reference engine, as `make_simulator` takes it.
        periods: control periods for which it is driven.
        controller: what drives it. None means the scripted controls.
    """
    generator = torch.Generator().manual_seed(seed)
    soles = measured_feet(robot)
    bodies = soles + tuple(name for name in touching_bodies(robot.model) if name not in soles)
    simulator = make_simulator(reference, robot, num_worlds, control_dt, bodies)
    horizon, feet = max(HORIZONS), len(soles)
    controller = controller or _scripted(robot, num_worlds, control_dt, generator)
    simulator.set_state(torch.arange(num_worlds), *_starting_states(robot, num_worlds, generator))
    states, controls, wrenches, valid = [(simulator.qpos.clone(), simulator.qvel.clone())], [], [], []
    for period in range(periods):
        ctrl = controller(simulator.qpos, simulator.qvel, period)
        simulator.step(ctrl, num_worlds)
        states.append((simulator.qpos.clone(), simulator.qvel.clone()))
        controls.append(ctrl)
        wrenches.append(simulator.contact_wrench[:, :feet].clone())
        touched = simulator.contact_wrench[:, feet:].flatten(1).any(1)
        valid.append(~(touched | simulator.failed))
    simulator.close()
    qpos, qvel = (torch.stack([state[i] for state in states], 1) for i in (0, 1))
    ctrl, wrench, ok = torch.stack(controls, 1), torch.stack(wrenches, 1), torch.stack(valid, 1)

    parts: list[Windows] = []
    for start in range(0, periods - horizon + 1, _STRIDE):
        end = start + horizon
        keep = ok[:, start:end].all(1)
        borders, inner = slice(start, end + 1), slice(start, end)
        parts.append(Windows(qpos[keep, borders], qvel[keep, borders], ctrl[keep, inner], wrench[keep, inner]))
    fields = [field.name for field in dataclasses.fields(Windows)]
    every = [torch.cat([getattr(part, name) for part in parts]) for name in fields]
    chosen = torch.randperm(len(every[0]), generator=generator)[:max_windows]
    return Windows(*(values[chosen] for values in every))


def measured_feet(robot: RobotModel) -> tuple[str, ...]:
    """The bodies whose contact forces are compared: those that alone carry what a link's feet touch with."""
    if not robot.feet:
        return ()
    model = robot.model
    bodies = np.unique(model.geom_bodyid[list(robot.foot_geoms)])
    links, count = np.unique(model.body_weldid[bodies], return_counts=True)
    return tuple(str(model.body(body).name) for body in bodies if model.body_weldid[body] in links[count == 1])


def _starting_states(robot: RobotModel, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The model's own pose with joints near zero, dropped from up to 0.3 m, with a little speed."""
    model = robot.model
    qpos = torch.from_numpy(model.qpos0).float().repeat(n, 1)
    qvel = torch.randn(n, model.nv, generator=generator) * 0.3
    limits = torch.from_numpy(robot.joint_limits).float()
    joints = qpos[:, model.nq - len(limits) :]
    spread = (limits[:, 1] - limits[:, 0]).clamp(max=2.0) * 0.2
    joints += torch.randn(joints.shape, generator=generator) * spread
    joints.clamp_(limits[:, 0], limits[:, 1])
    if robot.floating_base:
        qpos[:, 2] += torch.rand(n, generator=generator) * 0.3
        qpos[:, 3:7] += torch.randn(n, 4, generator=generator) * 0.1
        qpos[:, 3:7] /= qpos[:, 3:7].norm(dim=1, keepdim=True)
    return qpos, qvel


def _scripted(robot: RobotModel, n: int, control_dt: float, generator: torch.Generator) -> Controller:
    """Noise, held random values and oscillations, a third of the worlds each, amplitudes spread over 0 to 1."""
    model = robot.model
    low, high = torch.from_numpy(model.actuator_ctrlrange).float().unbind(1)
    kind = torch.arange(n) % 3
    amplitude = torch.linspace(0, 1, n)[torch.randperm(n, generator=generator)][:, None]
    frequency = 0.5 + 2.5 * torch.rand(n, model.nu, generator=generator)
    phase = 2 * math.pi * torch.rand(n, model.nu, generator=generator)
    held = torch.zeros(n, model.nu)

    def control(qpos: Tensor, qvel: Tensor, period: int) -> Tensor:
        noise = 2 * torch.rand(n, model.nu, generator=generator) - 1
        renewed = torch.rand(n, generator=generator) < 0.1
        held[renewed] = noise[renewed]
        wave = torch.sin(2 * math.pi * frequency * period * control_dt + phase)
        values = torch.where((kind == 0)[:, None], noise, torch.where((kind == 1)[:, None], held, wave))
        return (low + high) / 2 + (high - low) / 2 * amplitude * values

    return control


def residual(windows: Windows, robot: RobotModel, engine: Mapping[str, Any], control_dt: float) -> dict[str, float]:
    """Relative error of an engine on the windows: 0 is perfect, 1 as wrong as supposing that nothing changes.

    Returns:
        The mean over windows of each quantity at each horizon, as "<quantity>/<periods>", and their mean as "all".
    """
    simulator = make_simulator(engine, robot, len(windows), control_dt, measured_feet(robot))
    try:
        return _residual(windows, robot, simulator)
    finally:
        simulator.close()


def _residual(windows: Windows, robot: RobotModel, simulator: Simulator) -> dict[str, float]:
    n = len(windows)
    simulator.set_state(torch.arange(n), windows.qpos[:, 0], windows.qvel[:, 0])
    wrench = torch.zeros_like(windows.wrench[:, 0])
    errors: dict[str, float] = {}
    for period in range(max(HORIZONS)):
        simulator.step(windows.ctrl[:, period], n)
        wrench += simulator.contact_wrench
        k = period + 1
        if k in HORIZONS:
            start = _quantities(robot, windows.qpos[:, 0], windows.qvel[:, 0])
            true = _quantities(robot, windows.qpos[:, k], windows.qvel[:, k])
            found = _quantities(robot, simulator.qpos, simulator.qvel)
            for name in true:
                errors[f"{name}/{k}"] = _relative(found[name], true[name], start[name])
            if windows.wrench.shape[2]:
                mean = windows.wrench[:, :k].mean(1)[..., :3].flatten(1)
                errors[f"foot force/{k}"] = _relative(wrench[..., :3].flatten(1) / k, mean, torch.zeros_like(mean))
    errors["all"] = sum(errors.values()) / len(errors)
    return errors


def relative_cost(
    windows: Windows,
    robot: RobotModel,
    reference: Mapping[str, Any],
    engine: Mapping[str, Any],
    control_dt: float,
    rounds: int = 5,
) -> float:
    """Seconds of the engine per second of the reference for the windows' motion. The two take turns."""
    n, seconds = len(windows), ([], [])  # type: tuple[int, tuple[list[float], list[float]]]
    simulators = [make_simulator(config, robot, n, control_dt, measured_feet(robot)) for config in (reference, engine)]
    for _ in range(rounds):
        for simulator, times in zip(simulators, seconds, strict=True):
            simulator.set_state(torch.arange(n), windows.qpos[:, 0], windows.qvel[:, 0])
            for period in range(max(HORIZONS)):
                started = time.perf_counter()
                simulator.step(windows.ctrl[:, period], n)
                times.append(time.perf_counter() - started)
    for simulator in simulators:
        simulator.close()
    return statistics.median(seconds[1]) / statistics.median(seconds[0])


def _quantities(robot: RobotModel, qpos: Tensor, qvel: Tensor) -> dict[str, Tensor]:
    if not robot.floating_base:
        return {"joint position": qpos, "joint velocity": qvel}
    # The third column and row of the rotation matrix would do for the direction; a quaternion's sign would not.
    w, x, y, z = qpos[:, 3:7].unbind(1)
    up = torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1)
    ahead = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1)
    return {
        "root position": qpos[:, :3],
        "root direction": torch.cat([up, ahead], 1),
        "root velocity": qvel[:, :3],
        "root rotation": qvel[:, 3:6],
        "joint position": qpos[:, 7:],
        "joint velocity": qvel[:, 6:],
    }


def _relative(found: Tensor, true: Tensor, start: Tensor) -> float:
    """Mean error over mean change, with a bound on what one window can contribute."""
    change = (true - start).norm(dim=1).mean()
    error = torch.nan_to_num((found - true).norm(dim=1) / change, nan=_WORST).clamp(max=_WORST)
    return float(error.mean())


def fit(
    error: Callable[[dict[str, float]], float],
    start: Mapping[str, float],
    bounds: Mapping[str, tuple[float, float]],
    finest: float = 0.02,
) -> Iterator[tuple[dict[str, float], float]]:
    """Compass search: try a step up and down in each parameter in turn, halve the step when none helps.

    Args:
        error: what to make small.
        start: the first point. A value outside its bounds is moved to them.
        bounds: of each parameter; positive ones are searched on a logarithmic scale.
        finest: size of the last steps, as a part of the distance between the bounds.

    Yields:
        Each better point and its error, the first point first.
    """
    scales = {name: _Scale(*pair) for name, pair in bounds.items()}
    best = {name: scale.to_unit(start[name]) for name, scale in scales.items()}
    value = {name: scale.from_unit(best[name]) for name, scale in scales.items()}
    least = error(value)
    yield value, least
    step, heading = 0.2, dict.fromkeys(scales, 1.0)
    while step >= finest:
        better = False
        for name, scale in scales.items():
            for direction in (heading[name], -heading[name]):
                trial = best | {name: min(max(best[name] + direction * step, 0.0), 1.0)}
                if trial[name] == best[name]:
                    continue
                found = error(value | {name: scale.from_unit(trial[name])})
                if found < least:
                    best, least, better, heading[name] = trial, found, True, direction
                    value = value | {name: scale.from_unit(trial[name])}
                    yield value, least
                    break
        if not better:
            step /= 2


@dataclasses.dataclass(frozen=True)
class _Scale:
    low: float
    high: float

    def to_unit(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.low > 0:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def from_unit(self, unit: float) -> float:
        if self.low > 0:
            return self.low * (self.high / self.low) ** unit
        return self.low + unit * (self.high - self.low)
