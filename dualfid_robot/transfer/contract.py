"""Do the engines mean the same? What a policy relies on, measured in each engine against MuJoCo's own step.

Every engine is built from one compiled model, so nothing should differ. This module measures what the engine does
instead of trusting its description. Robots are probed in the air, where engines agree up to their solvers' errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.foreign_task import ForeignTask, RobotTask
from dualfid_robot.envs.task import State, Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import counted
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import engine_class, make_simulator

PROBE_DT = 1e-5
"""Length of the step, s, after which states are read back: too short for forces to matter, but not for rounding."""
STATE_TOLERANCE = 1e-3
"""m, rad: of positions that are read back."""
VELOCITY_TOLERANCE = 0.01
"""m/s, rad/s: likewise. Forces act for the length of the probe, and engines treat damping and armature differently."""
OBSERVATION_TOLERANCE = 1e-2
"""Of scaled observations, per unit of velocity: as the velocities, but for their scales, which are below 1."""
LEAST_ALIGNMENT = 0.7
"""Cosine between an actuator's effect on all velocities and its effect in MuJoCo."""
PERIOD_TOLERANCE = 0.2
"""Of the measured control period, relative: damping and servos act during it."""

_STATES, _LIFT, _NOISE, _MARGIN = 8, 10.0, 0.05, 0.1  # states; m above where the task begins; rad or m at the joints


@dataclass(frozen=True)
class Contract:
    """What was measured in one engine.

    Attributes:
        simulator: its file in cfg/simulator.
        joints, actuators: how many there are.
        substeps: physics steps per control period.
        control_dt, measured_dt: control period as set, and as the robot's motion shows it, s.
        position, velocity: largest differences between states that were set and then read back, m or rad, and per
            second.
        default_pose: the same difference for positions of the model's initial state, with joints within their limits.
        alignment: the least cosine between an actuator's effect and its effect in MuJoCo.
        gain: least and greatest ratio of these effects' sizes.
        silent: actuators without an effect within the probe, because they are delayed or have a state of their own.
        columns: of the observation.
        observation: largest difference of the scaled observations of the same states.
        contact_terms: terms left out of `observation`, because they show contact forces, which differ between engines.
        problems: what breaks the contract.
    """

    simulator: str
    joints: int
    actuators: int
    substeps: int
    control_dt: float
    measured_dt: float
    default_pose: float
    position: float
    velocity: float
    alignment: float
    gain: tuple[float, float]
    silent: tuple[str, ...]
    columns: int
    observation: float
    contact_terms: tuple[str, ...]
    problems: tuple[str, ...]

    def line(self) -> str:
        """The measurements for a reader, in one line."""
        if self.problems:
            return f"{self.simulator}: contract broken: {'; '.join(self.problems)}"
        actuators = f"{counted(self.actuators, 'actuator')} in order"
        if self.actuators > len(self.silent):
            actuators += f" (cosine {self.alignment:.3f}, gain {self.gain[0]:.3g} to {self.gain[1]:.3g})"
        if self.silent:
            actuators += f", {len(self.silent)} of them delayed"
        without = f" but {', '.join(self.contact_terms)}" if self.contact_terms else ""
        period, physics, measured = (
            f"{1e3 * dt:.4g} ms" for dt in (self.control_dt, self.control_dt / self.substeps, self.measured_dt)
        )
        return (
            f"{self.simulator}: contract holds: {counted(self.joints, 'joint')} in order,"
            f" {actuators}, control period"
            f" {period} = {self.substeps} x {physics} (measured {measured}); differences from MuJoCo: default pose"
            f" {self.default_pose:.1g}, positions {self.position:.1g}, velocities {self.velocity:.1g},"
            f" observation of {self.columns} columns{without} {self.observation:.1g}"
        )


def check_contract(experiment: Experiment, name: str, settings: Mapping[str, Any]) -> Contract:
    """Measure the contract of an engine.

    Args:
        experiment: the task.
        name: name of the engine's settings.
        settings: of the engine.

    Raises:
        ConfigError: the engine is not installed, or does not take the task.
    """
    task = experiment.make_task()
    if isinstance(task, ForeignTask):
        settings = dict(settings) | {"substeps": task.substeps}
        task = RobotTask(task)
    try:
        probe = _make(experiment, dict(settings) | {"substeps": 1}, PROBE_DT, task)
        try:
            return _measure(experiment, task, name, settings, probe)
        finally:
            probe.close()
    except ConfigError as error:
        raise ConfigError(f"simulators={name}: {error}") from error


def _make(experiment: Experiment, settings: Mapping[str, Any], dt: float, task: Task) -> Simulator:
    cls = engine_class(settings["engine"])
    device = experiment.sim_device if experiment.sim_device.type in cls.DEVICE_TYPES else torch.device("cpu")
    worlds = max(_STATES, 1 + task.num_actions)
    return make_simulator(settings, experiment.robot, worlds, dt, task.contact_bodies, device)


def _measure(experiment: Experiment, task: Task, name: str, settings: Mapping[str, Any], probe: Simulator) -> Contract:
    robot, model = experiment.robot, experiment.robot.model
    problems = []
    reference = _Reference(robot.compile(PROBE_DT))
    qpos, qvel = _states(task)
    control = task.initial_control(qpos)

    default = _within_limits(robot, torch.from_numpy(model.qpos0).float()[None])
    at_rest = torch.zeros(1, model.nv)
    found, _ = _step(probe, default, at_rest, control[:1])
    expected, _ = reference.step(default.numpy(), at_rest.numpy(), control[:1].numpy())
    default_pose = np.abs(_differences(model, expected, found))
    problems += _too_large("default position", default_pose, STATE_TOLERANCE, model)

    found, found_velocity = _step(probe, qpos, qvel, control)
    expected, expected_velocity = reference.step(qpos.numpy(), qvel.numpy(), control.numpy())
    position = np.abs(_differences(model, expected, found))
    velocity = np.abs(found_velocity - expected_velocity)
    problems += _too_large("position", position, STATE_TOLERANCE, model)
    problems += _too_large("velocity", velocity, VELOCITY_TOLERANCE, model)

    response, expected_response = _responses(task, probe, reference, qpos[0])
    cosines, gains, silent = _compare_responses(response, expected_response)
    names = robot.actuator_names
    loud = [i for i in range(len(names)) if i not in silent]
    for i in loud:
        best = int(cosines[i].argmax())
        if cosines[i, i] < LEAST_ALIGNMENT or cosines[i, best] > cosines[i, i] + 0.01:
            like = f" and like {names[best]}" if best != i and cosines[i, best] > LEAST_ALIGNMENT else ""
            problems.append(f"actuator {names[i]} acts with cosine {cosines[i, i]:.2f} to itself in MuJoCo{like}")

    contact_terms = _contact_terms(task, qpos, qvel)
    observed = _observe(task, torch.from_numpy(found), torch.from_numpy(found_velocity))
    wanted = _observe(task, torch.from_numpy(expected).float(), torch.from_numpy(expected_velocity).float())
    kept = _columns_without(task, contact_terms)
    observation = (observed - wanted).abs()[:, kept]
    if not (observation <= OBSERVATION_TOLERANCE * (1.0 + wanted.abs()[:, kept])).all():
        problems.append(f"observation of the same state differs by {float(observation.max()):.2g}")

    measured_dt = _measured_period(experiment, settings, task, qpos, qvel)
    control_dt = experiment.task.sim.dt
    if not abs(measured_dt / control_dt - 1.0) <= PERIOD_TOLERANCE:
        problems.append(f"control period is {1e3 * measured_dt:.4g} ms, not {1e3 * control_dt:.4g} ms")
    return Contract(
        simulator=name,
        joints=len(robot.joint_names),
        actuators=len(names),
        substeps=int(settings["substeps"]),
        control_dt=control_dt,
        measured_dt=measured_dt,
        default_pose=float(default_pose.max()),
        position=float(position.max()),
        velocity=float(velocity.max()),
        alignment=float(min((cosines[i, i] for i in loud), default=1.0)),
        gain=(float(min(gains[loud], default=1.0)), float(max(gains[loud], default=1.0))),
        silent=tuple(names[i] for i in silent),
        columns=task.num_observations,
        observation=float(observation.max()) if observation.numel() else 0.0,
        contact_terms=contact_terms,
        problems=tuple(problems),
    )


class _Reference:
    """MuJoCo's own step of a model, without our batches."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model, self._data = model, mujoco.MjData(model)

    def step(
        self, qpos: np.ndarray, qvel: np.ndarray, control: np.ndarray, steps: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Steps from states without warm starts: (n, nq), (n, nv), (n, nu) -> (n, nq), (n, nv), float64."""
        after = []
        for position, velocity, ctrl in zip(qpos, qvel, control, strict=True):
            mujoco.mj_resetData(self._model, self._data)
            self._data.qpos[:], self._data.qvel[:], self._data.ctrl[:] = position, velocity, ctrl
            for _ in range(steps):
                mujoco.mj_step(self._model, self._data)
            after.append((self._data.qpos.copy(), self._data.qvel.copy()))
        positions, velocities = zip(*after, strict=True)
        return np.array(positions), np.array(velocities)


def _states(task: Task) -> tuple[Tensor, Tensor]:
    """Starts of the task, in the air if the base is free. Joints and velocities are random, so that a swap would
    show."""
    generator = torch.Generator(task.device).manual_seed(0)
    model, n = task.robot.model, _STATES
    zeros = torch.zeros(n, task.num_actions)
    rest = torch.from_numpy(model.qpos0).float().repeat(n, 1), torch.zeros(n, model.nv)
    qpos, _, _ = task.begin_episode(_state(task, *rest, zeros, zeros), generator)
    if task.robot.floating_base:
        qpos[:, 2] += _LIFT
    columns = _joint_columns(task.robot)
    qpos[:, columns] += (2.0 * torch.rand(n, len(columns), generator=generator) - 1.0) * _NOISE
    return _within_limits(task.robot, qpos), torch.randn(n, model.nv, generator=generator)


def _joint_columns(robot: RobotModel) -> list[int]:
    return [int(robot.model.joint(name).qposadr[0]) for name in robot.joint_names if _is_single(robot, name)]


def _within_limits(robot: RobotModel, qpos: Tensor) -> Tensor:
    """Positions (n, nq) with every joint well inside its limits, which are hard in some engines and soft in others."""
    limits = robot.joint_limits[[_is_single(robot, name) for name in robot.joint_names]]
    range_ = limits[:, 1] - limits[:, 0]
    margin = np.where(np.isfinite(range_), np.minimum(_MARGIN, 0.25 * range_), 0.0)
    lower, upper = (torch.from_numpy(bound).float() for bound in (limits[:, 0] + margin, limits[:, 1] - margin))
    columns, inside = _joint_columns(robot), qpos.clone()
    inside[:, columns] = qpos[:, columns].clamp(lower, upper)
    return inside


def _is_single(robot: RobotModel, joint: str) -> bool:
    return bool(robot.model.joint(joint).type[0] != mujoco.mjtJoint.mjJNT_BALL)


def _state(task: Task, qpos: Tensor, qvel: Tensor, action: Tensor, control: Tensor) -> State:
    n = len(qpos)
    wrench = torch.zeros(n, len(task.contact_bodies), 6)
    memory = {name: torch.zeros(n, columns) for name, columns in task.memory.items()}
    return State(qpos, qvel, wrench, action, control, torch.zeros(n, dtype=torch.int32), memory)


def _observe(task: Task, qpos: Tensor, qvel: Tensor, wrench: float = 0.0) -> Tensor:
    """Observations (n, num_observations) of states, as the first ones of episodes, under equal contact forces."""
    control = task.initial_control(qpos)
    state = _state(task, qpos, qvel, torch.zeros_like(control), control)
    state.contact_wrench += wrench
    shown = torch.zeros(len(qpos), task.num_observations)
    task.write_observation(task.observe(state), shown, first=True)
    return shown


def _contact_terms(task: Task, qpos: Tensor, qvel: Tensor) -> tuple[str, ...]:
    """The terms that change with contact forces."""
    changed = (_observe(task, qpos, qvel) != _observe(task, qpos, qvel, 1.0)).any(0)
    parts = changed.split([term.columns for term in (*task.terms, *task.privileged_terms)])
    names = [term.name for term in (*task.terms, *task.privileged_terms)]
    return tuple(name for name, part in zip(names, parts, strict=True) if part.any())


def _columns_without(task: Task, names: tuple[str, ...]) -> Tensor:
    """(num_observations,) bool: true in the columns of all terms but the named ones."""
    kept = [[term.name not in names] * term.columns for term in (*task.terms, *task.privileged_terms)]
    return torch.tensor([column for term in kept for column in term])


def _step(simulator: Simulator, qpos: Tensor, qvel: Tensor, control: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """States after one control period from given ones, float32."""
    device, n = simulator.device, len(qpos)
    simulator.set_state(torch.arange(n, device=device), qpos.to(device), qvel.to(device))
    simulator.step(control.to(device), n)
    return _numpy(simulator.qpos[:n]), _numpy(simulator.qvel[:n])


def _responses(task: Task, probe: Simulator, reference: _Reference, qpos: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The change of velocities by an action of one unit of each actuator, (nu, nv): the engine's, and MuJoCo's."""
    nu = task.num_actions
    actions = task.clip_action(torch.cat((torch.zeros(1, nu), torch.eye(nu))))
    rows = qpos.repeat(1 + nu, 1)
    rest = torch.zeros(1 + nu, task.robot.model.nv)
    control = task.control(actions, task.initial_control(rows).clone())
    _, found = _step(probe, rows, rest, control)
    _, expected = reference.step(rows.numpy(), rest.numpy(), control.numpy())
    return (found[1:] - found[0]).astype(np.float64), expected[1:] - expected[0]


def _compare_responses(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Cosines (nu, nu) between found and expected responses, and ratios (nu,) of their sizes.

    The third item is the actuators without a response in MuJoCo.
    """
    size = np.linalg.norm(expected, axis=1)
    silent = [int(i) for i in np.flatnonzero(size <= 1e-9 * max(size.max(initial=0.0), 1e-9))]
    safe = np.where(size > 0.0, size, 1.0)
    own = np.linalg.norm(found, axis=1)
    cosines = found @ expected.T / (np.where(own > 0.0, own, 1.0)[:, None] * safe)
    return cosines, own / safe, silent


def _measured_period(
    experiment: Experiment, settings: Mapping[str, Any], task: Task, qpos: Tensor, qvel: Tensor
) -> float:
    """The control period, s, as the robots' motion shows it in comparison with MuJoCo's steps at the engine's rate."""
    dt, substeps = experiment.task.sim.dt, int(settings["substeps"])
    reference = _Reference(experiment.robot.compile(dt / substeps))
    control = task.initial_control(qpos)
    simulator = _make(experiment, settings, dt, task)
    try:
        found, _ = _step(simulator, qpos, qvel, control)
    finally:
        simulator.close()
    expected, _ = reference.step(qpos.numpy(), qvel.numpy(), control.numpy(), substeps)
    start, model = qpos.double().numpy(), experiment.robot.model
    moved, should = _differences(model, start, found), _differences(model, start, expected)
    return dt * float((moved * should).sum() / np.square(should).sum())


def _differences(model: mujoco.MjModel, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Differences (n, nv) between positions (n, nq), with rotations as angles about three axes."""
    out = np.zeros((len(a), model.nv))
    for row, start, end in zip(out, a, b, strict=True):
        mujoco.mj_differentiatePos(model, row, 1.0, start.astype(np.float64), end.astype(np.float64))
    return out


def _too_large(what: str, errors: np.ndarray, tolerance: float, model: mujoco.MjModel) -> list[str]:
    """A problem that names the joint with the largest of errors (n, nv), if that is above the tolerance."""
    largest = np.nan_to_num(errors, nan=np.inf).max(0)
    column = int(largest.argmax())
    if largest[column] <= tolerance:
        return []
    joint = model.joint(model.dof_jntid[column]).name
    return [f"{what} of joint {joint} is read back with a difference of {largest[column]:.2g}"]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy().copy()
