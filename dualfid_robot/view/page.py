"""A page for browsers: robots in a scene, controls of how they play, and curves."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
import webbrowser
from collections.abc import Mapping
from typing import Any

import numpy as np

from dualfid_robot.command import Command
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.values import require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require_integer
from dualfid_robot.view.playback import SPEEDS, Playback
from dualfid_robot.view.scene import SKY, Scene

_FRAME_PERIOD, _CURVE_PERIOD = 1.0 / 30.0, 0.25  # s between two drawings, at least
_SLIDER_STEPS = 100
_SLASH = "\u2215"  # viser breaks lines behind another one
_NEARER = 0.8  # than the scene's camera, for a page's sees 60 degrees
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")
"""Of a plot's lines; it has no more of them."""

# Pixels around uPlot's lines: above and on the right for half a number, on the left for seven characters.
_PADDING = (12, 24, 0, 0)
_HORIZONTAL_AXIS = {"size": 32, "labelSize": 20, "labelGap": 0}
_VERTICAL_AXIS = {"size": 68}


VIEWERS = ("none", "browser")
"""Of training and evaluation."""


def wants_page(settings: Any) -> bool:
    """Whether a page shall show what is trained or evaluated: viewer=browser, or headless=False as in IsaacGymEnvs.

    Raises:
        ConfigError: another viewer, or mjviser is not installed.
    """
    viewer = settings["viewer"]
    if viewer not in VIEWERS:
        raise ConfigError(f"viewer={viewer}: allowed are {list(VIEWERS)}; play.py has others")
    if viewer == "none" and settings["headless"]:
        return False
    require_integer("viewer_port", settings["viewer_port"], 0, 65535)
    require_package("viewer=browser", "mjviser", "viewer")
    return True


def has_display() -> bool:
    """Whether a browser can open on this machine."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def open_page(playback: Playback, host: str, port: int) -> BrowserPage:
    """Serve a page, say where it is, and open it in the user's browser where there is a display.

    Args:
        playback, host, port: see `BrowserPage`.
    """
    page = BrowserPage(playback, host, port)
    plain_console().print(f"open {page.url}; Ctrl-C ends it", soft_wrap=True)
    if has_display():
        webbrowser.open(page.url)
    return page


class BrowserPage:
    """The page. It is for any number of browsers, and the playback does not wait for one.

    Attributes:
        url: where it is.
        pause, single_step, reset, speed, policy, dial, engine, commands: its controls.
        closed: never: Ctrl-C ends it.
    """

    closed = False

    def __init__(self, playback: Playback, host: str, port: int) -> None:
        """Serve the page.

        Args:
            playback: what it shows and controls.
            host: at which the page is served.
            port: if it is taken, the next free one.

        Raises:
            ConfigError: mjviser is not installed.
        """
        require_package("viewer=browser", "mjviser", "viewer")
        import mjviser
        import viser

        logging.getLogger("websockets").setLevel(logging.WARNING)
        self._playback, show = playback, playback.show
        with contextlib.redirect_stdout(io.StringIO()):  # viser's banner
            self._server = viser.ViserServer(host, port, label=show.title, verbose=False)
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self._server.get_port()}"
        self._scene = Scene(show.robot, show.n)
        self._scene.place(playback.qpos, 0.0)
        self._drawn = self._plotted = 0.0
        self._server.scene.set_background_image(_sky())
        self._server.gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
        self._text = self._server.gui.add_markdown("")
        self._add_controls()
        self._bodies = mjviser.ViserMujocoScene(self._server, self._scene.model, num_envs=1)
        self._bodies._tracked_body_id = self._scene.focus  # all robots, where mjviser takes the first
        camera = self._scene.camera
        with self._server.gui.add_folder("Camera", expand_by_default=False):
            self._bodies.create_scene_gui(_NEARER * camera.distance, camera.azimuth, -camera.elevation)
        self._arrow = _CommandArrow(self._server, self._scene, show.commands)
        self._terms = _Plot(self._server, "Reward by term", "time, s")
        self._returns = _Plot(self._server, "Return of each episode", "episode")
        self._draw()

    # --- controls

    def _add_controls(self) -> None:
        gui, playback, show = self._server.gui, self._playback, self._playback.show
        self.pause = gui.add_checkbox("Pause", playback.paused)
        self.pause.on_update(lambda _: playback.pause(self.pause.value))
        self.single_step = gui.add_button("Single step")
        self.single_step.on_click(lambda _: playback.single_step())
        self.reset = gui.add_button("New episode")
        self.reset.on_click(lambda _: playback.reset())
        speeds = [f"{speed:g} ×" for speed in SPEEDS]
        self.speed = gui.add_dropdown("Speed", speeds, initial_value="1 ×")
        self.speed.on_update(lambda _: playback.set_speed(SPEEDS[speeds.index(self.speed.value)]))
        self.policy = gui.add_dropdown("Policy", list(show.policies), initial_value=playback.policy)
        self.policy.on_update(lambda _: playback.choose_policy(self.policy.value))
        self.dial = None
        if "dial" in show.policies:
            self.dial = gui.add_slider("Dial", 0.0, 1.5, 1.5 / _SLIDER_STEPS, playback.dial, hint="0: base, 1: adapted")
            self.dial.on_update(lambda _: self._turn())
        self.engine = gui.add_dropdown("Engine", list(show.engines), initial_value=playback.engine)
        self.engine.on_update(lambda _: playback.choose_engine(self.engine.value))
        now = show.commanded()
        self._shown: dict[str, float] = {}  # what sliders show that no person has moved
        ranged = [command for command in show.commands if command.low < command.high]
        self.commands = {command.name: self._command_slider(command, now[command.name]) for command in ranged}

    def _turn(self) -> None:
        """The dial's slider chooses the dial, too."""
        assert self.dial is not None
        self.policy.value = "dial"  # type: ignore[misc]  # viser writes it in its metaclass
        self._playback.choose_policy("dial", self.dial.value)

    def _command_slider(self, command: Command, value: float) -> Any:
        low, high = command.low, command.high
        step = (high - low) / _SLIDER_STEPS
        label = f"{command.name}, {command.unit.replace('/', _SLASH)}"
        slider = self._server.gui.add_slider(label, low, high, step, _on_step(value, low, high))
        self._shown[command.name] = slider.value

        def moved(_: object) -> None:
            if slider.value != self._shown.get(command.name):  # by a person, and from now on by persons alone
                self._shown.pop(command.name, None)
                self._playback.give_command(command.name, slider.value)

        slider.on_update(moved)
        return slider

    # --- drawing

    def show(self) -> None:
        """Draw what is new, but not more often than eyes can tell."""
        now = time.monotonic()
        if now - self._drawn >= _FRAME_PERIOD or self._playback.paused:
            self._scene.place(self._playback.qpos, now - self._drawn)
            self._drawn = now
            self._draw()
        if now - self._plotted >= _CURVE_PERIOD:
            self._plotted = now
            self._plot()

    def _draw(self) -> None:
        with self._server.atomic():
            self._bodies.update_from_mjdata(self._scene.data)
            self._arrow.point(self._playback.show.commanded(), self._bodies.camera_tracking_enabled)

    def _show_commands(self) -> None:
        """Move the sliders to the commands in force. A new episode brings its own, until a person gives some."""
        commanded = self._playback.show.commanded()
        for name, shown in tuple(self._shown.items()):
            slider = self.commands[name]
            value = _on_step(commanded[name], slider.min, slider.max)
            if value != shown:
                self._shown[name] = slider.value = value

    def _plot(self) -> None:
        playback = self._playback
        self._show_commands()
        # What grows has a line that it always fits into, so that nothing below is pushed down.
        text = f"**{playback.show.title}** · {playback.time:.0f} s  \n{playback.policy} policy in {playback.engine}"
        lines = [text, playback.show.news(), f"⚠ {playback.message}" if playback.message else ""]
        self._text.content = "\n\n".join(line for line in lines if line)
        times = np.array(playback.times)
        if len(times) > 1:
            terms = {name: np.array(values)[-len(times) :] for name, values in playback.rewards.items()}
            self._terms.draw(times, {name: values for name, values in terms.items() if len(values) == len(times)})
        if len(playback.returns) > 1:
            episodes = np.arange(1.0, len(playback.returns) + 1.0)
            self._returns.draw(episodes, {"return": np.array(playback.returns)})

    def close(self) -> None:
        """Stop serving."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()


class _Plot:
    """A plot of lines over one axis, which stands there from its first values on.

    A browser builds a plot anew when its lines change. So they stay the same until all of their values are new.
    """

    def __init__(self, server: Any, title: str, axis: str) -> None:
        """Draw nothing yet.

        Args:
            server: of the page.
            title: of the plot.
            axis: what is on the horizontal one.
        """
        self._server, self._title, self._axis = server, title, axis
        self._plot: Any = None
        self._lines: tuple[str, ...] = ()
        self._until = -np.inf  # the last x of the values that the lines were chosen by

    def draw(self, x: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
        """Draw the largest of these curves.

        Args:
            x: (values,) ascending.
            curves: (values,) of each, by name.
        """
        lines = self._choose(x, curves)
        data = (x, *(curves[name] for name in lines))
        if lines == self._lines:
            self._plot.data = data
            return
        self._lines = lines
        colours = zip(lines, _COLOURS, strict=False)
        series = ({"label": self._axis}, *({"label": name, "stroke": colour, "width": 2} for name, colour in colours))
        if self._plot is None:
            axes = ({"label": self._axis, **_HORIZONTAL_AXIS}, _VERTICAL_AXIS)
            scales = {"x": {"time": False}}
            self._plot = self._server.gui.add_uplot(
                data, series, title=self._title, scales=scales, axes=axes, aspect=1.4, padding=_PADDING
            )
        else:
            with self._server.atomic():
                self._plot.data, self._plot.series = data, series

    def _choose(self, x: np.ndarray, curves: Mapping[str, np.ndarray]) -> tuple[str, ...]:
        """The lines to be seen."""
        if x[0] <= self._until and set(self._lines) <= set(curves):
            return self._lines
        self._until = float(x[-1])
        largest = sorted(curves, key=lambda name: -np.abs(curves[name]).mean())[: len(_COLOURS)]
        return tuple(name for name in curves if name in largest)


class _CommandArrow:
    """An arrow above the first robot, where its commands have a direction.

    It points where "forward velocity" and "lateral velocity" lead, as long as a second at that speed, or along
    "heading". A second one shows "turning rate" to the left or the right.
    """

    def __init__(self, server: Any, scene: Scene, commands: Any) -> None:
        names = {command.name for command in commands}
        self._scene, self._handle = scene, None
        if names & {"forward velocity", "heading"}:
            colours = np.array([(40, 160, 80), (220, 120, 30)])
            points = np.zeros((2, 2, 3), np.float32)
            self._handle = server.scene.add_arrows("/command", points, colours)
            self._body = int(np.flatnonzero(scene.model.body_weldid > 0)[0])

    def point(self, commands: Any, tracking: bool) -> None:
        """Draw the commands in force.

        Args:
            commands: values by name.
            tracking: whether the picture moves with the robot.
        """
        if self._handle is None:
            return
        data = self._scene.data
        ahead = data.xmat[self._body].reshape(3, 3)[:2, 0]
        ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
        left = np.array((-ahead[1], ahead[0]))
        way = commands.get("forward velocity", 0.0) * ahead + commands.get("lateral velocity", 0.0) * left
        start = data.xpos[self._body] - (data.xpos[self._scene.focus] if tracking else 0.0)
        start[2] += 0.8 * self._scene.reach
        heading = commands.get("heading")
        turn = (
            commands.get("turning rate", 0.0) * left
            if heading is None
            else np.array((np.cos(heading), np.sin(heading)))
        )
        ends = start + np.pad(np.stack((way, 0.5 * turn)), ((0, 0), (0, 1)))
        self._handle.points = np.stack((np.tile(start, (2, 1)), ends), 1).astype(np.float32)


def _on_step(value: float, low: float, high: float) -> float:
    """The value of a slider that is closest to `value`. It is rounded, for a browser shows every digit."""
    step = (high - low) / _SLIDER_STEPS
    place = round((min(max(value, low), high) - low) / step)
    return float(f"{low + place * step:.6g}")


def _sky() -> np.ndarray:
    """A picture (64, 4, 3) that fades from the sky's colour to the horizon's."""
    fade = np.linspace(0.0, 1.0, 64)[:, None, None]
    colours = np.array(SKY)
    return np.broadcast_to(255.0 * (colours[0] * (1.0 - fade) + colours[1] * fade), (64, 4, 3)).astype(np.uint8)
