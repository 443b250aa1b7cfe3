"""Anymal: follow commanded planar velocities and turning rates on flat ground.

Definition and figures: Isaac Gym's Anymal task (`isaacgymenvs/tasks/anymal.py`).

Deliberate differences: the command's planar velocity and turning rate are two terms, since their scales differ. The
critic also sees the feet's contact forces. The robot touches the ground only, not itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dualfid_robot.command import Command
from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.actuation import JointTorques
from dualfid_robot.envs.reward import not_negative
from dualfid_robot.envs.rotations import rotation_matrix
from dualfid_robot.envs.task import ActionMapping, Start, State, Task, TaskConfig, Term, uniform
from dualfid_robot.errors import ConfigError

LEGS = ("LF", "LH", "RF", "RH")  # left and right, fore and hind
DEFAULT_JOINTS = (
    0.03,
    0.4,
    -0.8,
    0.03,
    -0.4,
    0.8,
    -0.03,
    0.4,
    -0.8,
    -0.03,
    -0.4,
    0.8,
)  # rad; HAA, HFE, KFE of each leg
INITIAL_HEIGHT = 0.62  # m
TRACKING_VARIANCE = 0.25  # (m/s)^2 and (rad/s)^2, of the rewards' exponentials
CONTACT_THRESHOLD = 1.0  # N; a greater force is a contact
FOOT_FORCE_SCALE = 0.01


@dataclass(frozen=True)
class CommandRanges:
    """Least and greatest commanded velocity: along the base's x and y axes, m/s, and about z, rad/s."""

    linear_x: tuple[float, ...] = (-2.0, 2.0)
    linear_y: tuple[float, ...] = (-1.0, 1.0)
    yaw: tuple[float, ...] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        for key in ("linear_x", "linear_y", "yaw"):
            bounds = getattr(self, key)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise ConfigError(f"{key}={list(bounds)}: a least and a greatest value are expected")


@dataclass(frozen=True)
class AnymalConfig(TaskConfig):
    """Isaac Gym's settings of the task; rewards per second."""

    randomCommandVelocityRanges: CommandRanges = field(default_factory=CommandRanges)
    actionScale: float = 0.5
    linearVelocityXYRewardScale: float = 1.0
    angularVelocityZRewardScale: float = 0.5
    torqueRewardScale: float = -2.5e-5
    linearVelocityScale: float = 2.0
    angularVelocityScale: float = 0.25
    dofPositionScale: float = 1.0
    dofVelocityScale: float = 0.05


class Anymal(Task):
    """Its memory `command` is the commanded velocity along the base's x and y axes (m/s) and about z (rad/s)."""

    Config = AnymalConfig
    config: AnymalConfig
    contact_bodies = ("base", *(f"{leg}_THIGH" for leg in LEGS), *(f"{leg}_SHANK" for leg in LEGS))
    memory: ClassVar = {"command": 3}

    def __init__(self, config: AnymalConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("linear_velocity", 3, scale=config.linearVelocityScale, unit="m/s", frame="base"),
            Term("angular_velocity", 3, scale=config.angularVelocityScale, unit="rad/s", frame="base"),
            Term("projected_gravity", 3, frame="base"),
            Term("linear_command", 2, scale=config.linearVelocityScale, unit="m/s", frame="base"),
            Term("yaw_command", 1, scale=config.angularVelocityScale, unit="rad/s", frame="base"),
            Term("joint_position", 12, scale=config.dofPositionScale, unit="rad from the default position"),
            Term("joint_velocity", 12, scale=config.dofVelocityScale, unit="rad/s"),
            Term("action", 12),
        )
        self.privileged_terms = (Term("foot_force", 12, scale=FOOT_FORCE_SCALE, unit="N", frame="base"),)
        self.action_mapping = ActionMapping(
            "joint position", scale=config.actionScale, offset=DEFAULT_JOINTS, clip=config.clipActions
        )
        self.default_joints = torch.tensor(DEFAULT_JOINTS, device=self.device)
        self.joint_torques = JointTorques(robot, self.device)
        ranges = config.randomCommandVelocityRanges
        bounds = torch.tensor([ranges.linear_x, ranges.linear_y, ranges.yaw], device=self.device)
        self.commands = (
            Command("forward velocity", "m/s", "command", 0, *ranges.linear_x),
            Command("lateral velocity", "m/s", "command", 1, *ranges.linear_y),
            Command("turning rate", "rad/s", "command", 2, *ranges.yaw),
        )
        self.least_command, self.command_span = bounds[:, 0], bounds[:, 1] - bounds[:, 0]

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = torch.zeros(n, 19, device=self.device)
        qpos[:, 2] = INITIAL_HEIGHT
        qpos[:, 3] = 1.0
        qpos[:, 7:] = self.default_joints * (1.0 + uniform(n, 12, 0.5, generator))
        qvel = torch.zeros(n, 18, device=self.device)
        qvel[:, 6:] = uniform(n, 12, 0.1, generator)
        return qpos, qvel

    def begin_episode(self, last: State, generator: torch.Generator) -> Start:
        n = len(last.qpos)
        return Start(*self.sample_initial_state(n, generator), {"command": self.sample_command(n, generator)})

    def sample_command(self, n: int, generator: torch.Generator) -> Tensor:
        """Commands (n, 3), uniform in their ranges."""
        drawn = torch.rand(n, 3, generator=generator, device=generator.device)
        return torch.addcmul(self.least_command, drawn, self.command_span)

    def observe(self, state: State) -> dict[str, Tensor]:
        rotation = rotation_matrix(state.qpos[:, 3:7])
        command = state.memory["command"]
        force = state.contact_wrench[:, 5:, :3] @ rotation  # row vectors: world to base
        return {
            "linear_velocity": (state.qvel[:, None, :3] @ rotation).squeeze(1),
            "angular_velocity": state.qvel[:, 3:6],
            "projected_gravity": -rotation[:, 2],
            "linear_command": command[:, :2],
            "yaw_command": command[:, 2],
            "joint_position": state.qpos[:, 7:] - self.default_joints,
            "joint_velocity": state.qvel[:, 6:],
            "action": state.action,
            "foot_force": force.reshape(-1, 12),
            "rotation": rotation,
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        """The base or a thigh touches the ground."""
        return (state.contact_wrench[:, :5, :3].norm(dim=2) > CONTACT_THRESHOLD).any(1)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        torque = self.joint_torques(state.control, state.qpos, state.qvel)
        effort = self.config.torqueRewardScale * torque.square().sum(1)
        return self.per_step(self.tracking_rewards(observed) | {"torque": effort})

    def tracking_rewards(self, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rewards per second for following the command, (n,) each."""
        config = self.config
        linear, yaw = self.tracking_errors(observed)
        return {
            "linear_velocity": config.linearVelocityXYRewardScale * torch.exp(-linear.square() / TRACKING_VARIANCE),
            "yaw_rate": config.angularVelocityZRewardScale * torch.exp(-yaw.square() / TRACKING_VARIANCE),
        }

    def per_step(self, rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rewards per second as rewards per step, the sum of which is never negative."""
        return not_negative({name: self.control_dt * rate for name, rate in rates.items()})

    def tracking_errors(self, observed: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Planar velocity (n,), m/s, and turning rate (n,), rad/s, by which the base differs from its command."""
        linear = (observed["linear_command"] - observed["linear_velocity"][:, :2]).norm(dim=1)
        return linear, (observed["yaw_command"] - observed["angular_velocity"][:, 2]).abs()

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        linear, yaw = self.tracking_errors(observed)
        return {"velocity_error": linear, "yaw_rate_error": yaw}
