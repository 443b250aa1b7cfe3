"""Ant: run along the world's x axis. Definition and figures: Isaac Gym's Ant task (`isaacgymenvs/tasks/ant.py`).

Deliberate differences: the bearing of the target is a true bearing (Isaac Gym's reads the wrong vector component); the
feet's wrench is expressed in the torso's frame about the torso's origin, which every engine can give without further
kinematics; an episode has 1000 steps instead of 999.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.rotations import roll, rotation_matrix, wrap_angle, yaw
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform

TARGET_X = 1000.0  # m; far enough that the direction hardly changes within an episode
INITIAL_HEIGHT = 0.44  # m
ALIVE_REWARD = 0.5
HEADING_THRESHOLD = 0.8
UP_THRESHOLD = 0.93
LIMIT_THRESHOLD = 0.99  # of the joint's range, upper side only, as in Isaac Gym


@dataclass(frozen=True)
class AntConfig(TaskConfig):
    """Isaac Gym's settings of the task."""

    powerScale: float = 1.0
    headingWeight: float = 0.5
    upWeight: float = 0.1
    actionsCost: float = 0.005
    energyCost: float = 0.05
    dofVelocityScale: float = 0.2
    contactForceScale: float = 0.1
    jointsAtLimitCost: float = 0.1
    deathCost: float = -2.0
    terminationHeight: float = 0.31


class Ant(Task):
    Config = AntConfig
    config: AntConfig
    contact_bodies = ("foot_1", "foot_2", "foot_3", "foot_4")

    def __init__(self, config: AntConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("height", 1, unit="m"),
            Term("linear_velocity", 3, unit="m/s", frame="torso"),
            Term("angular_velocity", 3, unit="rad/s", frame="torso"),
            Term("yaw", 1, unit="rad"),
            Term("roll", 1, unit="rad"),
            Term("target_bearing", 1, unit="rad", frame="torso"),
            Term("up_projection", 1),
            Term("heading_projection", 1),
            Term("joint_position", 8, unit="joint range, -1 to 1"),
            Term("joint_velocity", 8, scale=config.dofVelocityScale, unit="rad/s"),
            Term("foot_wrench", 24, scale=config.contactForceScale, unit="N, N m", frame="torso"),
            Term("action", 8),
        )
        self.action_mapping = ActionMapping("torque", scale=config.powerScale, clip=config.clipActions)
        lower, upper = torch.from_numpy(robot.joint_limits).to(self.device, torch.float32).unbind(1)
        self.lower, self.upper = lower, upper
        self.middle, self.half_range = (lower + upper) / 2, (upper - lower) / 2
        # Isaac Gym's rule: zero, or the limit nearest to zero where zero is out of range.
        self.initial_joints = torch.zeros_like(lower).clamp(lower, upper)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = torch.zeros(n, 15, device=self.device)
        qpos[:, 2] = INITIAL_HEIGHT
        qpos[:, 3] = 1.0
        qpos[:, 7:] = (self.initial_joints + uniform(n, 8, 0.2, generator)).clamp(self.lower, self.upper)
        qvel = torch.zeros(n, 14, device=self.device)
        qvel[:, 6:] = uniform(n, 8, 0.1, generator)
        return qpos, qvel

    def observe(self, state: State) -> dict[str, Tensor]:
        position, joints = state.qpos[:, :3], state.qpos[:, 7:]
        rotation = rotation_matrix(state.qpos[:, 3:7])
        to_target_x, to_target_y = TARGET_X - position[:, 0], -position[:, 1]
        heading = yaw(rotation)
        bearing = torch.atan2(to_target_y, to_target_x)
        forward = rotation[:, :, 0]
        distance = torch.hypot(to_target_x, to_target_y)
        wrench = state.contact_wrench.view(-1, 8, 3) @ rotation  # row vectors: world to torso
        return {
            "height": position[:, 2],
            "linear_velocity": (state.qvel[:, None, :3] @ rotation).squeeze(1),
            "angular_velocity": state.qvel[:, 3:6],
            "yaw": heading,
            "roll": roll(rotation),
            "target_bearing": wrap_angle(bearing - heading),
            "up_projection": rotation[:, 2, 2],
            "heading_projection": (forward[:, 0] * to_target_x + forward[:, 1] * to_target_y) / distance,
            "joint_position": (joints - self.middle) / self.half_range,
            "joint_velocity": state.qvel[:, 6:],
            "foot_wrench": wrench.reshape(-1, 24),
            "action": state.action,
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return observed["height"] < self.config.terminationHeight

    def reward(self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor) -> Tensor:
        config = self.config
        progress = (self._distance(previous_qpos) - self._distance(state.qpos)) / self.control_dt
        up = config.upWeight * (observed["up_projection"] > UP_THRESHOLD)
        heading = config.headingWeight * (observed["heading_projection"] / HEADING_THRESHOLD).clamp(max=1.0)
        action = state.action
        effort = config.actionsCost * action.square().sum(1)
        scaled_velocity = observed["joint_velocity"] * config.dofVelocityScale
        energy = config.energyCost * (action * scaled_velocity).abs().sum(1)
        at_limit = config.jointsAtLimitCost * (observed["joint_position"] > LIMIT_THRESHOLD).sum(1)
        reward = progress + ALIVE_REWARD + up + heading - effort - energy - at_limit
        return torch.where(terminated, config.deathCost, reward)

    def _distance(self, qpos: Tensor) -> Tensor:
        return torch.hypot(TARGET_X - qpos[:, 0].double(), qpos[:, 1].double()).float()
