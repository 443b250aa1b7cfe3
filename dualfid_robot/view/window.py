"""MuJoCo's own window."""

from __future__ import annotations

import warnings

from dualfid_robot.errors import ConfigError
from dualfid_robot.view.playback import Playback
from dualfid_robot.view.scene import Scene

_BACKSPACE, _SPACE, _RIGHT = 259, 32, 262  # GLFW's keys


class Window:
    """MuJoCo's window. Backspace begins a new episode, the space bar pauses, and the right arrow does a single step."""

    def __init__(self, playback: Playback) -> None:
        """Open the window.

        Raises:
            ConfigError: there is no display.
        """
        problem = "there is no display; use viewer=browser, or video=…"
        try:
            import glfw
            import mujoco.viewer
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"viewer=native: {problem} ({error})") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not glfw.init():  # MuJoCo itself would end the program
                raise ConfigError(f"viewer=native: {problem}")
        self._playback = playback
        self._scene = Scene(playback.show.robot, playback.show.n)
        try:
            self._window = mujoco.viewer.launch_passive(
                self._scene.model, self._scene.data, key_callback=self.press, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:  # macOS wants another launcher, and says which
            raise ConfigError(f"viewer=native: {error}") from error

    def press(self, key: int) -> None:
        """A key of the keyboard."""
        if key == _BACKSPACE:
            self._playback.reset()
        elif key == _SPACE:
            self._playback.pause(not self._playback.paused)
        elif key == _RIGHT:
            self._playback.single_step()

    @property
    def closed(self) -> bool:
        return not self._window.is_running()

    def show(self) -> None:
        with self._window.lock():
            self._scene.place(self._playback.qpos, self._playback.show.period)
        self._window.sync()

    def close(self) -> None:
        self._window.close()
