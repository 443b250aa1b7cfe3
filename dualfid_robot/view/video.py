"""Videos of robots' motion, drawn in software or on a GPU, without a window."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import mujoco
import numpy as np

from dualfid_robot.config.values import require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.scene import Scene

_FRAME_RATE = 30.0  # 1/s
_MOST_PIXELS = 4096  # of an edge
_FORMATS = (".mp4", ".gif")


class Video:
    """A video file that is being written.

    Attributes:
        scene: what it shows.
    """

    def __init__(
        self, path: Path, robot: RobotModel, period: float, setting: str, size: tuple[int, int] = (640, 480), n: int = 1
    ) -> None:
        """Open the file.

        Args:
            path: of the file; its ending says the format.
            robot: what is shown.
            period: s between the states to come, of which only so many are drawn as a video needs.
            setting: what asked for the video, in errors.
            size: width and height, pixels.
            n: number of robots, side by side.

        Raises:
            ConfigError: a package is missing, there is no OpenGL to draw with, or the file cannot be written.
        """
        require_package(setting, "imageio", "video")
        import imageio.v2 as imageio  # of an extra

        if path.suffix not in _FORMATS:
            raise ConfigError(f"{setting}: a video's name ends in {' or '.join(_FORMATS)}")
        if not path.parent.is_dir():
            raise ConfigError(f"{setting}: the folder {path.parent} does not exist")
        self.scene = Scene(robot, n)
        self._period = period
        self._stride, self._states = max(1, round(1.0 / (period * _FRAME_RATE))), 0
        self._renderer = renderer(self.scene, size, setting)
        try:
            self._file = imageio.get_writer(path, fps=1.0 / (self._stride * period))
        except (OSError, ValueError) as error:
            self._renderer.close()
            raise ConfigError(f"{setting}: cannot write it ({error})") from error

    def show(self, qpos: np.ndarray) -> None:
        """Add a state (n, nq)."""
        if self._states % self._stride == 0:
            self.scene.place(qpos, self._stride * self._period)
            self._renderer.update_scene(self.scene.data, camera=self.scene.camera)
            self._file.append_data(self._renderer.render())
        self._states += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._renderer.close()


def renderer(scene: Scene, size: tuple[int, int], setting: str) -> mujoco.Renderer:
    """What draws a scene in pixels.

    Args:
        scene: which.
        size: width and height, pixels.
        setting: what asked for it, in the error.

    Raises:
        ConfigError: there is no OpenGL to draw with.
    """
    try:
        return mujoco.Renderer(scene.model, size[1], size[0])
    except (RuntimeError, AttributeError, ImportError, mujoco.FatalError) as error:
        raise ConfigError(
            f"{setting}: no OpenGL to draw with ({error}); install EGL (Debian: libegl1 libgl1-mesa-dri), "
            "or set MUJOCO_GL=osmesa with libosmesa6"
        ) from error


def moving_picture(path: Path, width: int = 320, frames: int = 150) -> tuple[bytes, tuple[int, int]]:
    """A video as a GIF, for pages that play no videos.

    Args:
        path: of the video.
        width: of the GIF, pixels.
        frames: the most that it has; of a longer video every second, third, … is taken.

    Returns:
        its bytes, and its width and height.
    """
    import imageio.v3 as imageio
    from PIL import Image  # imageio needs it

    rate = imageio.immeta(path)["fps"]
    all_frames = [Image.fromarray(frame) for frame in imageio.imiter(path)]
    stride = -(-len(all_frames) // frames)
    height = round(all_frames[0].height * width / all_frames[0].width)
    shown = [frame.resize((width, height)).quantize(64) for frame in all_frames[::stride]]
    written = io.BytesIO()
    shown[0].save(written, "gif", save_all=True, append_images=shown[1:], duration=1000 * stride / rate, loop=0)
    return written.getvalue(), (width, height)


def check_drawing(robot: RobotModel, size: tuple[int, int], setting: str) -> None:
    """Draw one picture of a robot, so that what is missing is found before a film is due. See `renderer`."""
    drawing = renderer(Scene(robot), size, setting)
    drawing.close()


def video_size(key: str, value: Iterable[object] | object) -> tuple[int, int]:
    """Width and height of a video, as a setting gives them.

    Raises:
        ConfigError: the value is no pair of even numbers of pixels within what can be drawn.
    """
    pair = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    whole = [
        x for x in pair if isinstance(x, int) and not isinstance(x, bool) and x % 2 == 0 and 16 <= x <= _MOST_PIXELS
    ]
    if len(pair) != 2 or len(whole) != 2:
        raise ConfigError(f"{key}={value}: two even numbers from 16 to {_MOST_PIXELS} are expected: [width,height]")
    return whole[0], whole[1]
