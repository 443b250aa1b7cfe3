"""Quadcopter: hover at a point, with four rotors that tilt. Definition and figures: Isaac Gym's Quadcopter task
(`isaacgymenvs/tasks/quadcopter.py`).

Deliberate differences: the quaternion is (w, x, y, z), as everywhere here. Angular velocity has no bound, while Isaac
Gym stops it at 4 pi rad/s. The tilt servos are stiff, not rigid (see the asset). An episode's first action counts, and
an episode has 500 steps instead of 499. As in Isaac Gym, neither the thrusts nor the servos' targets are observed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.rotations import rotation_matrix
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform

GOAL = (0.0, 0.0, 1.0)  # m
TILTS, ROTORS = 8, 4
TILT_SPEED = 8 * math.pi  # rad/s at full action
THRUST_RATE = 200.0  # N/s at full action
RESET_DISTANCE = 3.0  # m from the goal
RESET_HEIGHT = 0.3  # m


class Quadcopter(Task):
    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("to_goal", 3, scale=1 / 3, unit="m", frame="world"),
            Term("orientation", 4, unit="quaternion w, x, y, z", frame="world"),
            Term("linear_velocity", 3, scale=1 / 2, unit="m/s", frame="world"),
            Term("angular_velocity", 3, scale=1 / math.pi, unit="rad/s", frame="world"),
            Term("tilt", TILTS, unit="rad"),
        )
        self.action_mapping = ActionMapping(
            "tilt (rad) and thrust (N)",
            scale=(TILT_SPEED * control_dt,) * TILTS + (THRUST_RATE * control_dt,) * ROTORS,
            clip=config.clipActions,
            cumulative=True,
        )
        self.goal = torch.tensor(GOAL, device=self.device)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = torch.zeros(n, 15, device=self.device)
        qpos[:, :2] = uniform(n, 2, 1.5, generator)
        qpos[:, 2] = 1.65 + uniform(n, 1, 0.85, generator).squeeze(1)  # 0.8 m to 2.5 m
        qpos[:, 3] = 1.0
        qpos[:, 7:] = uniform(n, TILTS, 0.2, generator)
        return qpos, torch.zeros(n, 14, device=self.device)

    def initial_control(self, qpos: Tensor) -> Tensor:
        """Servos hold the tilts, rotors stand still."""
        return torch.cat([qpos[:, 7:], qpos.new_zeros(qpos.shape[0], ROTORS)], 1)

    def observe(self, state: State) -> dict[str, Tensor]:
        rotation = rotation_matrix(state.qpos[:, 3:7])
        to_goal = self.goal - state.qpos[:, :3]
        return {
            "to_goal": to_goal,
            "orientation": state.qpos[:, 3:7],
            "linear_velocity": state.qvel[:, :3],
            "angular_velocity": (rotation @ state.qvel[:, 3:6, None]).squeeze(2),
            "tilt": state.qpos[:, 7:],
            "distance": to_goal.norm(dim=1),
            "up": rotation[:, 2, 2],
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return (observed["distance"] > RESET_DISTANCE) | (state.qpos[:, 2] < RESET_HEIGHT)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        near = _closeness(observed["distance"])
        upright = _closeness(1.0 - observed["up"])
        still = _closeness(observed["angular_velocity"][:, 2])
        return {"near": near, "upright": near * upright, "still": near * still}

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Distance to the goal, m."""
        return {"position_error": observed["distance"]}


def _closeness(error: Tensor) -> Tensor:
    return 1.0 / (1.0 + error.square())
