"""Running along the world's x axis towards a far target: what Isaac Gym's Ant and Humanoid have in common.

A robot of this kind has a floating base and a motor on every joint. Its actuators are in the order of the joints.
Definition and figures are those of Isaac Gym's tasks (`isaacgymenvs/tasks/ant.py`, `humanoid.py`), with three
deliberate differences. The bearing of the target is a true bearing, while Isaac Gym's reads the wrong vector component.
The feet's wrench is in the torso's frame about the torso's origin, which every engine can give. An episode has 1000
steps instead of 999.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dualfid_robot.envs.reward import replaced_where
from dualfid_robot.envs.rotations import roll, rotation_matrix, wrap_angle, yaw
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform
from dualfid_robot.robots.model import RobotModel

TARGET_X = 1000.0  # m; far enough that the direction hardly changes within an episode
HEADING_THRESHOLD = 0.8
UP_THRESHOLD = 0.93


@dataclass(frozen=True, kw_only=True)
class LocomotionConfig(TaskConfig):
    """Isaac Gym's settings of these tasks. Those without a default differ between the robots."""

    powerScale: float = 1.0
    headingWeight: float = 0.5
    upWeight: float = 0.1
    actionsCost: float
    energyCost: float = 0.05
    dofVelocityScale: float
    angularVelocityScale: float = 1.0
    contactForceScale: float
    jointsAtLimitCost: float
    deathCost: float
    terminationHeight: float


class LocomotionTask(Task):
    """The reward is progress in m/s, bonuses for being alive, upright and on course, less costs. A fall brings
    the death cost alone.

    Attributes:
        initial_height: of the torso's origin, m.
        alive_reward: of every step.
        own_terms: the robot's own observation terms, between the joints' velocities and the feet's wrenches.
        effort: (joints,) motor gears over the largest one: the weights of the energy cost.
    """

    config: LocomotionConfig
    initial_height: ClassVar[float]
    alive_reward: ClassVar[float]

    def __init__(
        self,
        config: LocomotionConfig,
        robot: RobotModel,
        control_dt: float,
        device: torch.device | str,
        own_terms: Sequence[Term] = (),
    ) -> None:
        super().__init__(config, robot, control_dt, device)
        joints = len(robot.joint_names)
        self.terms = (
            Term("height", 1, unit="m"),
            Term("linear_velocity", 3, unit="m/s", frame="torso"),
            Term("angular_velocity", 3, scale=config.angularVelocityScale, unit="rad/s", frame="torso"),
            Term("yaw", 1, unit="rad"),
            Term("roll", 1, unit="rad"),
            Term("target_bearing", 1, unit="rad", frame="torso"),
            Term("up_projection", 1),
            Term("heading_projection", 1),
            Term("joint_position", joints, unit="joint range, -1 to 1"),
            Term("joint_velocity", joints, scale=config.dofVelocityScale, unit="rad/s"),
            *own_terms,
            Term(
                "foot_wrench",
                6 * len(self.contact_bodies),
                scale=config.contactForceScale,
                unit="N, N m",
                frame="torso",
            ),
            Term("action", self.num_actions),
        )
        self.action_mapping = ActionMapping("torque", scale=config.powerScale, clip=config.clipActions)
        lower, upper = torch.from_numpy(robot.joint_limits).to(self.device, torch.float32).unbind(1)
        self.lower, self.upper = lower, upper
        self.middle, self.half_range = (lower + upper) / 2, (upper - lower) / 2
        # Isaac Gym's rule: zero, or the limit nearest to zero where zero is out of range.
        self.initial_joints = torch.zeros_like(lower).clamp(lower, upper)
        self.gear = torch.from_numpy(robot.model.actuator_gear[:, 0]).to(self.device, torch.float32)
        self.effort = self.gear / self.gear.max()

    @abstractmethod
    def limit_cost(self, joint_position: Tensor) -> Tensor:
        """(n,) what joints at their limits cost, from positions (n, joints) that are -1 to 1 within the limits."""

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        joints = len(self.lower)
        qpos = torch.zeros(n, 7 + joints, device=self.device)
        qpos[:, 2] = self.initial_height
        qpos[:, 3] = 1.0
        qpos[:, 7:] = (self.initial_joints + uniform(n, joints, 0.2, generator)).clamp(self.lower, self.upper)
        qvel = torch.zeros(n, 6 + joints, device=self.device)
        qvel[:, 6:] = uniform(n, joints, 0.1, generator)
        return qpos, qvel

    def observe(self, state: State) -> dict[str, Tensor]:
        position, joints = state.qpos[:, :3], state.qpos[:, 7:]
        rotation = rotation_matrix(state.qpos[:, 3:7])
        to_target_x, to_target_y = TARGET_X - position[:, 0], -position[:, 1]
        heading = yaw(rotation)
        bearing = torch.atan2(to_target_y, to_target_x)
        forward = rotation[:, :, 0]
        distance = torch.hypot(to_target_x, to_target_y)
        wrench = state.contact_wrench.view(position.shape[0], -1, 3) @ rotation  # row vectors: world to torso
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
            "foot_wrench": wrench.flatten(1),
            "action": state.action,
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return observed["height"] < self.config.terminationHeight

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        config = self.config
        progress = (_distance(previous_qpos) - _distance(state.qpos)) / self.control_dt
        action = state.action
        scaled_velocity = observed["joint_velocity"] * config.dofVelocityScale
        terms = {
            "progress": progress,
            "alive": torch.full_like(progress, self.alive_reward),
            "up": config.upWeight * (observed["up_projection"] > UP_THRESHOLD),
            "heading": config.headingWeight * (observed["heading_projection"] / HEADING_THRESHOLD).clamp(max=1.0),
            "actions": -config.actionsCost * action.square().sum(1),
            "energy": -config.energyCost * ((action * scaled_velocity).abs() * self.effort).sum(1),
            "joint_limits": -self.limit_cost(observed["joint_position"]),
        }
        return replaced_where(terminated, terms, "death", config.deathCost)

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`speed`: the torso's velocity along the world's x axis, m/s."""
        return {"speed": state.qvel[:, 0].clone()}


def _distance(qpos: Tensor) -> Tensor:
    """(n,) horizontal distance to the target, m."""
    return torch.hypot(TARGET_X - qpos[:, 0].double(), qpos[:, 1].double()).float()
