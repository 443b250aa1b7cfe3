"""FrankaCabinet: a Panda arm opens the top drawer of a cabinet. Definition and figures: Isaac Gym's FrankaCabinet task
(`isaacgymenvs/tasks/franka_cabinet.py`).

An episode succeeds (`opened` = 1) when the drawer is more than 0.39 m of its 0.4 m out. Isaac Gym resets it there. The
episode ends there, so its last step tells.

Deliberate differences: the end of the episode takes away all reward to come, 5 to 10 a step. So under Isaac Gym's
reward alone it pays to hold the drawer just short of 0.39 m. `openedReward` makes up for it. At 0 the reward is Isaac
Gym's. The default is twice what 10 a step are worth at a discount of 0.99. The point that shall meet the handle lies
midway between the finger pads. The fingers' places are those of their pads, and the handle's is its bar's middle. Isaac
Gym's points are centimetres off, by a swapped axis. There are no props. An episode has 500 steps instead of 499.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.kinematics import ForwardKinematics
from dualfid_robot.envs.reward import replaced_where
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform

ARM, FINGERS = 7, 2
ROBOT = ARM + FINGERS  # joints; the drawer's follows
INITIAL_JOINTS = (1.157, -1.066, -0.155, -2.239, -1.841, 1.003, 0.469, 0.035, 0.035)  # rad, m
INITIAL_SPREAD = 0.125  # rad, m
FINGER_SPEED = 0.1  # of the arm's
OPENED = 0.39  # m
AJAR = 0.01  # m
HALF_OPEN = 0.2  # m
AT_HANDLE = 0.02  # m
FINGER_REACH = 0.04  # m; a pad within this height of the handle is rewarded
OVERREACH = 0.04  # m; a pad so far behind the handle means that the hand pushes from behind or reaches past


@dataclass(frozen=True)
class FrankaCabinetConfig(TaskConfig):
    """Isaac Gym's settings of the task, and one more.

    Attributes:
        openedReward: for the step that opens the drawer, in place of what the rest of the episode would have brought.
    """

    actionScale: float = 7.5
    dofVelocityScale: float = 0.1
    distRewardScale: float = 2.0
    rotRewardScale: float = 0.5
    aroundHandleRewardScale: float = 0.25
    openRewardScale: float = 7.5
    fingerDistRewardScale: float = 5.0
    actionPenaltyScale: float = 0.01
    openedReward: float = 2000.0


class FrankaCabinet(Task):
    Config = FrankaCabinetConfig
    config: FrankaCabinetConfig

    def __init__(
        self, config: FrankaCabinetConfig, robot: RobotModel, control_dt: float, device: torch.device | str
    ) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("joint_position", ROBOT, unit="joint range, -1 to 1"),
            Term("joint_velocity", ROBOT, scale=config.dofVelocityScale, unit="rad/s, m/s"),
            Term("to_handle", 3, unit="m", frame="world"),
            Term("drawer", 1, unit="m"),
            Term("drawer_velocity", 1, unit="m/s"),
        )
        step = config.actionScale * control_dt
        self.action_mapping = ActionMapping(
            "joint position",
            scale=(step,) * ARM + (FINGER_SPEED * step,) * FINGERS,
            clip=config.clipActions,
            cumulative=True,
        )
        self.kinematics = ForwardKinematics(
            robot.model, sites=("grasp", "left_pad", "right_pad", "handle"), device=self.device
        )
        lower, upper = torch.from_numpy(robot.joint_limits[:ROBOT]).to(self.device, torch.float32).unbind(1)
        self.lower, self.upper = lower, upper
        self.middle, self.half_range = (lower + upper) / 2, (upper - lower) / 2
        self.initial_joints = torch.tensor(INITIAL_JOINTS, device=self.device)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = torch.zeros(n, ROBOT + 1, device=self.device)
        joints = self.initial_joints + uniform(n, ROBOT, INITIAL_SPREAD, generator)
        qpos[:, :ROBOT] = joints.clamp(self.lower, self.upper)
        return qpos, torch.zeros_like(qpos)

    def initial_control(self, qpos: Tensor) -> Tensor:
        return qpos[:, :ROBOT]

    def observe(self, state: State) -> dict[str, Tensor]:
        position, rotation = self.kinematics(state.qpos)
        grasp, left_pad, right_pad, handle = position.unbind(1)
        return {
            "joint_position": (state.qpos[:, :ROBOT] - self.middle) / self.half_range,
            "joint_velocity": state.qvel[:, :ROBOT],
            "to_handle": handle - grasp,
            "drawer": state.qpos[:, ROBOT],
            "drawer_velocity": state.qvel[:, ROBOT],
            # For the reward: alignment of the hand's forward axis (z) with the drawer's inward one (-x), of its axis
            # from finger to finger (y) with the drawer's upward one (z), and the pads as seen from the handle.
            "forward": -rotation[:, 0, 0, 2],
            "upward": rotation[:, 0, 2, 1],
            "left_pad": left_pad - handle,
            "right_pad": right_pad - handle,
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return observed["drawer"] > OPENED

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        config = self.config
        drawer, left, right = observed["drawer"], observed["left_pad"], observed["right_pad"]
        distance = observed["to_handle"].norm(dim=1)
        near = (1.0 + distance.square()).pow(-2) * torch.where(distance <= AT_HANDLE, 2.0, 1.0)
        forward, upward = observed["forward"], observed["upward"]
        aligned = 0.5 * (forward * forward.abs() + upward * upward.abs())
        around = (left[:, 2] > 0) & (right[:, 2] < 0)
        half_around = 0.5 * around
        pads = around * (2 * FINGER_REACH - left[:, 2].abs() - right[:, 2].abs())
        terms = {
            "distance": config.distRewardScale * near,
            "rotation": config.rotRewardScale * aligned,
            "around_handle": config.aroundHandleRewardScale * half_around,
            "drawer": config.openRewardScale * drawer * (1.0 + half_around),
            "fingers": config.fingerDistRewardScale * pads,
            "actions": -config.actionPenaltyScale * state.action.square().sum(1),
            "ajar": 0.5 * (drawer > AJAR),
            "half_open": half_around * (drawer > HALF_OPEN),
            "opened": terminated * (2.0 * half_around + config.openedReward),
        }
        overreaching = torch.minimum(left[:, 0], right[:, 0]) < -OVERREACH
        return replaced_where(overreaching, terms, "overreach", -1.0)

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"drawer": observed["drawer"].clone(), "opened": (observed["drawer"] > OPENED).float()}
