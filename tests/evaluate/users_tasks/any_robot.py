"""A task for any robot: nothing is asked of it. Positions and velocities are seen, and controls are drawn from their
ranges."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform


class AnyRobot(Task):
    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        model = robot.model
        limits = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, (-1.0, 1.0))
        self.terms = (Term("position", model.nq), Term("velocity", model.nv, scale=0.1))
        self.action_mapping = ActionMapping(
            "control", scale=tuple((limits[:, 1] - limits[:, 0]) / 2), offset=tuple(limits.mean(1))
        )
        self.initial = torch.from_numpy(model.qpos0).to(self.device, torch.float32)
        scalar = np.isin(model.jnt_type, (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)))
        self.scalar_columns = torch.from_numpy(model.jnt_qposadr[scalar]).to(self.device, torch.int64)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = self.initial.repeat(n, 1)
        qpos[:, self.scalar_columns] += uniform(n, len(self.scalar_columns), 0.01, generator)
        return qpos, torch.zeros(n, self.robot.model.nv, device=self.device)

    def observe(self, state: State) -> dict[str, Tensor]:
        return {"position": state.qpos, "velocity": state.qvel}

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros(len(state.qpos), dtype=torch.bool, device=self.device)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        return {"alive": torch.ones(len(state.qpos), device=self.device)}
