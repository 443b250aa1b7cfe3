"""Robots in any engine, measured and driven in a policy's own layout, whatever the order of the model at hand.

Joints, actuators and contact bodies are found by name. What would change the meaning of an observation or an action is
refused. What changes only how the robot moves is allowed, and reported.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dualfid_robot.errors import ConfigError
from dualfid_robot.export.robot_description import describe_actuators, describe_joints
from dualfid_robot.onboard.metadata import Actuator, Joint, Metadata
from dualfid_robot.onboard.runtime import RobotState
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import make_simulator

logger = logging.getLogger(__name__)

# With these, a control means the same force on the same joint; the rest of an actuator is how fast that comes.
_LAW = ("joint", "kind", "gear", "kp", "kd", "control_low", "control_high", "effort_limit", "velocity_limit")
_ALLOWED_OF_JOINTS = ("low", "high", "armature", "damping")
_ALLOWED_OF_ACTUATORS = ("delay",)
_AXIS_TOLERANCE = 1e-2  # rad: an assembled robot is no better than that
_ZERO_TOLERANCE = 1e-4  # rad or m
_LISTED = 8
_VELOCITIES = {"free": 6, "ball": 3, "slide": 1, "hinge": 1}  # columns in qvel


class SimulatedRobot:
    """n robots of one model in one engine.

    Attributes:
        robot: the model that the engine simulates.
        simulator: the engine; its state is in that model's layout.
        n: number of robots.
    """

    def __init__(self, metadata: Metadata, robot: RobotModel, simulator: Simulator) -> None:
        """Match the model with the policy's, and log in one line what differs without harm.

        Raises:
            ConfigError: the model is not the policy's robot (see `check_robot`). Or the engine has another control
                period, or does not measure the policy's contact bodies.
        """
        differences = check_robot(metadata, robot)
        if differences:
            logger.warning("robot=%s differs from the policy's robot: %s", robot.path.name, differences)
        if not math.isclose(simulator.control_dt, metadata.timing.control_dt, rel_tol=1e-9):
            raise ConfigError(
                f"control_dt={simulator.control_dt:g}: this policy acts every {metadata.timing.control_dt:g} s"
            )
        self.robot, self.simulator, self.n = robot, simulator, simulator.num_worlds
        self._qpos, self._qvel = _columns(metadata, robot)
        ours = {actuator.name: column for column, actuator in enumerate(metadata.actuators)}
        self._controls = np.array([ours[name] for name in robot.actuator_names], np.int64)
        missing = sorted(set(metadata.robot.contact_bodies) - set(simulator.contact_bodies))
        if missing:
            raise ConfigError(f"contact_bodies={missing}: the engine was not asked to measure them")
        self._bodies = np.array([simulator.contact_bodies.index(b) for b in metadata.robot.contact_bodies], np.int64)
        self._policy_floats, self._model_floats = metadata.robot.floating_base, robot.floating_base
        both_float = self._policy_floats and self._model_floats
        same_root = both_float and metadata.joints[0].name == robot.model.joint(0).name
        self._other_root = self._policy_floats != self._model_floats or (both_float and not same_root)
        self._initial_qpos = robot.model.qpos0.astype(np.float32)
        self._everyone = torch.arange(self.n, device=simulator.device)

    @classmethod
    def build(
        cls,
        metadata: Metadata,
        robot: RobotModel,
        settings: Mapping[str, Any],
        n: int,
        device: torch.device | str = "cpu",
    ) -> SimulatedRobot:
        """Build the engine too.

        Args:
            settings: the engine's, as in cfg/simulator.
            n: number of robots.
            device: of the engine.

        Raises:
            ConfigError: also where the engine refuses its settings or the robot.
        """
        check_robot(metadata, robot)
        contact_bodies = metadata.robot.contact_bodies
        return cls(
            metadata, robot, make_simulator(settings, robot, n, metadata.timing.control_dt, contact_bodies, device)
        )

    @property
    def failed(self) -> np.ndarray:
        """(n,) bool: robots whose last step failed. They stand in the model's initial state again."""
        failed: np.ndarray = self.simulator.failed.cpu().numpy()
        return failed

    def reset(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put every robot into a state; joints that the policy does not know go to their initial position, at rest.

        Args:
            qpos: (n, nq) float32; qvel: (n, nv) float32: in the policy's layout.
        """
        model = self.robot.model
        all_qpos = np.tile(self._initial_qpos, (self.n, 1))
        all_qvel = np.zeros((self.n, model.nv), np.float32)
        all_qpos[:, self._qpos] = qpos
        all_qvel[:, self._qvel] = qvel
        device = self.simulator.device
        self.simulator.set_state(
            self._everyone, torch.from_numpy(all_qpos).to(device), torch.from_numpy(all_qvel).to(device)
        )

    def measure(self) -> RobotState:
        """The state as it is now, in arrays of its own."""
        simulator = self.simulator
        qpos = simulator.qpos.cpu().numpy()
        state = RobotState(
            qpos.take(self._qpos, 1),
            simulator.qvel.cpu().numpy().take(self._qvel, 1),
            simulator.contact_wrench.cpu().numpy().take(self._bodies, 1),
        )
        if self._other_root:
            self._move_torques(qpos, state)
        return state

    def step(self, control: np.ndarray) -> None:
        """Advance every robot by one control period.

        Args:
            control: (n, act_dim) float32 in actuator units, in the policy's order.
        """
        self.simulator.step(torch.from_numpy(control.take(self._controls, 1)).to(self.simulator.device), self.n)

    def close(self) -> None:
        """Release the engine."""
        self.simulator.close()

    def _move_torques(self, qpos: np.ndarray, state: RobotState) -> None:
        """Contact torques are about the origin of the model's root body; make them about that of the policy's."""
        origin = qpos[:, :3] if self._model_floats else np.zeros((1, 3), np.float32)
        wanted = state.qpos[:, :3] if self._policy_floats else np.zeros((1, 3), np.float32)
        wrench = state.contact_wrench
        wrench[..., 3:] += np.cross((origin - wanted)[:, None], wrench[..., :3])


def _columns(metadata: Metadata, robot: RobotModel) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the model's qpos and qvel that hold the policy's, in the policy's order."""
    joints = {joint.name: joint for joint in describe_joints(robot)}
    qpos, qvel = np.empty(metadata.robot.nq, np.int64), np.empty(metadata.robot.nv, np.int64)
    for ours in metadata.joints:
        theirs = joints[ours.name]
        positions, velocities = len(theirs.default_position), _VELOCITIES[theirs.type]
        qpos[ours.qpos : ours.qpos + positions] = np.arange(theirs.qpos, theirs.qpos + positions)
        qvel[ours.qvel : ours.qvel + velocities] = np.arange(theirs.qvel, theirs.qvel + velocities)
    return qpos, qvel


def check_robot(metadata: Metadata, robot: RobotModel) -> str:
    """Compare a model with the policy's robot.

    Returns:
        What differs without harm, in one line. It is empty where nothing does.

    Raises:
        ConfigError: a joint, actuator or contact body is missing. A joint is of another type, axis or zero. An actuator
            is on another joint or turns a control into another force. Or there is an actuator that the policy would
            leave alone.
    """
    where = f"robot={robot.path.name}"
    joints = {joint.name: joint for joint in describe_joints(robot)}
    actuators = {actuator.name: actuator for actuator in describe_actuators(robot)}
    _require_all(where, "joint", (joint.name for joint in metadata.joints), joints)
    _require_all(where, "actuator", (actuator.name for actuator in metadata.actuators), actuators)
    _require_all(where, "body", metadata.robot.contact_bodies, robot.body_names)
    additional = sorted(actuators.keys() - {actuator.name for actuator in metadata.actuators})
    if additional:
        raise ConfigError(f"{where}: actuator {additional[0]}: the policy does not know it and would leave it alone")
    for joint in metadata.joints:
        _require_equal(where, "joint", joint, joints[joint.name], ("type",))
        _require_same_angle(where, joint, joints[joint.name])
    for actuator in metadata.actuators:
        _require_equal(where, "actuator", actuator, actuators[actuator.name], _LAW)
    more = sorted(joints.keys() - {joint.name for joint in metadata.joints})
    differences = [f"additional joints {more}"] if more else []
    for ours in metadata.joints:
        differences += _differences(ours, joints[ours.name], _ALLOWED_OF_JOINTS)
    for our_actuator in metadata.actuators:
        differences += _differences(our_actuator, actuators[our_actuator.name], _ALLOWED_OF_ACTUATORS)
    hidden = len(differences) - _LISTED
    return "; ".join(differences[:_LISTED]) + (f"; and {hidden} more" if hidden > 0 else "")


def _require_all(where: str, kind: str, names: Iterable[str], present: Iterable[str]) -> None:
    present = list(present)
    missing = [name for name in names if name not in present]
    if missing:
        raise ConfigError(f"{where}: has no {kind} {', '.join(missing)}, which the policy needs; it has {present}")


def _require_equal(
    where: str, kind: str, ours: Joint | Actuator, theirs: Joint | Actuator, keys: Sequence[str]
) -> None:
    for key in keys:
        if not _equal(getattr(ours, key), getattr(theirs, key)):
            raise ConfigError(
                f"{where}: {kind} {ours.name}: {key} {_text(getattr(theirs, key))}, but the policy's robot has "
                f"{_text(getattr(ours, key))}"
            )


def _require_same_angle(where: str, ours: Joint, theirs: Joint) -> None:
    """A joint's coordinate must mean the same: the same axis, and zero at the same place."""
    for key, tolerance in (("axis", _AXIS_TOLERANCE), ("default_position", _ZERO_TOLERANCE)):
        our, their = np.array(getattr(ours, key)), np.array(getattr(theirs, key))
        if ours.axis and np.abs(our - their).max() > tolerance:
            raise ConfigError(
                f"{where}: joint {ours.name}: {key} {np.round(their, 4).tolist()}, but the policy's robot has "
                f"{np.round(our, 4).tolist()}"
            )


def _differences(ours: Joint | Actuator, theirs: Joint | Actuator, keys: Sequence[str]) -> list[str]:
    return [
        f"{ours.name} {key} {_text(getattr(theirs, key))} instead of {_text(getattr(ours, key))}"
        for key in keys
        if not _equal(getattr(ours, key), getattr(theirs, key))
    ]


def _equal(ours: float | str | None, theirs: float | str | None) -> bool:
    """Numbers up to rounding: one file says degrees, the other radians."""
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9)
    return ours == theirs


def _text(value: float | str | None) -> str:
    if value is None:
        return "no bound"
    return f"{value:g}" if isinstance(value, float) else value or "none"
