"""What the properties do with worlds, and what they read from them."""

from __future__ import annotations

import copy
import math

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator


def everyone(simulator: Simulator) -> Tensor:
    """Ids of all worlds."""
    return torch.arange(simulator.num_worlds, device=simulator.device)


def put(simulator: Simulator, qpos: Tensor, qvel: Tensor, ids: Tensor | None = None) -> None:
    """Put worlds, by default all, into states that lie on the CPU."""
    device = simulator.device
    ids = everyone(simulator) if ids is None else ids.to(device)
    simulator.set_state(ids, qpos.to(device), qvel.to(device))


def set_parameter(simulator: Simulator, name: str, values: Tensor, ids: Tensor | None = None) -> None:
    device = simulator.device
    ids = everyone(simulator) if ids is None else ids.to(device)
    simulator.set_parameters(ids, {name: values.to(device)})


def step(simulator: Simulator, ctrl: Tensor, n: int | None = None) -> None:
    n = simulator.num_worlds if n is None else n
    simulator.step(ctrl[:n].to(simulator.device), n)


def run(simulator: Simulator, seconds: float, ctrl: Tensor | None = None) -> None:
    """Step all worlds under constant control, by default none."""
    if ctrl is None:
        ctrl = torch.zeros(simulator.num_worlds, simulator.robot.model.nu)
    for _ in range(round(seconds / simulator.control_dt)):
        step(simulator, ctrl)


def positions(simulator: Simulator) -> np.ndarray:
    return simulator.qpos.double().cpu().numpy()


def velocities(simulator: Simulator) -> np.ndarray:
    return simulator.qvel.double().cpu().numpy()


def state(simulator: Simulator) -> Tensor:
    """All that a task may see: (N, nq + nv + 6 bodies), on the CPU."""
    parts = [simulator.qpos, simulator.qvel, simulator.contact_wrench.flatten(1)]
    return torch.cat(parts, 1).cpu().clone()


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, infinite if one of them is not finite."""
    found = (a.double() - b.double()).abs().max()
    return float(torch.where(torch.isfinite(found), found, math.inf))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest relative difference."""
    return float(np.abs(found / expected - 1).max())


def standing(robot: RobotModel, n: int) -> tuple[Tensor, Tensor]:
    """The Ant just above the ground with its legs bent, at rest."""
    qpos = torch.zeros(n, 15)
    qpos[:, 2], qpos[:, 3] = 0.53, 1.0
    bend = {"ankle_1": 0.9, "ankle_2": -0.9, "ankle_3": -0.9, "ankle_4": 0.9}
    for name, angle in bend.items():
        qpos[:, 7 + robot.joint_names.index(name)] = angle
    return qpos, torch.zeros(n, 14)


def random_states(robot: RobotModel, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random poses and velocities around the initial state; a floating base anywhere and turned any way."""
    generator = torch.Generator().manual_seed(seed)
    qpos = torch.from_numpy(robot.model.qpos0).float().repeat(n, 1)
    qvel = torch.randn(n, robot.model.nv, generator=generator)
    joints = len(robot.joint_names)
    qpos[:, qpos.shape[1] - joints :] += 0.5 * torch.randn(n, joints, generator=generator)
    if robot.floating_base:
        qpos[:, :3] += torch.randn(n, 3, generator=generator)
        qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)
    return qpos, qvel


def rotation_error(a: Tensor, b: Tensor) -> Tensor:
    """Angle between the rotations of unit quaternions (n, 4), whatever their signs, rad."""
    a, b = a.double(), b.double()
    # Of the imaginary part of a* b, not the arc cosine of its real part, which loses half of the digits at zero.
    imaginary = a[:, :1] * b[:, 1:] - b[:, :1] * a[:, 1:] - torch.linalg.cross(a[:, 1:], b[:, 1:])
    return 2 * torch.arcsin(imaginary.norm(dim=1).clamp(max=1.0))


def momenta(simulator: Simulator, com: Tensor | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of mass, linear momentum, angular momentum about that centre, (n, 3) each, by MuJoCo's functions.

    Args:
        com: (n, bodies, 3), by how much the bodies' centres of mass are away from where the robot's file has them.
    """
    model = copy.copy(simulator.robot.model)
    data = mujoco.MjData(model)
    rows = []
    for world, (qpos, qvel) in enumerate(zip(positions(simulator), velocities(simulator), strict=True)):
        if com is not None:
            model.body_ipos[1:] = simulator.robot.model.body_ipos[1:] + com[world].numpy()
            mujoco.mj_setConst(model, data)
        data.qpos[:], data.qvel[:] = qpos, qvel
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_comVel(model, data)
        mujoco.mj_subtreeVel(model, data)
        linear = data.subtree_linvel[0] * model.body_subtreemass[0]
        rows.append((data.subtree_com[0].copy(), linear, data.subtree_angmom[0].copy()))
    centre, linear, angular = (np.array(column) for column in zip(*rows, strict=True))
    return centre, linear, angular


def tips(robot: RobotModel, qpos: np.ndarray) -> np.ndarray:
    """World positions of the lower ends of the feet's capsules, (feet, 3), by MuJoCo's kinematics."""
    data = mujoco.MjData(robot.model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(robot.model, data)
    found = []
    for name in robot.feet:
        geom = robot.model.geom(name)
        axis = data.geom_xmat[geom.id].reshape(3, 3)[:, 2] * geom.size[1]
        centre = data.geom_xpos[geom.id]
        found.append(min(centre + axis, centre - axis, key=lambda end: end[2]) - [0, 0, geom.size[0]])
    return np.array(found)
