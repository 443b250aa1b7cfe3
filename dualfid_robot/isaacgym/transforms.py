"""Vectors, rotations and poses of `isaacgym.gymapi`; quaternions are (x, y, z, w)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any


class Vec3:
    """Three numbers."""

    __slots__ = ("x", "y", "z")

    def __init__(self, x: Any = 0.0, y: Any = 0.0, z: Any = 0.0) -> None:
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z))

    def __add__(self, other: Vec3) -> Vec3:
        return Vec3(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other: Vec3) -> Vec3:
        return Vec3(self.x - other.x, self.y - other.y, self.z - other.z)

    def __mul__(self, factor: float) -> Vec3:
        return Vec3(self.x * factor, self.y * factor, self.z * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Vec3:
        return self * (1.0 / divisor)

    def __neg__(self) -> Vec3:
        return self * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vec3) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vec3({self.x}, {self.y}, {self.z})"

    def dot(self, other: Vec3) -> float:
        return self.x * other.x + self.y * other.y + self.z * other.z

    def cross(self, other: Vec3) -> Vec3:
        return Vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )

    def length_sq(self) -> float:
        return self.dot(self)

    def length(self) -> float:
        return math.sqrt(self.dot(self))

    def normalize(self) -> Vec3:
        """The vector of unit length; the zero vector stays."""
        length = self.length()
        return self if length == 0 else self / length


class Quat:
    """A rotation as a quaternion (x, y, z, w)."""

    __slots__ = ("w", "x", "y", "z")

    def __init__(self, x: Any = 0.0, y: Any = 0.0, z: Any = 0.0, w: Any = 1.0) -> None:
        self.x, self.y, self.z, self.w = float(x), float(y), float(z), float(w)

    @staticmethod
    def from_axis_angle(axis: Vec3, angle: float) -> Quat:
        """The rotation about an axis by an angle, rad."""
        v = axis.normalize() * math.sin(angle / 2)
        return Quat(v.x, v.y, v.z, math.cos(angle / 2))

    @staticmethod
    def from_euler_zyx(x: float, y: float, z: float) -> Quat:
        """The rotation about x, then about the fixed y, then about the fixed z, rad."""
        about_x = Quat.from_axis_angle(Vec3(1, 0, 0), x)
        about_y = Quat.from_axis_angle(Vec3(0, 1, 0), y)
        about_z = Quat.from_axis_angle(Vec3(0, 0, 1), z)
        return about_z * about_y * about_x

    def to_euler_zyx(self) -> tuple[float, float, float]:
        """The angles of `from_euler_zyx`, rad."""
        x, y, z, w = self
        return (
            math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))),
            math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        )

    def __iter__(self) -> Iterator[float]:
        return iter((self.x, self.y, self.z, self.w))

    def __mul__(self, other: Quat) -> Quat:
        """Hamilton's product: the rotation `other`, then this one."""
        a, b = Vec3(self.x, self.y, self.z), Vec3(other.x, other.y, other.z)
        v = b * self.w + a * other.w + a.cross(b)
        return Quat(v.x, v.y, v.z, self.w * other.w - a.dot(b))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quat) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Quat({self.x}, {self.y}, {self.z}, {self.w})"

    def inverse(self) -> Quat:
        """The inverse rotation, of a unit quaternion."""
        return Quat(-self.x, -self.y, -self.z, self.w)

    def normalize(self) -> Quat:
        """The quaternion of unit length."""
        length = math.sqrt(sum(part * part for part in self))
        return Quat(*(part / length for part in self))

    def rotate(self, vector: Vec3) -> Vec3:
        """The rotated vector."""
        v = Vec3(self.x, self.y, self.z)
        t = v.cross(vector) * 2.0
        return vector + t * self.w + v.cross(t)


class Transform:
    """A pose: position `p` and rotation `r`."""

    __slots__ = ("p", "r")

    def __init__(self, p: Vec3 | None = None, r: Quat | None = None) -> None:
        self.p = Vec3() if p is None else p
        self.r = Quat() if r is None else r

    def __mul__(self, other: Transform) -> Transform:
        """The transform `other`, then this one."""
        return Transform(self.transform_point(other.p), self.r * other.r)

    def __repr__(self) -> str:
        return f"Transform(p={self.p}, r={self.r})"

    def inverse(self) -> Transform:
        """The inverse transform."""
        back = self.r.inverse()
        return Transform(back.rotate(-self.p), back)

    def transform_point(self, point: Vec3) -> Vec3:
        """A point under the transform."""
        return self.p + self.r.rotate(point)

    def transform_vector(self, vector: Vec3) -> Vec3:
        """A direction under the transform."""
        return self.r.rotate(vector)
