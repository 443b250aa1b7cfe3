"""`play.py`: an exported policy in any engine, live or headless; no task is known here."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.output import plain_console
from dualfid_robot.config.values import find_device
from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.commands import CommandFile, Keyboard, Source
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.onboard.pacing import sleep_until
from dualfid_robot.onboard.runtime import MEMORY_INPUT, ExportedPolicy
from dualfid_robot.play.player import OF_THE_MACHINE, Player, comparison, read_starts, rows_of
from dualfid_robot.play.server import serve
from dualfid_robot.play.simulated_robot import SimulatedRobot, check_robot
from dualfid_robot.play.viewer import BrowserViewer, NativeViewer, Viewer
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require_integer, require_number
from dualfid_robot.view.video import Video, video_size

logger = logging.getLogger(__name__)

VIEWERS = ("none", "browser", "native")
KEYBOARD = "keyboard"
_FRAME_RATE = 60.0  # 1/s, of a viewer at most


def launch_play(cfg: DictConfig) -> None:
    """Play a policy as the configuration says.

    Raises:
        ConfigError: a setting is wrong, a file is missing or damaged, or the robot or the engine is refused.
    """
    _check(cfg)
    policy = ExportedPolicy(Path(cfg.policy))
    settings = engine_settings(cfg, policy.metadata)
    with ExitStack() as stack:
        commands = _commands(cfg, policy.metadata, stack)
        robot = _robot(cfg, policy, settings)
        stack.callback(robot.close)
        if cfg.udp_port != "":
            _serve(cfg, policy, robot)
            return
        player = Player(policy, robot, float(cfg.dial), commands)
        if cfg.viewer == "none":
            _play(cfg, player, settings)
        else:
            _live(cfg, player, stack)


def _check(cfg: DictConfig) -> None:
    """Refuse what can be refused before a file is read."""
    if not cfg.policy:
        raise ConfigError("policy: name the policy to play, such as policy=runs/…/export/policy.onnx")
    if cfg.viewer not in VIEWERS:
        raise ConfigError(f"viewer={cfg.viewer}: allowed are {list(VIEWERS)}")
    if cfg.num_envs != "":
        require_integer("num_envs", cfg.num_envs, 1)
    require_number("dial", cfg.dial, -math.inf, math.inf)
    if cfg.duration != "":
        require_number("duration", cfg.duration, 0.0, math.inf, open_low=True)
    if cfg.real_time not in (True, False, ""):
        raise ConfigError(f"real_time={cfg.real_time}: True or False is expected")
    alone = [f"{key}={cfg[key]}" for key, off in (("viewer", "none"), ("udp_port", "")) if cfg[key] != off]
    if alone and cfg.num_envs not in ("", 1):
        raise ConfigError(f"num_envs={cfg.num_envs}: must be 1 with {alone[0]}")
    if cfg.viewer != "none" and cfg.video:
        raise ConfigError(f"video={cfg.video}: a video is made without a viewer; leave one of the two out")
    for key in ("viewer_port", *(["udp_port"] if cfg.udp_port != "" else [])):
        require_integer(key, cfg[key], 0, 65535)
    if cfg.udp_port != "":
        for key, off in (("commands", ""), ("viewer", "none"), ("duration", "")):
            if cfg[key] != off:
                raise ConfigError(f"{key}={cfg[key]}: is the robot loop's with udp_port={cfg.udp_port}; leave it out")
    if cfg.commands == KEYBOARD and not _paced(cfg):
        raise ConfigError("commands=keyboard: nobody presses keys that fast; add viewer=… or real_time=True")


def _paced(cfg: DictConfig) -> bool:
    return cfg.viewer != "none" if cfg.real_time == "" else bool(cfg.real_time)


def _commands(cfg: DictConfig, metadata: Metadata, stack: ExitStack) -> Source | None:
    if not cfg.commands:
        return None
    if cfg.commands != KEYBOARD:
        return CommandFile(Path(cfg.commands), metadata)
    keyboard = stack.enter_context(Keyboard(metadata))
    _say(keyboard.help())
    return keyboard


def _robot(cfg: DictConfig, policy: ExportedPolicy, settings: Mapping[str, Any]) -> SimulatedRobot:
    metadata = policy.metadata
    path = Path(cfg.robot) if cfg.robot else policy.folder / metadata.robot.file
    check_robot(metadata, RobotModel(path))  # before its feet, so that another robot is called another robot
    robot = RobotModel(path, metadata.robot.feet)
    several = cfg.num_envs == "" and cfg.viewer == "none" and cfg.udp_port == "" and not _paced(cfg)
    starts = read_starts(policy)
    n = len(starts["qpos"]) if several else 1 if cfg.num_envs == "" else cfg.num_envs
    rows_of(starts, 0, n)
    return SimulatedRobot.build(metadata, robot, settings, n, find_device("sim_device", cfg.sim_device or "cpu"))


def engine_settings(cfg: DictConfig, metadata: Metadata) -> dict[str, Any]:
    """Settings of the engine: the command line's, else those that the policy was trained or measured with, else those
    of the file in cfg/simulator, with what was calibrated for the policy's task.

    The policy's own have the name of the file that they come from.
    """
    asked = {text.partition("=")[0].removeprefix("simulator.") for text in HydraConfig.get().overrides.task}
    fitted = {"simulators": metadata.training.calibration}  # what the files of cfg/simulator read of a task
    composed = OmegaConf.create({"task": fitted, "simulator": cfg.simulator})
    settings = cast(dict[str, Any], OmegaConf.to_container(composed.simulator, resolve=True))
    trained_in = [metadata.training.engines["high"], *metadata.training.engines["low"].values()]
    for theirs in [*trained_in, *(evaluation.simulator for evaluation in metadata.evaluations.values())]:
        if theirs["name"] == settings["name"]:
            kept = asked | OF_THE_MACHINE
            return settings | {key: value for key, value in theirs.items() if key in settings and key not in kept}
    return settings


def _play(cfg: DictConfig, player: Player, settings: Mapping[str, Any]) -> None:
    """Headless: episodes from the exporter's starts, and their returns."""
    metadata, robot = player.metadata, player.robot
    period = metadata.timing.control_dt
    steps = None if cfg.duration == "" else max(1, round(cfg.duration / period))
    with ExitStack() as stack:
        film = _filming(cfg, robot, period, stack)
        wait = _pacer(period) if _paced(cfg) else lambda: None

        def after_step(running: np.ndarray) -> None:
            if running[0]:
                film()
            wait()

        evaluation = player.play(steps, after_step)
    _say(f"{metadata.task}, {metadata.policy.head} policy in {settings['name']}: {evaluation.line()}")
    whole = steps is None or steps >= metadata.episode_length
    if whole and not cfg.commands and cfg.dial == 1.0:
        _say(comparison(metadata, settings, evaluation))
    if cfg.video:
        logger.info("video: %s", cfg.video)


def _filming(cfg: DictConfig, robot: SimulatedRobot, period: float, stack: ExitStack) -> Callable[[], None]:
    """A function that adds the first robot's state to the video, where there is to be one."""
    if not cfg.video:
        return lambda: None
    size = video_size("video_size", cfg.video_size)
    video = stack.enter_context(Video(Path(cfg.video), robot.robot, period, f"video={cfg.video}", size))
    return lambda: video.show(robot.simulator.qpos[:1].cpu().numpy())


def _pacer(period: float) -> Callable[[], None]:
    """A function that returns once per period from now on; after a delay it goes on from there."""
    deadline = time.monotonic()

    def wait() -> None:
        nonlocal deadline
        deadline = max(deadline + period, time.monotonic())
        sleep_until(deadline)

    return wait


def _live(cfg: DictConfig, player: Player, stack: ExitStack) -> None:
    """In a viewer: one episode after another, until it is closed."""
    player.begin()
    viewer = _viewer(cfg, player)
    stack.callback(viewer.close)
    with contextlib.suppress(KeyboardInterrupt):
        for line in episodes(player, viewer, float(cfg.duration or np.inf), _paced(cfg)):
            _say(line)


def _viewer(cfg: DictConfig, player: Player) -> Viewer:
    if cfg.viewer == "native":
        return NativeViewer(player.robot.robot)
    viewer = BrowserViewer(player, cfg.viewer_host, cfg.viewer_port)
    _say(f"open {viewer.url}; Ctrl-C ends it")
    return viewer


def episodes(player: Player, viewer: Viewer, duration: float, paced: bool) -> Iterator[str]:
    """Play in a viewer, from one start after another; yields a line for each episode that ended.

    Args:
        duration: s of simulated time in all.
        paced: whether time is real.
    """
    period = player.metadata.timing.control_dt
    wait = _pacer(period) if paced else lambda: None
    stride = max(1, round(1.0 / (_FRAME_RATE * period)))
    first, total = 0, 0.0
    for step in range(round(min(duration / period, 2**62))):
        if viewer.closed:
            return
        outcome = player.step()
        total += float(outcome.reward[0])
        if step % stride == 0:
            viewer.show(player.robot.simulator.qpos[0].cpu().numpy())
        asked = viewer.take_reset()
        if asked or outcome.terminated[0] or player.time >= (player.metadata.episode_length - 0.5) * period:
            yield f"return {total:.4g} after {player.time:.2f} s"
            first, total = (first + 1) % len(player.starts["qpos"]), 0.0
            player.begin(first)
        wait()


def _serve(cfg: DictConfig, policy: ExportedPolicy, robot: SimulatedRobot) -> None:
    """Be the robot of a robot loop for one episode."""
    start = rows_of(read_starts(policy), 0, 1)
    qpos, qvel = start.pop("qpos"), start.pop("qvel")
    memory = {name.removeprefix(MEMORY_INPUT): values for name, values in start.items()}
    _say(f"waiting for a robot loop at udp_port={cfg.udp_port}")
    with ExitStack() as stack:
        film = _filming(cfg, robot, policy.metadata.timing.control_dt, stack)
        episode = serve(
            robot,
            policy,
            cfg.udp_port,
            qpos=qpos,
            qvel=qvel,
            memory=memory,
            dial=float(cfg.dial),
            after_step=lambda _: film(),
        )
    end = f"stopped: {episode.stopped}" if episode.stopped else "terminated" if episode.terminated else "to its end"
    _say(
        f"return {episode.total_reward:.6g} in {episode.steps} steps, {end}; {episode.lost_controls} steps without a "
        f"new control; largest difference from onnxruntime's control {episode.control_difference:.2g}"
    )


def _say(line: str) -> None:
    plain_console().print(line, soft_wrap=True)
