"""Videos of robots' motion, drawn in software or on a GPU, without a window."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

import mujoco
import numpy as np

from dualfid_robot.atomic import replaced
from dualfid_robot.config.values import require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.scene import Scene

_FRAME_RATE = 30.0  # 1/s
_MOST_PIXELS = 4096  # of an edge
_PROBE = 1 << 20  # bytes that are written to find out why others could not be


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
            ConfigError: a package is missing, there is no OpenGL to draw with, or the path is no video's.
            OSError: the file cannot be written.
        """
        for package in ("imageio", "imageio_ffmpeg"):
            require_package(setting, package, "video")
        writer = _WRITERS.get(path.suffix.lower())
        if writer is None:
            raise ConfigError(f"{setting}: a video's name ends in {' or '.join(_WRITERS)}")
        if not path.parent.is_dir():
            raise ConfigError(f"{setting}: the folder {path.parent} does not exist")
        self.scene = Scene(robot, n)
        self._period = period
        self._stride, self._states = max(1, round(1.0 / (period * _FRAME_RATE))), 0
        with ExitStack() as opened:
            self._renderer = opened.enter_context(closing(renderer(self.scene, size, setting)))
            # The file is complete or absent: what cannot be finished is removed.
            temporary = opened.enter_context(replaced(path))
            temporary.touch()
            self._file = opened.enter_context(writer(temporary, 1.0 / (self._stride * period), setting))
            self._opened = opened.pop_all()

    def show(self, qpos: np.ndarray) -> None:
        """Add a state (n, nq).

        Raises:
            OSError: the file cannot be written.
        """
        if self._states % self._stride == 0:
            self.scene.place(qpos, self._stride * self._period)
            self._renderer.update_scene(self.scene.data, camera=self.scene.camera)
            self._file.append(self._renderer.render())
        self._states += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)


class _Writer(AbstractContextManager["_Writer"]):
    """A file of pictures."""

    def __init__(self, path: Path, rate: float, setting: str) -> None:
        """
        Args:
            path: of the file, which exists.
            rate: pictures per second.
            setting: what asked for it, in errors.
        """
        self._path, self._rate, self._setting = path, rate, setting

    @abstractmethod
    def append(self, picture: np.ndarray) -> None:
        """Add a picture (height, width, 3)."""

    @abstractmethod
    def close(self, is_whole: bool) -> None:
        """Finish the file, or leave it as it is."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kind is None)


class _Gif(_Writer):
    """A GIF, whose pictures wait in memory until the end."""

    def __init__(self, path: Path, rate: float, setting: str) -> None:
        super().__init__(path, rate, setting)
        self._pictures: list[np.ndarray] = []

    def append(self, picture: np.ndarray) -> None:
        self._pictures.append(picture)

    def close(self, is_whole: bool) -> None:
        import imageio.v2 as imageio

        if is_whole:
            content = io.BytesIO()
            imageio.mimwrite(content, self._pictures, format="gif", duration=1000.0 / self._rate)
            self._path.write_bytes(content.getbuffer())


class _Film(_Writer):
    """A video that ffmpeg writes. That is another process, and does not say what it could not write."""

    def __init__(self, path: Path, rate: float, setting: str) -> None:
        import imageio.v2 as imageio

        super().__init__(path, rate, setting)
        self._pictures = 0
        self._ffmpeg = imageio.get_writer(path, fps=rate, ffmpeg_log_level="quiet")

    def append(self, picture: np.ndarray) -> None:
        try:
            self._ffmpeg.append_data(picture)
        except OSError as error:
            raise self._reason() from error
        self._pictures += 1

    def close(self, is_whole: bool) -> None:
        import imageio_ffmpeg

        self._ffmpeg.close()
        if not is_whole:
            return
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(self._path)
        except RuntimeError:  # it is no video
            written = 0
        if written != self._pictures:
            raise self._reason()

    def _reason(self) -> Exception:
        """Why ffmpeg failed: what the system says to somebody else who writes to the file."""
        try:
            with self._path.open("ab") as file:
                file.write(bytes(_PROBE))
        except OSError as error:
            return error
        return ConfigError(f"{self._setting}: ffmpeg could not write it")


_WRITERS = {".mp4": _Film, ".gif": _Gif}
"""What writes a file, by its ending."""


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
