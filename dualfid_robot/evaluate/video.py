"""Videos of a robot's motion, drawn in software or on a GPU, without a window."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import mujoco
import numpy as np

from dualfid_robot.config.values import require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

_SIZE = (480, 640)  # height, width
_FRAME_RATE = 30.0  # 1/s


class Video:
    """A video file that is being written, from the model's first camera where it has one."""

    def __init__(self, path: Path, robot: RobotModel, period: float, setting: str) -> None:
        """Open the file.

        Args:
            path: of the file; its ending says the format.
            robot: what is shown.
            period: s between the states to come, of which only so many are drawn as a video needs.
            setting: what asked for the video, in errors.

        Raises:
            ConfigError: a package is missing, there is no OpenGL to draw with, or the file cannot be written.
        """
        require_package(setting, "imageio", "video")
        import imageio.v2 as imageio  # of an extra

        if not path.parent.is_dir():
            raise ConfigError(f"{setting}: the folder {path.parent} does not exist")
        self._model, self._data = robot.model, mujoco.MjData(robot.model)
        self._stride, self._states = max(1, round(1.0 / (period * _FRAME_RATE))), 0
        try:
            self._renderer = mujoco.Renderer(robot.model, *_SIZE)
        except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
            raise ConfigError(
                f"{setting}: no OpenGL to draw with ({error}); install EGL (Debian: libegl1 libgl1-mesa-dri), "
                "or set MUJOCO_GL=osmesa with libosmesa6"
            ) from error
        try:
            self._file = imageio.get_writer(path, fps=1.0 / (self._stride * period))
        except (OSError, ValueError) as error:
            self._renderer.close()
            raise ConfigError(f"{setting}: cannot write it ({error})") from error

    def show(self, qpos: np.ndarray) -> None:
        """Add a state (nq,)."""
        if self._states % self._stride == 0:
            self._data.qpos[:] = qpos
            mujoco.mj_forward(self._model, self._data)
            self._renderer.update_scene(self._data, camera=0 if self._model.ncam else -1)
            self._file.append_data(self._renderer.render())
        self._states += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._renderer.close()
