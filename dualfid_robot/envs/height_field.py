"""Heights of the ground, looked up in the array of which MuJoCo makes its height field."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.robots.model import RobotModel


class HeightField:
    """A height field of the scene, fixed to the world without rotation: a grid of samples."""

    def __init__(self, robot: RobotModel, geom: str, device: torch.device | str) -> None:
        """Take the samples of the geom's height field to a device.

        Args:
            robot: the robot and its scene.
            geom: name of the geom.
            device: where heights are looked up.
        """
        model = robot.model
        shape = model.geom(geom)
        field = model.hfield(int(shape.dataid.item()))
        rows, columns = field.nrow.item(), field.ncol.item()
        half_x, half_y, elevation, _ = field.size
        # A field that was a picture has few different heights, so that their numbers take a quarter of the memory.
        heights, numbers = np.unique(field.data.ravel() * elevation + shape.pos[2], return_inverse=True)
        self._heights = torch.from_numpy(heights).to(device, torch.float32)
        self._samples = torch.from_numpy(numbers.astype(_smallest_type(len(heights)))).to(device)
        self._rows, self._columns = rows, columns
        self._x, self._y = float(shape.pos[0] - half_x), float(shape.pos[1] - half_y)
        self._per_x, self._per_y = (columns - 1) / (2 * half_x), (rows - 1) / (2 * half_y)

    def height(self, x: Tensor, y: Tensor) -> Tensor:
        """Height of the sample nearest to each point, m. Points beyond the edge take the edge's height.

        Args:
            x, y: coordinates of the points, world frame, m, both of the result's shape.
        """
        column = ((x - self._x) * self._per_x).round_().clamp_(0, self._columns - 1)
        row = ((y - self._y) * self._per_y).round_().clamp_(0, self._rows - 1)
        return self._heights[self._samples[torch.add(column, row, alpha=self._columns).long()].long()]


def _smallest_type(n: int) -> type[np.integer]:
    """The smallest type, out of those that every engine and format knows, for the numbers 0 to n - 1."""
    return np.uint8 if n <= 256 else np.int32
