"""States of bodies from those of joints, for engines that give none."""

from __future__ import annotations

from typing import Any

import mujoco
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dualfid_robot.envs.kinematics import ForwardKinematics
from dualfid_robot.robots.model import RobotModel

_WXYZ = [3, 0, 1, 2]


class BodyKinematics:
    """Poses of all bodies by forward kinematics, velocities as its derivative along the motion."""

    def __init__(self, robot: RobotModel) -> None:
        self._forward = ForwardKinematics(robot.model, robot.body_names)
        model, free = robot.model, mujoco.mjtJoint.mjJNT_FREE
        roots = [joint for joint in range(model.njnt) if model.jnt_type[joint] == free]
        others = [joint for joint in range(model.njnt) if joint not in roots]
        self._roots = [(int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])) for joint in roots]
        self._positions = torch.from_numpy(model.jnt_qposadr[others]).long()
        self._velocities = torch.from_numpy(model.jnt_dofadr[others]).long()

    def __call__(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """States (N, bodies, 13) as in `Simulator.body_states`.

        Args:
            qpos: (N, nq), with quaternions of unit length.
            qvel: (N, nv).
        """
        values: tuple[Any, ...] = torch.func.jvp(self._poses, (qpos,), (self._rates(qpos, qvel),))
        (position, rotation), (linear, spin) = values
        quaternions = Rotation.from_matrix(rotation.reshape(-1, 3, 3).numpy()).as_quat()
        wxyz = torch.from_numpy(quaternions[:, _WXYZ]).float().view(*position.shape[:2], 4)
        cross = spin @ rotation.mT  # the matrix of the angular velocity's cross product
        angular = torch.stack([cross[..., 2, 1], cross[..., 0, 2], cross[..., 1, 0]], -1)
        return torch.cat([position, wxyz, linear, angular], -1)

    def _poses(self, qpos: Tensor) -> tuple[Tensor, Tensor]:
        poses = self._forward(qpos)
        return poses.position, poses.rotation

    def _rates(self, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Time derivative (N, nq) of positions: of a quaternion half its product with the body's angular velocity."""
        rates = torch.zeros_like(qpos)
        rates[:, self._positions] = qvel[:, self._velocities]
        for position, velocity in self._roots:
            rates[:, position : position + 3] = qvel[:, velocity : velocity + 3]
            real, imaginary = qpos[:, position + 3, None], qpos[:, position + 4 : position + 7]
            omega = qvel[:, velocity + 3 : velocity + 6]
            rates[:, position + 3] = -0.5 * (imaginary * omega).sum(1)
            rates[:, position + 4 : position + 7] = 0.5 * (real * omega + torch.linalg.cross(imaginary, omega))
        return rates
