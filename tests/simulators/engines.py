"""The engines under test and the states that they are put into."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator

DT = 1 / 60

ENGINES: dict[str, dict[str, Any]] = {
    "mujoco": {"engine": "mujoco"},
    "mujoco_reduced": {
        "engine": "mujoco",
        "substeps": 2,
        "cone": "pyramidal",
        "iterations": 10,
        "contacts": "feet",
    },
    "pybullet": {"engine": "pybullet", "workers": 2, "robots_per_client": 4},
}


def everyone(simulator: Simulator) -> Tensor:
    """Ids of all worlds."""
    return torch.arange(simulator.num_worlds)


def standing(robot: RobotModel, n: int) -> tuple[Tensor, Tensor]:
    """The Ant just above the ground with its legs bent, at rest."""
    qpos = torch.zeros(n, 15)
    qpos[:, 2], qpos[:, 3] = 0.53, 1.0
    bend = {"ankle_1": 0.9, "ankle_2": -0.9, "ankle_3": -0.9, "ankle_4": 0.9}
    for name, angle in bend.items():
        qpos[:, 7 + robot.joint_names.index(name)] = angle
    return qpos, torch.zeros(n, 14)


def random_states(robot: RobotModel, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random poses and velocities, a floating base high in the air."""
    generator = torch.Generator().manual_seed(seed)
    qpos = torch.from_numpy(robot.model.qpos0).float().repeat(n, 1)
    qvel = torch.randn(n, robot.model.nv, generator=generator)
    joints = len(robot.joint_names)
    qpos[:, qpos.shape[1] - joints :] += 0.5 * torch.randn(n, joints, generator=generator)
    if robot.floating_base:
        qpos[:, :3] = torch.randn(n, 3, generator=generator) + torch.tensor([0.0, 0.0, 20.0])
        qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    return qpos, qvel


def rotation_error(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the rotations of unit quaternions (n, 4), whatever their signs, rad."""
    return 2 * torch.arccos((a.double() * b.double()).sum(1).abs().clamp(max=1.0))
