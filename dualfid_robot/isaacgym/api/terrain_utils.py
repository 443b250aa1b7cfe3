"""`isaacgym.terrain_utils`: generators of height fields.

A height field is an int16 array (width, length) in steps of `vertical_scale`, its samples `horizontal_scale` apart.
Sizes given in metres are rounded down to whole samples or steps. Every generator changes its terrain and returns it.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RegularGridInterpolator


class SubTerrain:
    """One tile of a terrain, flat at first.

    Attributes:
        height_field_raw: (width, length) int16, in steps of `vertical_scale`.
    """

    def __init__(
        self,
        terrain_name: str = "terrain",
        width: int = 256,
        length: int = 256,
        vertical_scale: float = 1.0,
        horizontal_scale: float = 1.0,
    ) -> None:
        self.terrain_name = terrain_name
        self.vertical_scale = vertical_scale
        self.horizontal_scale = horizontal_scale
        self.width = width
        self.length = length
        self.height_field_raw = np.zeros((width, length), dtype=np.int16)

    def steps(self, height: float) -> int:
        """A height in m, in whole steps."""
        return int(height / self.vertical_scale)

    def samples(self, distance: float) -> int:
        """A distance in m, in whole samples."""
        return int(distance / self.horizontal_scale)


def random_uniform_terrain(
    terrain: SubTerrain,
    min_height: float,
    max_height: float,
    step: float = 1,
    downsampled_scale: float | None = None,
) -> SubTerrain:
    """Add uniform noise, drawn every `downsampled_scale` metres and interpolated linearly between."""
    # Draw heights on a coarse grid over the tile.
    spacing = terrain.horizontal_scale if downsampled_scale is None else downsampled_scale
    levels = np.arange(terrain.steps(min_height), terrain.steps(max_height) + 1, max(terrain.steps(step), 1))
    extent = (terrain.width * terrain.horizontal_scale, terrain.length * terrain.horizontal_scale)
    coarse = [np.linspace(0, size, max(int(size / spacing), 2)) for size in extent]
    noise = np.random.choice(levels, tuple(len(axis) for axis in coarse))
    # Interpolate them at the samples.
    fine = np.meshgrid(
        np.linspace(0, extent[0], terrain.width), np.linspace(0, extent[1], terrain.length), indexing="ij"
    )
    heights = RegularGridInterpolator(coarse, noise)(np.stack(fine, -1))
    terrain.height_field_raw += np.rint(heights).astype(np.int16)
    return terrain


def sloped_terrain(terrain: SubTerrain, slope: float = 1) -> SubTerrain:
    """Add a ramp that rises along the width."""
    rise = slope * terrain.horizontal_scale / terrain.vertical_scale
    terrain.height_field_raw += (rise * np.arange(terrain.width)[:, None]).astype(np.int16)
    return terrain


def pyramid_sloped_terrain(terrain: SubTerrain, slope: float = 1, platform_size: float = 1.0) -> SubTerrain:
    """Add a pyramid (a pit for a negative slope) with a square platform in its middle."""
    # Height falls from the middle as the product of both distances to the edge.
    middle = (terrain.width // 2, terrain.length // 2)
    rows = (middle[0] - np.abs(middle[0] - np.arange(terrain.width))) / middle[0]
    columns = (middle[1] - np.abs(middle[1] - np.arange(terrain.length))) / middle[1]
    top = int(slope * (terrain.horizontal_scale / terrain.vertical_scale) * (terrain.width / 2))
    terrain.height_field_raw += (top * np.outer(rows, columns)).astype(np.int16)
    # The height at the platform's corner bounds all others.
    half = terrain.samples(platform_size) // 2
    corner = terrain.height_field_raw[middle[0] - half, middle[1] - half]
    terrain.height_field_raw = np.clip(terrain.height_field_raw, min(corner, 0), max(corner, 0))
    return terrain


def discrete_obstacles_terrain(
    terrain: SubTerrain,
    max_height: float,
    min_size: float,
    max_size: float,
    num_rects: int,
    platform_size: float = 1.0,
) -> SubTerrain:
    """Put rectangles of heights ±`max_height` and ±half of it at random places, and a flat platform in the middle."""
    top = terrain.steps(max_height)
    rows, columns = terrain.height_field_raw.shape
    sizes = np.arange(terrain.samples(min_size), terrain.samples(max_size), 4)
    for _ in range(num_rects):
        width, length = np.random.choice(sizes), np.random.choice(sizes)
        row = np.random.choice(np.arange(0, rows - width, 4))
        column = np.random.choice(np.arange(0, columns - length, 4))
        height = np.random.choice([-top, -top // 2, top // 2, top])
        terrain.height_field_raw[row : row + width, column : column + length] = height
    _level_middle(terrain, platform_size)
    return terrain


def wave_terrain(terrain: SubTerrain, num_waves: int = 1, amplitude: float = 1.0) -> SubTerrain:
    """Add a sine wave along each axis, each of half the amplitude."""
    half = 0.5 * amplitude / terrain.vertical_scale
    rows = np.cos(2 * np.pi * num_waves * np.arange(terrain.width) / terrain.width)
    columns = np.sin(2 * np.pi * num_waves * np.arange(terrain.length) / terrain.length)
    terrain.height_field_raw += (half * (rows[:, None] + columns[None, :])).astype(np.int16)
    return terrain


def stairs_terrain(terrain: SubTerrain, step_width: float, step_height: float) -> SubTerrain:
    """Add stairs that rise along the width."""
    stair = np.arange(terrain.width) // terrain.samples(step_width) + 1
    terrain.height_field_raw += (stair * terrain.steps(step_height)).astype(np.int16)[:, None]
    return terrain


def pyramid_stairs_terrain(
    terrain: SubTerrain, step_width: float, step_height: float, platform_size: float = 1.0
) -> SubTerrain:
    """Build stairs from all four sides up (down for a negative height) to a platform in the middle."""
    width, platform = terrain.samples(step_width), terrain.samples(platform_size)
    height = 0
    low_row, high_row, low_column, high_column = 0, terrain.width, 0, terrain.length
    while high_row - low_row > platform and high_column - low_column > platform:
        low_row, high_row = low_row + width, high_row - width
        low_column, high_column = low_column + width, high_column - width
        height += terrain.steps(step_height)
        terrain.height_field_raw[low_row:high_row, low_column:high_column] = height
    return terrain


def stepping_stones_terrain(
    terrain: SubTerrain,
    stone_size: float,
    stone_distance: float,
    max_height: float,
    platform_size: float = 1.0,
    depth: float = -10,
) -> SubTerrain:
    """Build square stones over a hole of `depth`, and a platform in the middle.

    Each row of stones is shifted at random.
    """
    size, gap, top = terrain.samples(stone_size), terrain.samples(stone_distance), terrain.steps(max_height)
    heights = np.arange(-top - 1, top, 1)
    terrain.height_field_raw[:, :] = terrain.steps(depth)
    for start in range(0, terrain.length, size + gap):
        # The first stone of a row is cut by a random shift; the others follow at the fixed distance.
        shift = np.random.randint(0, size)
        strip = slice(start, min(start + size, terrain.length))
        terrain.height_field_raw[: max(shift - gap, 0), strip] = np.random.choice(heights)
        for row in range(shift, terrain.width, size + gap):
            terrain.height_field_raw[row : min(row + size, terrain.width), strip] = np.random.choice(heights)
    _level_middle(terrain, platform_size)
    return terrain


def convert_heightfield_to_trimesh(
    height_field_raw: np.ndarray,
    horizontal_scale: float,
    vertical_scale: float,
    slope_threshold: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (rows · columns, 3) float32, m, and triangles (k, 3) uint32 of a height field (rows, columns).

    Where the slope between neighbours exceeds `slope_threshold`, the lower vertex moves under the higher one. So the
    wall between them becomes vertical.
    """
    rows, columns = height_field_raw.shape
    x, y = np.meshgrid(np.arange(rows) * horizontal_scale, np.arange(columns) * horizontal_scale, indexing="ij")
    if slope_threshold is not None:
        steep = slope_threshold * horizontal_scale / vertical_scale
        x = x + horizontal_scale * _moves(height_field_raw, steep, 0)
        y = y + horizontal_scale * _moves(height_field_raw, steep, 1)
    vertices = np.stack([x, y, height_field_raw * vertical_scale], -1).reshape(-1, 3).astype(np.float32)
    # Two triangles for each cell, from the indices of its corners.
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    first = np.stack([corner, corner + columns + 1, corner + 1], -1)
    second = np.stack([corner, corner + columns, corner + columns + 1], -1)
    triangles = np.stack([first, second], 1).reshape(-1, 3).astype(np.uint32)
    return vertices, triangles


def _moves(heights: np.ndarray, steep: float, axis: int) -> np.ndarray:
    """-1, 0 or 1 for each vertex: the direction in which it moves along an axis. Only the feet of steep walls move."""
    rises = np.diff(heights.astype(np.float64), axis=axis)
    rise, fall = rises > steep, rises < -steep
    moves = np.zeros(heights.shape, dtype=np.int8)
    lower = [slice(None)] * 2
    upper = [slice(None)] * 2
    lower[axis], upper[axis] = slice(None, -1), slice(1, None)
    moves[tuple(lower)] += rise
    moves[tuple(upper)] -= fall
    return moves


def _level_middle(terrain: SubTerrain, platform_size: float) -> None:
    """Put a flat square of height 0 into the middle."""
    half = terrain.samples(platform_size) // 2
    row, column = terrain.width // 2, terrain.length // 2
    terrain.height_field_raw[row - half : row + half, column - half : column + half] = 0
