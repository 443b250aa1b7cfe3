"""A page for browsers: robots in a scene, controls of how they play, and curves."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from typing import Any

import numpy as np

from dualfid_robot.command import Command
from dualfid_robot.config.values import require_package
from dualfid_robot.view.playback import SPEEDS, Playback
from dualfid_robot.view.scene import SKY, Scene

_FRAME_PERIOD, _CURVE_PERIOD = 1.0 / 30.0, 0.25  # s between two drawings, at least
_SLIDER_STEPS = 100
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")
_LINES = 8  # curves of one plot


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
        camera = self._scene.camera
        with self._server.gui.add_folder("Camera", expand_by_default=False):
            self._bodies.create_scene_gui(camera.distance, camera.azimuth, -camera.elevation)
        self._arrow = _CommandArrow(self._server, self._scene, show.commands)
        self._plots: dict[str, Any] = {}
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
        slider = self._server.gui.add_slider(
            f"{command.name}, {command.unit}", low, high, step, min(max(value, low), high)
        )
        slider.on_update(lambda _: self._playback.give_command(command.name, slider.value))
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

    def _plot(self) -> None:
        playback = self._playback
        text = f"**{playback.show.title}** · {playback.policy} policy in {playback.engine} · {playback.time:.0f} s"
        lines = [text, playback.show.news(), f"⚠ {playback.message}" if playback.message else ""]
        self._text.content = "\n\n".join(line for line in lines if line)
        times = np.array(playback.times)
        if len(times) > 1:
            terms = {name: np.array(values)[-len(times) :] for name, values in playback.rewards.items()}
            largest = sorted(terms, key=lambda name: -np.abs(terms[name]).mean())[:_LINES]
            shown = {name: terms[name] for name in terms if name in largest and len(terms[name]) == len(times)}
            self._curve("Reward by term", times, shown)
        if len(playback.returns) > 1:
            self._curve(
                "Return of each episode",
                np.arange(1.0, len(playback.returns) + 1.0),
                {"return": np.array(playback.returns)},
            )

    def _curve(self, title: str, x: np.ndarray, curves: dict[str, np.ndarray]) -> None:
        """Draw a plot, or again where it is there already."""
        from viser import uplot

        data = (x, *curves.values())
        lines = zip(curves, _COLOURS, strict=False)
        series = (
            uplot.Series(label="s" if "term" in title else "episode"),
            *(uplot.Series(label=name, stroke=colour, width=2) for name, colour in lines),
        )
        plot = self._plots.get(title)
        if plot is None:
            self._plots[title] = self._server.gui.add_uplot(
                data, series, title=title, scales={"x": uplot.Scale(time=False)}, aspect=1.6
            )
        else:
            plot.data, plot.series = data, series

    def close(self) -> None:
        """Stop serving."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()


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
        start = np.zeros(3) if tracking else data.xpos[self._body].copy()
        start[2] += 0.8 * self._scene.reach
        heading = commands.get("heading")
        turn = (
            commands.get("turning rate", 0.0) * left
            if heading is None
            else np.array((np.cos(heading), np.sin(heading)))
        )
        ends = start + np.pad(np.stack((way, 0.5 * turn)), ((0, 0), (0, 1)))
        self._handle.points = np.stack((np.tile(start, (2, 1)), ends), 1).astype(np.float32)


def _sky() -> np.ndarray:
    """A picture (64, 4, 3) that fades from the sky's colour to the horizon's."""
    fade = np.linspace(0.0, 1.0, 64)[:, None, None]
    colours = np.array(SKY)
    return np.broadcast_to(255.0 * (colours[0] * (1.0 - fade) + colours[1] * fade), (64, 4, 3)).astype(np.uint8)
