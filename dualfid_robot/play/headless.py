"""An exported policy without anybody who looks on: returns in numbers, and a robot for a robot loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from dualfid_robot.onboard.commands import Source
from dualfid_robot.onboard.pacing import sleep_until
from dualfid_robot.onboard.runtime import MEMORY_INPUT, ExportedPolicy
from dualfid_robot.play.player import Player, comparison, read_starts, rows_of
from dualfid_robot.play.server import serve
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.view.video import Video, video_size


def in_numbers(
    cfg: DictConfig,
    policy: ExportedPolicy,
    robot: RobotModel,
    settings: Mapping[str, Any],
    device: torch.device,
    commands: Source | None,
) -> list[str]:
    """Play episodes from the exporter's starts; their returns, and how these compare with what the exporter measured.

    Args:
        cfg: with num_envs, duration, dial, commands and real_time.
        policy, robot: what plays, and on what.
        settings, device: of the engine.
        commands: where commands come from, if from anywhere.
    """
    metadata = policy.metadata
    paced = cfg.real_time is True
    starts = read_starts(policy)
    n = cfg.num_envs if cfg.num_envs != "" else 1 if paced else len(starts["qpos"])
    rows_of(starts, 0, n)
    period = metadata.timing.control_dt
    steps = None if cfg.duration == "" else max(1, round(cfg.duration / period))
    with ExitStack() as stack:
        simulated = SimulatedRobot.build(metadata, robot, settings, n, device)
        stack.callback(simulated.close)
        wait = _pacer(period) if paced else lambda: None
        evaluation = Player(policy, simulated, float(cfg.dial), commands).play(steps, lambda _: wait())
    lines = [f"{metadata.task}, {_acting(metadata.policy.head, cfg.dial)} in {settings['name']}: {evaluation.line()}"]
    whole = steps is None or steps >= metadata.episode_length
    if whole and not cfg.commands and cfg.dial == 1.0:
        lines.append(comparison(metadata, settings, evaluation))
    return lines


def serve_loop(
    cfg: DictConfig,
    policy: ExportedPolicy,
    robot: RobotModel,
    settings: Mapping[str, Any],
    device: torch.device,
    say: Callable[[str], None],
) -> str:
    """Be the robot of a robot loop for one episode; what came of it, in a line.

    Args:
        cfg: with udp_port, dial, video and video_size.
        policy, robot: whose loop calls, and what it drives.
        settings, device: of the engine.
        say: prints a line.
    """
    start = rows_of(read_starts(policy), 0, 1)
    qpos, qvel = start.pop("qpos"), start.pop("qvel")
    memory = {name.removeprefix(MEMORY_INPUT): values for name, values in start.items()}
    with ExitStack() as stack:
        simulated = SimulatedRobot.build(policy.metadata, robot, settings, 1, device)
        stack.callback(simulated.close)
        film: Callable[[np.ndarray], None] = lambda _: None  # noqa: E731
        if cfg.video:
            size = video_size("video_size", cfg.video_size)
            period = policy.metadata.timing.control_dt
            film = stack.enter_context(Video(Path(str(cfg.video)), robot, period, f"video={cfg.video}", size)).show
        say(f"waiting for a robot loop at udp_port={cfg.udp_port}")
        episode = serve(
            simulated,
            policy,
            cfg.udp_port,
            qpos=qpos,
            qvel=qvel,
            memory=memory,
            dial=float(cfg.dial),
            after_step=lambda _: film(simulated.simulator.qpos.cpu().numpy()),
        )
    end = f"stopped: {episode.stopped}" if episode.stopped else "terminated" if episode.terminated else "to its end"
    return (
        f"return {episode.total_reward:.6g} in {episode.steps} steps, {end}; {episode.lost_controls} steps without a "
        f"new control; largest difference from onnxruntime's control {episode.control_difference:.2g}"
    )


def _acting(head: str, dial: float) -> str:
    """Which policy of an export acts, in words."""
    if head != "dial":
        return f"{head} policy"
    return {1.0: "adapted policy", 0.0: "base policy"}.get(float(dial), f"policy at dial {dial:g}")


def _pacer(period: float) -> Callable[[], None]:
    """A function that returns once per period from now on; after a delay it goes on from there."""
    deadline = time.monotonic()

    def wait() -> None:
        nonlocal deadline
        deadline = max(deadline + period, time.monotonic())
        sleep_until(deadline)

    return wait
