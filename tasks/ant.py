"""Ant: run along the world's x axis. Definition and figures: Isaac Gym's Ant task (`isaacgymenvs/tasks/ant.py`).

Observation, reward and the deliberate differences are those of `dualfid_robot.envs.locomotion`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dualfid_robot.envs.locomotion import LocomotionConfig, LocomotionTask

LIMIT_THRESHOLD = 0.99  # of the joint's range, upper side only, as in Isaac Gym


@dataclass(frozen=True, kw_only=True)
class AntConfig(LocomotionConfig):
    """Isaac Gym's settings of the task."""

    actionsCost: float = 0.005
    dofVelocityScale: float = 0.2
    contactForceScale: float = 0.1
    jointsAtLimitCost: float = 0.1
    deathCost: float = -2.0
    terminationHeight: float = 0.31


class Ant(LocomotionTask):
    Config = AntConfig
    contact_bodies = ("foot_1", "foot_2", "foot_3", "foot_4")
    initial_height = 0.44
    alive_reward = 0.5

    def limit_cost(self, joint_position: Tensor) -> Tensor:
        return self.config.jointsAtLimitCost * (joint_position > LIMIT_THRESHOLD).sum(1)
