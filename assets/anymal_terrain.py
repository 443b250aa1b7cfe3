"""Writes anymal_terrain.png, the height field of anymal_terrain.xml: `python assets/anymal_terrain.py`.

A grid of square cells: levels of difficulty along x, kinds of terrain along y. Kinds and their measures follow Isaac
Gym's AnymalTerrain; steps are 0.3 m wide, since samples are 0.1 m apart, and heights are multiples of 12.5 mm, the
resolution of an 8-bit image.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

SPACING = 0.1  # m between samples
QUANTUM = 0.0125  # m of height per grey value
ZERO = 127  # grey value of height 0
CELL = 80  # samples along a cell's edge
RIM = 8  # flat samples around all cells
LEVELS = 10

Cell = np.ndarray  # (CELL, CELL) heights, m, indexed by x and y


def distance_from_edge() -> Cell:
    """Of each sample of a cell, m."""
    steps = np.minimum(np.arange(CELL), np.arange(CELL)[::-1])
    return SPACING * np.minimum(steps[:, None], steps[None, :])


def smooth_slope(difficulty: float, rng: np.random.Generator) -> Cell:
    """A pyramid with slopes of up to 0.4 and a platform of 3 m."""
    return 0.4 * difficulty * np.minimum(distance_from_edge(), 2.5)


def rough_slope(difficulty: float, rng: np.random.Generator) -> Cell:
    """The same under noise of up to 0.1 m in patches of 0.2 m."""
    noise = 0.025 * rng.integers(-4, 5, (CELL // 2, CELL // 2))
    return smooth_slope(difficulty, rng) + np.kron(noise, np.ones((2, 2))) * (distance_from_edge() > 0.15)


def stairs_down(difficulty: float, rng: np.random.Generator) -> Cell:
    """Seven steps down from a platform in the middle, 0.05 to 0.21 m high."""
    height = np.round((0.05 + 0.175 * difficulty) / QUANTUM) * QUANTUM
    return height * np.clip(np.floor(distance_from_edge() / 0.3 + 1e-6), 0, 7)


def stairs_up(difficulty: float, rng: np.random.Generator) -> Cell:
    """The same upside down."""
    return -stairs_down(difficulty, rng)


def discrete_obstacles(difficulty: float, rng: np.random.Generator) -> Cell:
    """Forty blocks and pits with edges of 1 to 2 m, up to 0.18 m high, around a flat platform of 3 m."""
    cell = np.zeros((CELL, CELL))
    highest = 0.025 + 0.175 * difficulty
    for _ in range(40):
        (width, length), height = rng.integers(10, 21, 2), rng.choice([-1.0, -0.5, 0.5, 1.0]) * highest
        x, y = rng.integers(1, CELL - width), rng.integers(1, CELL - length)
        cell[x : x + width, y : y + length] = height
    cell[distance_from_edge() > 2.5] = 0.0
    return cell


KINDS: tuple[Callable[[float, np.random.Generator], Cell], ...] = (
    smooth_slope,
    rough_slope,
    stairs_up,
    stairs_down,
    discrete_obstacles,
)


def heights() -> np.ndarray:
    """Heights (x, y) of all samples, m; the same on every call."""
    rng = np.random.default_rng(0)
    cells = [[kind(level / LEVELS, rng) for kind in KINDS] for level in range(LEVELS)]
    return np.pad(np.block(cells), RIM)


def image() -> np.ndarray:
    """The height field as MuJoCo reads it: 8 bits, rows from the greatest to the least y, columns along x."""
    grey = np.round(heights() / QUANTUM).astype(int) + ZERO
    assert grey.min() >= 0 and grey.max() <= 255
    return grey.astype(np.uint8).T[::-1]


if __name__ == "__main__":
    imageio.imwrite(Path(__file__).with_suffix(".png"), image())
