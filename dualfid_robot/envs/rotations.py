"""Batched rotations. Quaternions are (w, x, y, z), unit length, body to world, as in MuJoCo."""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) that take body to world coordinates, from quaternions (n, 4)."""
    w, x, y, z = quaternion.unbind(1)
    xx, yy, zz = x * x, y * y, z * z
    xy, xz, yz, wx, wy, wz = x * y, x * z, y * z, w * x, w * y, w * z
    rows = (
        1 - 2 * (yy + zz), 2 * (xy - wz), 2 * (xz + wy),
        2 * (xy + wz), 1 - 2 * (xx + zz), 2 * (yz - wx),
        2 * (xz - wy), 2 * (yz + wx), 1 - 2 * (xx + yy),
    )  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def yaw(rotation: Tensor) -> Tensor:
    """Heading of the body's x axis about the world's z axis, rad in (-pi, pi], (n,) from (n, 3, 3)."""
    return torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])


def roll(rotation: Tensor) -> Tensor:
    """Rotation about the body's x axis (z-y-x Euler angles), rad in (-pi, pi], (n,) from (n, 3, 3)."""
    return torch.atan2(rotation[:, 2, 1], rotation[:, 2, 2])


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
