"""What is filmed of an evaluation or of a training run, as `capture_video` and the settings that begin with it say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dualfid_robot.config.values import require_package
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.evaluate.agents import Agent
from dualfid_robot.evaluate.evaluation import record_video
from dualfid_robot.settings import require_integer
from dualfid_robot.view.video import video_size


@dataclass(frozen=True)
class FilmSettings:
    """How an episode is filmed.

    Attributes:
        size: width and height, pixels.
        steps: control steps at most. None means the whole episode.
    """

    size: tuple[int, int]
    steps: int | None

    @classmethod
    def of(cls, settings: Any) -> Self:
        """The settings of a configuration with capture_video=True.

        Raises:
            ConfigError: a setting is wrong, or a package is missing.
        """
        require_package("capture_video=True", "imageio", "video")
        steps = settings["capture_video_len"]
        if steps != "":
            require_integer("capture_video_len", steps, 1)
        return cls(video_size("capture_video_size", settings["capture_video_size"]), None if steps == "" else steps)

    def record(self, agent: Agent, pool: EnvironmentPool, path: Path) -> None:
        """Film the first episode of a pool, which is closed then. See `record_video`."""
        try:
            record_video(agent, pool, path, self.size, self.steps)
        finally:
            pool.simulator.close()
