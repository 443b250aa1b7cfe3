"""Live views of the player's robot: a page for a browser, or MuJoCo's own window."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import threading
import warnings
from typing import Any, Protocol

import mujoco
import numpy as np

from dualfid_robot.command import Command
from dualfid_robot.errors import ConfigError
from dualfid_robot.play.player import Player
from dualfid_robot.robots.model import RobotModel

_SLIDER_STEPS = 100


class Viewer(Protocol):
    """What the player shows its first robot in."""

    @property
    def closed(self) -> bool:
        """Whether the user has closed it."""

    def show(self, qpos: np.ndarray) -> None:
        """Show a state (nq,) of the simulated model."""

    def take_reset(self) -> bool:
        """Whether a new episode was asked for since the last call."""

    def close(self) -> None:
        """Close it."""


class BrowserViewer:
    """A page that mjviser serves, with a slider for each command and for the dial, and a button for a new episode.

    Attributes:
        url: where it is.
        commands: the sliders, by command.
        dial: the dial's slider, where the policy has one.
        reset: the button.
    """

    closed = False

    def __init__(self, player: Player, host: str, port: int) -> None:
        """Serve the page; it is for any number of browsers, and the player does not wait for one.

        Args:
            player: whose commands and dial the sliders set; its episode has begun.
            host: at which the page is served.
            port: if it is taken, the next free one.

        Raises:
            ConfigError: mjviser is not installed.
        """
        if importlib.util.find_spec("mjviser") is None:
            raise ConfigError("viewer=browser: mjviser is not installed; pip install dualfid_robot[viewer]")
        import mjviser
        import viser

        logging.getLogger("websockets").setLevel(logging.WARNING)
        with contextlib.redirect_stdout(io.StringIO()):  # viser's banner
            self._server = viser.ViserServer(host, port, label=player.metadata.task, verbose=False)
        self.url = f"http://{host}:{self._server.get_port()}"
        model = copy.copy(player.robot.robot.model)  # mjviser changes colours and sizes in it
        self._data = mujoco.MjData(model)
        self._model = model
        self._reset = threading.Event()
        gui = self._server.gui
        self.reset = gui.add_button("New episode")
        self.reset.on_click(lambda _: self._reset.set())
        ranges = [command for command in player.metadata.commands if command.low < command.high]
        self.commands = {command.name: self._command_slider(player, command) for command in ranges}
        self.dial = self._dial_slider(player)
        self._scene = mjviser.ViserMujocoScene(self._server, model, num_envs=1)
        with gui.add_folder("Scene"):
            self._scene.create_scene_gui()

    def _command_slider(self, player: Player, command: Command) -> Any:
        low, high = command.low, command.high
        value = float(player.controller.memory[command.memory][0, command.column])
        slider = self._server.gui.add_slider(
            f"{command.name}, {command.unit}", low, high, (high - low) / _SLIDER_STEPS, min(max(value, low), high)
        )

        def on_update(_: object) -> None:
            player.operator.values[command.name] = slider.value

        slider.on_update(on_update)
        return slider

    def _dial_slider(self, player: Player) -> Any:
        dial = player.metadata.policy.dial
        if dial is None:
            return None
        step = (dial.high - dial.low) / _SLIDER_STEPS
        slider = self._server.gui.add_slider("dial", dial.low, dial.high, step, player.controller.dial)

        def on_update(_: object) -> None:
            player.controller.dial = slider.value

        slider.on_update(on_update)
        return slider

    def show(self, qpos: np.ndarray) -> None:
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._model, self._data)
        self._scene.update_from_mjdata(self._data)

    def take_reset(self) -> bool:
        asked = self._reset.is_set()
        self._reset.clear()
        return asked

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()


class NativeViewer:
    """MuJoCo's own window; its Backspace key asks for a new episode."""

    def __init__(self, robot: RobotModel) -> None:
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
        self._data = mujoco.MjData(robot.model)
        self._model = robot.model
        self._reset = threading.Event()
        try:
            self._window = mujoco.viewer.launch_passive(
                robot.model, self._data, key_callback=self._on_key, show_left_ui=False, show_right_ui=False
            )
        except RuntimeError as error:  # macOS wants another launcher, and says which
            raise ConfigError(f"viewer=native: {error}") from error

    def _on_key(self, key: int) -> None:
        if key == 259:  # GLFW's Backspace
            self._reset.set()

    @property
    def closed(self) -> bool:
        return not self._window.is_running()

    def show(self, qpos: np.ndarray) -> None:
        with self._window.lock():
            self._data.qpos[:] = qpos
            mujoco.mj_forward(self._model, self._data)
        self._window.sync()

    def take_reset(self) -> bool:
        asked = self._reset.is_set()
        self._reset.clear()
        return asked

    def close(self) -> None:
        self._window.close()
