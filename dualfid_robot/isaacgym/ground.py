"""What stands still under all environments: a plane, a height field, or a triangle mesh that becomes a height field."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.parameters import HeightFieldParams, PlaneParams, TriangleMeshParams
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.transforms import Transform, Vec3

_DEPTH = 1.0  # m, of the solid below a height field's lowest sample
_MOST_CELLS = 12  # of the height field, that one triangle of a mesh may span along an axis


@dataclass(frozen=True)
class Plane:
    """An infinite plane through a point; everything is on the side of its normal."""

    point: Vec3
    normal: Vec3
    friction: float


@dataclass(frozen=True)
class HeightField:
    """Heights (x samples, y samples), m, whose first sample is at `origin`; samples are `spacing` (x, y), m, apart."""

    heights: np.ndarray
    spacing: tuple[float, float]
    origin: Vec3
    friction: float


Ground = Plane | HeightField


def plane(params: PlaneParams) -> Plane:
    """The plane of `add_ground`."""
    normal = params.normal.normalize()
    return Plane(normal * -params.distance, normal, _friction(params))


def height_field(samples: np.ndarray, params: HeightFieldParams) -> HeightField:
    """The height field of `add_heightfield`, whose samples are in steps of its vertical scale, y fastest.

    Raises:
        ConfigError: it has more or fewer samples than its parameters say.
    """
    shape, count = (params.nbColumns, params.nbRows), np.asarray(samples).size
    if count != shape[0] * shape[1] or min(shape) < 2:
        raise ConfigError(
            f"add_heightfield: {count} samples; nbColumns={shape[0]} and nbRows={shape[1]}, at least 2 each"
        )
    heights = np.asarray(samples).reshape(shape) * params.vertical_scale
    return HeightField(heights, (params.column_scale, params.row_scale), _origin(params.transform), _friction(params))


def mesh(vertices: np.ndarray, triangles: np.ndarray, params: TriangleMeshParams) -> HeightField:
    """The upper surface of a triangle mesh of `add_triangle_mesh`, sampled at the spacing of its vertices.

    MuJoCo collides a mesh as its convex hull, so a terrain has to be a height field. Overhangs are lost, and a vertical
    wall leans over one sample.

    Raises:
        ConfigError: a triangle spans many samples, so that the mesh is no terrain of small triangles. Or vertices and
            triangles are not those that the parameters and the triangles speak of.
    """
    _check_mesh(np.asarray(vertices), np.asarray(triangles), params)
    corners = np.asarray(vertices, np.float64).reshape(-1, 3)
    faces = np.asarray(triangles).reshape(-1, 3).astype(np.int64)
    lowest = corners[:, :2].min(0)
    spacing = [_spacing(corners[:, axis]) for axis in (0, 1)]
    shape = [round(float(np.ptp(corners[:, axis])) / spacing[axis]) + 1 for axis in (0, 1)]
    say_once(f"the triangle mesh is a height field of {shape[0]} x {shape[1]} samples: vertical walls lean over one")
    heights = _upper_surface((corners[:, :2] - lowest) / spacing, corners[:, 2], faces, (shape[0], shape[1]))
    origin = _origin(params.transform) + Vec3(lowest[0], lowest[1], 0.0)
    return HeightField(heights, (spacing[0], spacing[1]), origin, _friction(params))


def _check_mesh(vertices: np.ndarray, triangles: np.ndarray, params: TriangleMeshParams) -> None:
    for name, count, values in (
        ("nb_vertices", params.nb_vertices, vertices),
        ("nb_triangles", params.nb_triangles, triangles),
    ):
        if 3 * count != values.size or not count:
            raise ConfigError(f"add_triangle_mesh: {name}={count}: {values.size} numbers are given, 3 for each")
    if not 0 <= triangles.min() <= triangles.max() < params.nb_vertices:
        raise ConfigError(
            f"add_triangle_mesh: a triangle has vertex {triangles.max()}: there are {params.nb_vertices}, from 0 on"
        )


def _spacing(coordinates: np.ndarray) -> float:
    """The most frequent distance between neighbouring vertices along an axis."""
    steps = np.diff(np.unique(np.round(coordinates, 4)))
    values, counts = np.unique(np.round(steps, 4), return_counts=True)
    if not len(values):
        raise ConfigError("add_triangle_mesh: the mesh has no extent")
    return float(values[counts.argmax()])


def _upper_surface(points: np.ndarray, z: np.ndarray, faces: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Greatest height of the triangles over each sample; points are in samples."""
    corners, tops = points[faces], z[faces]
    low = np.ceil(corners.min(1) - 1e-6).astype(np.int64)
    spans = np.floor(corners.max(1) + 1e-6).astype(np.int64) - low
    if spans.max(initial=0) > _MOST_CELLS:
        raise not_provided("add_triangle_mesh of large triangles", f"one spans {spans.max()} samples of the terrain")

    # The plane of each triangle over the ground; a vertical one covers no sample of its own.
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    flat = np.abs(area) > 1e-9
    area = np.where(flat, area, 1.0)
    heights = np.full(shape, -np.inf)
    for i in range(int(spans[:, 0].max(initial=0)) + 1):
        for j in range(int(spans[:, 1].max(initial=0)) + 1):
            sample = low + np.array((i, j))
            offset = sample - corners[:, 0]
            u = (offset[:, 0] * second[:, 1] - offset[:, 1] * second[:, 0]) / area
            v = (first[:, 0] * offset[:, 1] - first[:, 1] * offset[:, 0]) / area
            inside = flat & (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
            rows = np.flatnonzero(inside)
            rises = tops[rows, 1:] - tops[rows, :1]
            value = tops[rows, 0] + u[rows] * rises[:, 0] + v[rows] * rises[:, 1]
            np.maximum.at(heights, (sample[rows, 0], sample[rows, 1]), value)
    return np.where(np.isfinite(heights), heights, z.min())


def add_ground(spec: mujoco.MjSpec, grounds: list[Ground], contype: int, conaffinity: int) -> None:
    """Put the ground into a spec's world."""
    for number, ground in enumerate(grounds):
        common = {"name": f"ground_{number}", "contype": contype, "conaffinity": conaffinity, "condim": 3}
        friction = (ground.friction, 0.005, 0.0001)
        if isinstance(ground, Plane):
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_PLANE,
                size=(0, 0, 1),
                pos=list(ground.point),
                quat=_from_z(ground.normal),
                friction=friction,
                **common,
            )
            continue
        # MuJoCo's rows are along y, its heights between 0 and 1 of the elevation, its frame in the middle.
        heights = ground.heights
        lowest, rise = float(heights.min()), max(float(np.ptp(heights)), 1e-3)
        half = [(count - 1) * step / 2 for count, step in zip(heights.shape, ground.spacing, strict=True)]
        spec.add_hfield(
            name=f"terrain_{number}",
            nrow=heights.shape[1],
            ncol=heights.shape[0],
            size=(*half, rise, _DEPTH),
            userdata=((heights.T - lowest) / rise).astype(np.float32).ravel(),
        )
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_HFIELD,
            hfieldname=f"terrain_{number}",
            pos=list(ground.origin + Vec3(half[0], half[1], lowest)),
            friction=friction,
            **common,
        )


def _from_z(normal: Vec3) -> tuple[float, float, float, float]:
    """The quaternion (w, x, y, z) that turns the z axis to a unit normal."""
    if normal.z < -1 + 1e-9:
        return (0.0, 1.0, 0.0, 0.0)
    axis = Vec3(0, 0, 1).cross(normal)
    length = ((1 + normal.z) ** 2 + axis.length_sq()) ** 0.5
    return ((1 + normal.z) / length, axis.x / length, axis.y / length, axis.z / length)


def _friction(params: PlaneParams | HeightFieldParams | TriangleMeshParams) -> float:
    if params.static_friction != params.dynamic_friction:
        say_once(f"friction is one number: the dynamic one, {params.dynamic_friction}")
    if params.restitution:
        say_once("restitution has no counterpart: nothing bounces")
    return params.dynamic_friction


def _origin(transform: Transform) -> Vec3:
    if tuple(transform.r) != (0.0, 0.0, 0.0, 1.0):
        raise not_provided("a rotated terrain")
    return transform.p
