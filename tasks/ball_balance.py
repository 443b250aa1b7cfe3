"""BallBalance: catch a falling ball on a tray with three legs and hold it above the tray's centre. Definition and
figures: Isaac Gym's BallBalance task (`isaacgymenvs/tasks/ball_balance.py`).

Deliberate differences: the tray's load is what it touches (the ball). It is a force with its torques about the three
hips. Isaac Gym's force sensors there add what the solver needed to hold the tray together. No other engine can give
that. Of the force, Isaac Gym's observation shows the x component alone, three times. The servos are softer (see the
asset), and legs touch nothing. An episode's first action counts, and it has 500 steps instead of 499.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.rotations import rotation_matrix
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term

TARGET = (0.0, 0.0, 0.7)  # m, of the ball's centre
HIP_RADIUS = 0.4  # m
BALL_RADIUS = 0.1  # m
RESET_HEIGHT = 1.5 * BALL_RADIUS
LOAD_SCALE = 1 / 20
START_DISTANCE = (0.001, 0.5)  # m from the axis
START_HEIGHT = (1.0, 2.0)  # m
START_FALL = 5.0  # m/s
START_SPEED = 5.0  # m/s towards the axis, at most, at the greatest distance; less in proportion nearer to it

BALL = slice(13, 16)  # of qpos
BALL_VELOCITY = slice(12, 15)  # of qvel
KNEES = slice(8, 13, 2)  # of qpos
KNEE_VELOCITIES = slice(7, 12, 2)  # of qvel


@dataclass(frozen=True)
class BallBalanceConfig(TaskConfig):
    """Isaac Gym's settings of the task.

    Attributes:
        actionSpeedScale: speed of the knees' targets at full action, rad/s.
    """

    actionSpeedScale: float = 20.0


class BallBalance(Task):
    Config = BallBalanceConfig
    config: BallBalanceConfig
    contact_bodies = ("tray",)

    def __init__(
        self, config: BallBalanceConfig, robot: RobotModel, control_dt: float, device: torch.device | str
    ) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("knee_position", 3, unit="rad"),
            Term("knee_velocity", 3, unit="rad/s"),
            Term("ball_position", 3, unit="m", frame="world"),
            Term("ball_velocity", 3, unit="m/s", frame="world"),
            Term("tray_force", 3, scale=LOAD_SCALE, unit="N", frame="tray"),
            Term("hip_torque", 9, scale=LOAD_SCALE, unit="N m", frame="tray"),
        )
        self.action_mapping = ActionMapping(
            "joint position", scale=config.actionSpeedScale * control_dt, clip=config.clipActions, cumulative=True
        )
        self.target = torch.tensor(TARGET, device=self.device)
        angles = torch.arange(3, device=self.device) * (2 * math.pi / 3)
        self.hips = HIP_RADIUS * torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], 1)
        self.initial_qpos = torch.from_numpy(robot.model.qpos0).to(self.device, torch.float32)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        fraction, speed, direction, height = torch.rand(4, n, generator=generator, device=self.device)
        nearest, farthest = START_DISTANCE
        lowest, highest = START_HEIGHT
        angle = 2 * math.pi * direction
        outwards = torch.stack([angle.cos(), angle.sin()])
        qpos = self.initial_qpos.repeat(n, 1)
        qpos[:, 13:15] = ((nearest + (farthest - nearest) * fraction) * outwards).T
        qpos[:, 15] = lowest + (highest - lowest) * height
        qvel = torch.zeros(n, 18, device=self.device)
        qvel[:, 12:14] = -(START_SPEED * speed * fraction * outwards).T
        qvel[:, 14] = -START_FALL
        return qpos, qvel

    def observe(self, state: State) -> dict[str, Tensor]:
        load = state.contact_wrench.view(-1, 2, 3) @ rotation_matrix(state.qpos[:, 3:7])  # row vectors: world to tray
        force, torque = load[:, :1], load[:, 1:]
        hip_torque = torque - torch.linalg.cross(self.hips[None], force)
        ball = state.qpos[:, BALL]
        return {
            "knee_position": state.qpos[:, KNEES],
            "knee_velocity": state.qvel[:, KNEE_VELOCITIES],
            "ball_position": ball,
            "ball_velocity": state.qvel[:, BALL_VELOCITY],
            "tray_force": force.squeeze(1),
            "hip_torque": hip_torque.flatten(1),
            "distance": (ball - self.target).norm(dim=1),
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return observed["ball_position"][:, 2] < RESET_HEIGHT

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        speed = observed["ball_velocity"].norm(dim=1)
        return {"near_and_slow": 1.0 / ((1.0 + observed["distance"]) * (1.0 + speed))}

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Distance of the ball from its target, m."""
        return {"ball_distance": observed["distance"]}
