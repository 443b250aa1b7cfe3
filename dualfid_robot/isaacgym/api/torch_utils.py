"""`isaacgym.torch_utils`: rotations and random numbers in torch, from their formulae.

Quaternions are (x, y, z, w), unit length. Every function that takes tensors can be compiled by TorchScript. Task code
writes `from isaacgym.torch_utils import *` and expects `np` and `torch` to come along.
"""

from __future__ import annotations

from typing import Tuple  # noqa: UP035  (TorchScript reads the annotations)

import numpy as np
import torch
from torch import Tensor


def to_torch(x, dtype: torch.dtype = torch.float, device: str = "cuda:0", requires_grad: bool = False):  # type: ignore[no-untyped-def]
    """A tensor from numbers; where the machine has no CUDA, the default device is the CPU."""
    if device == "cuda:0" and not torch.cuda.is_available():
        device = "cpu"
    return torch.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)


def normalize(x: Tensor, eps: float = 1e-9) -> Tensor:
    """Vectors (…, n) of unit length; shorter ones than `eps` are divided by it."""
    return x / x.norm(p=2, dim=-1).clamp(min=eps).unsqueeze(-1)


def quat_unit(a: Tensor) -> Tensor:
    """Quaternions of unit length."""
    return normalize(a)


def quat_mul(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton's product a b: the rotation b, then a."""
    shape = a.shape
    a, b = a.reshape(-1, 4), b.reshape(-1, 4)
    av, aw, bv, bw = a[:, :3], a[:, 3:], b[:, :3], b[:, 3:]
    vector = aw * bv + bw * av + torch.cross(av, bv, dim=-1)
    scalar = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([vector, scalar], dim=-1).view(shape)


def quat_conjugate(a: Tensor) -> Tensor:
    """The inverse rotations."""
    shape = a.shape
    a = a.reshape(-1, 4)
    return torch.cat([-a[:, :3], a[:, 3:]], dim=-1).view(shape)


def quat_apply(a: Tensor, b: Tensor) -> Tensor:
    """Vectors b rotated by a: b + 2 w (v × b) + 2 v × (v × b)."""
    shape = b.shape
    a, b = a.reshape(-1, 4), b.reshape(-1, 3)
    v = a[:, :3]
    t = 2.0 * torch.cross(v, b, dim=-1)
    return (b + a[:, 3:] * t + torch.cross(v, t, dim=-1)).view(shape)


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Vectors (n, 3) rotated by q (n, 4): from the body's frame to the world's."""
    return quat_apply(q, v)


def quat_rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """Vectors (n, 3) rotated by the inverse of q (n, 4): from the world's frame to the body's."""
    return quat_apply(quat_conjugate(q), v)


def quat_from_angle_axis(angle: Tensor, axis: Tensor) -> Tensor:
    """Rotations by angle (n), rad, about axis (n, 3)."""
    half = (angle / 2).unsqueeze(-1)
    return quat_unit(torch.cat([normalize(axis) * half.sin(), half.cos()], dim=-1))


def normalize_angle(x: Tensor) -> Tensor:
    """The same angle in [-pi, pi]."""
    return torch.atan2(torch.sin(x), torch.cos(x))


def tf_inverse(q: Tensor, t: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Rotation and translation of the inverse transform."""
    inverse = quat_conjugate(q)
    return inverse, -quat_apply(inverse, t)


def tf_apply(q: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Points v under the transform."""
    return quat_apply(q, v) + t


def tf_vector(q: Tensor, v: Tensor) -> Tensor:
    """Directions v under the transform."""
    return quat_apply(q, v)


def tf_combine(q1: Tensor, t1: Tensor, q2: Tensor, t2: Tensor) -> Tuple[Tensor, Tensor]:  # noqa: UP006
    """Rotation and translation of transform 2, then 1."""
    return quat_mul(q1, q2), quat_apply(q1, t2) + t1


def get_basis_vector(q: Tensor, v: Tensor) -> Tensor:
    """A basis vector of the body in the world's frame."""
    return quat_rotate(q, v)


def get_axis_params(value, axis_idx, x_value=0.0, dtype=float, n_dims=3):  # type: ignore[no-untyped-def]
    """A list of n numbers: `value` on one axis, `x_value` on the first, zeros elsewhere."""
    numbers = np.zeros((n_dims,))
    assert axis_idx < n_dims, "the axis dim should be within the vector dimensions"
    numbers[0] = x_value
    numbers[axis_idx] = value
    return [dtype(number) for number in numbers]


def copysign(a: float, b: Tensor) -> Tensor:
    """The number a with the signs of b."""
    return torch.abs(torch.full_like(b, a)) * torch.sign(b)


def get_euler_xyz(q: Tensor) -> Tuple[Tensor, Tensor, Tensor]:  # noqa: UP006
    """Roll, pitch and yaw (z-y-x) of rotations (n, 4), rad in [0, 2 pi)."""
    x, y, z, w = q[:, 0], q[:, 1], q[:, 2], q[:, 3]
    roll = torch.atan2(2.0 * (w * x + y * z), w * w - x * x - y * y + z * z)
    sine = 2.0 * (w * y - z * x)
    pitch = torch.where(sine.abs() >= 1, copysign(np.pi / 2.0, sine), torch.asin(sine.clamp(-1.0, 1.0)))
    yaw = torch.atan2(2.0 * (w * z + x * y), w * w + x * x - y * y - z * z)
    return roll % (2 * np.pi), pitch % (2 * np.pi), yaw % (2 * np.pi)


def quat_from_euler_xyz(roll: Tensor, pitch: Tensor, yaw: Tensor) -> Tensor:
    """Rotations from roll, pitch and yaw (z-y-x), rad."""
    cr, sr = torch.cos(roll * 0.5), torch.sin(roll * 0.5)
    cp, sp = torch.cos(pitch * 0.5), torch.sin(pitch * 0.5)
    cy, sy = torch.cos(yaw * 0.5), torch.sin(yaw * 0.5)
    x = cy * sr * cp - sy * cr * sp
    y = cy * cr * sp + sy * sr * cp
    z = sy * cr * cp - cy * sr * sp
    return torch.stack([x, y, z, cy * cr * cp + sy * sr * sp], dim=-1)


def torch_rand_float(lower: float, upper: float, shape: Tuple[int, int], device: str) -> Tensor:  # noqa: UP006
    """Uniform numbers in [lower, upper)."""
    return (upper - lower) * torch.rand(shape[0], shape[1], device=device) + lower


def torch_random_dir_2(shape: Tuple[int, int], device: str) -> Tensor:  # noqa: UP006
    """Random directions in the plane, (n, 2), from a shape (n, 1)."""
    angle = torch_rand_float(-np.pi, np.pi, shape, device).squeeze(-1)
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)


def tensor_clamp(t: Tensor, min_t: Tensor, max_t: Tensor) -> Tensor:
    """Elementwise bounds."""
    return torch.max(torch.min(t, max_t), min_t)


def scale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """From [-1, 1] to [lower, upper]."""
    return 0.5 * (x + 1.0) * (upper - lower) + lower


def unscale(x: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """From [lower, upper] to [-1, 1]."""
    return (2.0 * x - upper - lower) / (upper - lower)


def unscale_np(x, lower, upper):  # type: ignore[no-untyped-def]
    """`unscale` of NumPy's arrays."""
    return (2.0 * x - upper - lower) / (upper - lower)
