"""`play.py`: a policy in any engine, before a person's eyes or headless; of an export, no task is known here."""

from __future__ import annotations

import contextlib
import math
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.output import plain_console
from dualfid_robot.config.progress import track
from dualfid_robot.config.values import find_device, require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.commands import CommandFile, Keyboard, Source
from dualfid_robot.onboard.metadata import Metadata
from dualfid_robot.play.choice import Choice, choose
from dualfid_robot.play.engines import own_settings, playable_engines
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require_integer, require_number
from dualfid_robot.view.page import has_display, open_page
from dualfid_robot.view.playback import Playback, Show, View, play_in
from dualfid_robot.view.video import Video, video_size
from dualfid_robot.view.window import Window

VIEWERS = ("", "none", "browser", "native")
KEYBOARD = "keyboard"
FILM_SECONDS = 10.0  # of a video that nobody gave a length


def launch_play(cfg: DictConfig) -> None:
    """Play a policy as the configuration says.

    Raises:
        ConfigError: a setting is wrong, a file is missing or damaged, or the robot or the engine is refused.
    """
    _check(cfg)
    choice = choose(cfg)
    say(choice.announcement)
    _choose_view(cfg, choice)
    with ExitStack() as stack:
        if choice.is_export:
            _play_export(cfg, choice, stack)
        else:
            _present(cfg, _checkpoint_show(cfg, choice), stack)


def _check(cfg: DictConfig) -> None:
    """Refuse what can be refused before a file is read."""
    if cfg.viewer not in VIEWERS:
        raise ConfigError(f"viewer={cfg.viewer}: allowed are {list(VIEWERS[1:])}")
    if cfg.num_envs != "":
        require_integer("num_envs", cfg.num_envs, 1)
    require_number("dial", cfg.dial, -math.inf, math.inf)
    if cfg.duration != "":
        require_number("duration", cfg.duration, 0.0, math.inf, open_low=True)
    if cfg.real_time not in (True, False, ""):
        raise ConfigError(f"real_time={cfg.real_time}: True or False is expected")
    if cfg.udp_port != "" and cfg.num_envs not in ("", 1):
        raise ConfigError(f"num_envs={cfg.num_envs}: must be 1 with udp_port={cfg.udp_port}")
    if cfg.viewer in ("browser", "native") and cfg.video:
        raise ConfigError(f"video={cfg.video}: a video is made without a viewer; leave one of the two out")
    for key in ("viewer_port", *(["udp_port"] if cfg.udp_port != "" else [])):
        require_integer(key, cfg[key], 0, 65535)
    if cfg.udp_port != "":
        for key, off in (("commands", ""), ("duration", "")):
            if cfg[key] != off:
                raise ConfigError(
                    f"{key}={cfg[key]}: with udp_port={cfg.udp_port} the robot loop decides it; leave it out"
                )
        if cfg.viewer not in ("", "none"):
            raise ConfigError(f"viewer={cfg.viewer}: does not go with udp_port={cfg.udp_port}; leave it out")


def _choose_view(cfg: DictConfig, choice: Choice) -> None:
    """Where nobody chose: a page where a browser can open it, else a video. A robot loop needs neither."""
    if cfg.viewer != "":
        return
    if cfg.video or cfg.udp_port != "":
        cfg.viewer = "none"
    elif has_display():
        cfg.viewer = "browser"
    else:
        cfg.viewer, cfg.video = "none", f"play_{choice.title}.mp4"
        say("there is no display here, so this makes a video; viewer=browser serves a page")


def _play_export(cfg: DictConfig, choice: Choice, stack: ExitStack) -> None:
    """An exported policy: as a robot for a robot loop, in numbers, or before a person's eyes."""
    require_package("play", "onnxruntime", "play")
    from dualfid_robot.onboard.runtime import ExportedPolicy
    from dualfid_robot.play.export_show import ExportShow
    from dualfid_robot.play.player import read_starts, rows_of
    from dualfid_robot.play.simulated_robot import check_robot

    policy = ExportedPolicy(choice.path)
    metadata = policy.metadata
    path = Path(str(cfg.robot)) if cfg.robot else policy.folder / metadata.robot.file
    check_robot(metadata, RobotModel(path))  # before its feet, so that another robot is called another robot
    robot = RobotModel(path, metadata.robot.feet)
    device = find_device("sim_device", cfg.sim_device or "cpu")
    settings = engine_settings(cfg, metadata)
    commands = _commands(cfg, metadata, stack)
    if cfg.viewer == "none" and (not cfg.video or cfg.udp_port != ""):
        from dualfid_robot.play.headless import in_numbers, serve_loop

        if cfg.udp_port != "":
            say(serve_loop(cfg, policy, robot, settings, device, say))
        else:
            for line in in_numbers(cfg, policy, robot, settings, device, commands):
                say(line)
        return
    n = 1 if cfg.num_envs == "" else cfg.num_envs
    rows_of(read_starts(policy), 0, n)
    others = playable_engines(str(settings["name"]), robot, device, metadata.training.calibration)
    engines = {name: own_settings(other, metadata) for name, other in others.items()} | {
        str(settings["name"]): settings
    }
    _present(cfg, ExportShow(policy, robot, engines, n, device, float(cfg.dial), commands), stack)


def _checkpoint_show(cfg: DictConfig, choice: Choice) -> Show:
    """A checkpoint's policy in the task's own environments."""
    from dualfid_robot.play.checkpoint_show import CheckpointShow, engines_of
    from dualfid_robot.runs.saved_policy import policy_of

    for key in ("robot", "commands", "udp_port"):
        if cfg[key] != "":
            raise ConfigError(f"{key}={cfg[key]}: needs an exported policy; export the checkpoint first")
    if cfg.viewer == "none" and not cfg.video:
        raise ConfigError("viewer=none: evaluate.py measures a checkpoint; name a video, or leave viewer out")
    experiment, _ = policy_of(choice.path, choice.state, sim_device=cfg.sim_device)
    chosen = HydraConfig.get().runtime.choices["simulator"]
    asked = any(text.startswith("simulator") for text in HydraConfig.get().overrides.task)
    fitted = experiment.settings["task"].get("simulators", {})
    first = chosen if asked else str(experiment.high_engine["name"])
    engines = playable_engines(first, experiment.robot, experiment.sim_device, fitted)
    engines |= {name: settings for name, settings in engines_of(experiment).items() if name in engines}
    if asked:
        engines[first] = simulator_settings(first, {"simulators": fitted}) | _overrides(cfg)
    n = 1 if cfg.num_envs == "" else cfg.num_envs
    return CheckpointShow(choice.path, choice.state, engines, n, 0, cfg.sim_device, bool(cfg.follow))


def _present(cfg: DictConfig, show: Show, stack: ExitStack) -> None:
    """Show something in a page, in a window or in a video."""
    stack.callback(lambda: show.close())
    duration = math.inf if cfg.duration == "" else float(cfg.duration)
    if cfg.viewer == "none":
        _film(cfg, show, FILM_SECONDS if cfg.duration == "" else duration)
        return
    if cfg.viewer == "browser":
        require_package("viewer=browser", "mjviser", "viewer")
    playback = Playback(show, math.inf if cfg.real_time is False else 1.0, float(cfg.dial))
    native = cfg.viewer == "native"
    view: View = Window(playback) if native else open_page(playback, cfg.viewer_host, cfg.viewer_port)
    stack.callback(view.close)
    if cfg.follow:
        os.nice(10)  # the training that is watched comes first, but a browser that was opened has its usual priority
    with contextlib.suppress(KeyboardInterrupt):
        for line in play_in(view, playback, duration):
            say(line)


def _film(cfg: DictConfig, show: Show, duration: float) -> None:
    """A video of so many seconds, and the returns of the episodes that ended in it."""
    size = video_size("video_size", cfg.video_size)
    steps = max(1, round(duration / show.period))
    with Video(Path(str(cfg.video)), show.robot, show.period, f"video={cfg.video}", size, show.n) as video:
        video.show(show.begin())
        for _ in track(range(steps - 1), "video", steps - 1):
            step = show.step()
            video.show(step.qpos)
            for line in step.lines:
                say(line)
    say(f"video: {Path(str(cfg.video)).absolute()}")


def _commands(cfg: DictConfig, metadata: Metadata, stack: ExitStack) -> Source | None:
    if not cfg.commands:
        return None
    if cfg.commands != KEYBOARD:
        return CommandFile(Path(str(cfg.commands)), metadata)
    if cfg.viewer == "none" and cfg.real_time is not True:
        raise ConfigError("commands=keyboard: nobody presses keys that fast; add viewer=… or real_time=True")
    keyboard = stack.enter_context(Keyboard(metadata))
    say(keyboard.help())
    return keyboard


def _overrides(cfg: DictConfig) -> dict[str, Any]:
    """The engine's settings that the command line names."""
    asked = _asked()
    return {key: value for key, value in cfg.simulator.items() if key in asked or key == "name"}


def _asked() -> frozenset[str]:
    """Names of the settings on the command line, the engine's without their section."""
    return frozenset(text.partition("=")[0].removeprefix("simulator.") for text in HydraConfig.get().overrides.task)


def engine_settings(cfg: DictConfig, metadata: Metadata) -> dict[str, Any]:
    """Settings of the engine, from the first of three sources that has them.

    They are the command line, the policy's training or measurement, and the file in cfg/simulator. The file comes with
    what was calibrated for the policy's task.

    The policy's own have the name of the file that they come from.
    """
    fitted = {"simulators": metadata.training.calibration}  # what the files of cfg/simulator read of a task
    composed = OmegaConf.create({"task": fitted, "simulator": cfg.simulator})
    settings = cast(dict[str, Any], OmegaConf.to_container(composed.simulator, resolve=True))
    return own_settings(settings, metadata, _asked())


def say(line: str) -> None:
    """Print a line for the user."""
    plain_console().print(line, soft_wrap=True)
