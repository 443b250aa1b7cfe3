"""Humanoid: run along the world's x axis on two legs. Definition and figures: Isaac Gym's Humanoid task
(`isaacgymenvs/tasks/humanoid.py`).

Observation, reward and most of the deliberate differences are those of `dualfid_robot.envs.locomotion`. There is
one more. Isaac Gym's "dof force" is PhysX's reading of a joint's drive, springs and limits included. Here it is the
motor's torque in N m, which is the same in every engine. Isaac Gym applies its motors in the joints' order, whatever
the file's order of actuators. In our asset the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.locomotion import LocomotionConfig, LocomotionTask
from dualfid_robot.envs.task import State, Term

LIMIT_THRESHOLD = 0.98  # of the joint's range, both sides; from there to the limit the cost rises from 0 to its weight


@dataclass(frozen=True, kw_only=True)
class HumanoidConfig(LocomotionConfig):
    """Isaac Gym's settings of the task."""

    clipObservations: float = 100.0
    actionsCost: float = 0.01
    dofVelocityScale: float = 0.1
    angularVelocityScale: float = 0.25
    contactForceScale: float = 0.01
    jointsAtLimitCost: float = 0.25
    deathCost: float = -1.0
    terminationHeight: float = 0.8


class Humanoid(LocomotionTask):
    Config = HumanoidConfig
    contact_bodies = ("right_foot", "left_foot")
    initial_height = 1.34
    alive_reward = 2.0

    def __init__(
        self, config: HumanoidConfig, robot: RobotModel, control_dt: float, device: torch.device | str
    ) -> None:
        motor_torque = Term("motor_torque", len(robot.joint_names), scale=config.contactForceScale, unit="N m")
        super().__init__(config, robot, control_dt, device, own_terms=[motor_torque])

    def observe(self, state: State) -> dict[str, Tensor]:
        return super().observe(state) | {"motor_torque": state.control * self.gear}

    def limit_cost(self, joint_position: Tensor) -> Tensor:
        excess = ((joint_position.abs() - LIMIT_THRESHOLD) / (1 - LIMIT_THRESHOLD)).clamp(min=0.0)
        return self.config.jointsAtLimitCost * (excess * self.effort).sum(1)
