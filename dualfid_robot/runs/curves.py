"""A run's curves: for TensorBoard always, for Weights & Biases where that is asked for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from dualfid_robot.atomic import write_text
from dualfid_robot.config.values import require_package
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings

TENSORBOARD = "tensorboard"  # folder of a run's curves
VIDEO = "adapted policy in E_high"
_WANDB = "wandb_"  # begins the settings' names
_WANDB_ID = "wandb_id.txt"  # in a run's folder, so that the curves go on where the run does

_GROUPS = {
    "1_return": ("return",),
    "2_reward": ("reward",),
    "3_task": ("episode_length", "measure_"),
    "4_split": ("allocation", "divergence", "control_variate"),
    "6_cost": ("iteration", "samples", "env_steps", "wall", "cost", "counted", "seconds"),
    "7_worlds": ("failures", "overflows", "randomized_"),
}
"""Which metrics stand together, by how their names begin. TensorBoard sorts groups by their names."""
_OTHERS = "5_learning"


class Curves(Protocol):
    """Where curves go."""

    def write(self, metrics: Mapping[str, float]) -> None:
        """Add an iteration, with `samples` and `cost_seconds` among its metrics."""

    def add_video(self, path: Path, metrics: Mapping[str, float]) -> None:
        """Show a video beside the curves of its iteration."""

    def close(self) -> None:
        """Write what is not written yet."""


def tag_of(metric: str) -> str:
    """A metric's name in TensorBoard: its group, and its own name."""
    for group, beginnings in _GROUPS.items():
        if metric.startswith(beginnings):
            return f"{group}/{metric}"
    return f"{_OTHERS}/{metric}"


class TensorBoard:
    """One curve per metric.

    A step is an environment step. The time of a point is the run's start plus the measured cost in seconds. So
    TensorBoard's horizontal axis "Step" shows samples and "Relative" shows cost.
    """

    def __init__(self, folder: Path, started: float, samples: int | None) -> None:
        """Open the curves.

        Args:
            folder: the run's.
            started: when the run began, s since 1970.
            samples: where a resumed run goes on; later points are dropped. None for a new run.
        """
        self._started = started
        self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=None if samples is None else samples + 1)
        self._charts: set[str] = set()

    def write(self, metrics: Mapping[str, float]) -> None:
        self._lay_out(metrics)
        for name, value in metrics.items():
            self._writer.add_scalar(tag_of(name), value, *self._place(metrics))

    def add_video(self, path: Path, metrics: Mapping[str, float]) -> None:
        """As a moving picture of fewer frames."""
        from dualfid_robot.view.video import moving_picture

        picture, (width, height) = moving_picture(path)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=picture)
        summary = Summary(value=[Summary.Value(tag=VIDEO, image=image)])
        self._writer._get_file_writer().add_summary(summary, *self._place(metrics))

    def close(self) -> None:
        self._writer.close()

    def _place(self, metrics: Mapping[str, float]) -> tuple[int, float]:
        """Step and time of an iteration."""
        return int(metrics["samples"]), self._started + metrics["cost_seconds"]

    def _lay_out(self, metrics: Mapping[str, float]) -> None:
        """Put low and high into one chart each, under "Custom scalars", whenever there are charts that are new."""
        stems = {name.rpartition("/")[0] for name in metrics if name.endswith(("/low", "/high"))}
        if stems <= self._charts:
            return
        self._charts |= stems | {"return"}  # which comes once an episode has finished
        layout: dict[str, dict[str, list[Any]]] = {}
        for stem in sorted(self._charts, key=tag_of):
            group, _, title = tag_of(stem).partition("/")
            chart = ["Multiline", [f"^{tag_of(stem)}/{side}$" for side in ("low", "high")]]
            layout.setdefault(group, {})[title] = chart
        self._writer.add_custom_scalars(layout)


@dataclass(frozen=True)
class WandbSettings:
    """Settings of Weights & Biases, under IsaacGymEnvs' names without their `wandb_`.

    Attributes:
        activate: send the curves there.
        project, entity, group: where they belong. Empty means Weights & Biases' own default.
        name: of the run there. Empty means its folder's.
        tags: of the run.
    """

    activate: bool = False
    project: str = "dualfid_robot"
    entity: str = ""
    group: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> WandbSettings:
        """The settings of a configuration.

        Raises:
            ConfigError: one is wrong, or the package is missing.
        """
        own = {key.removeprefix(_WANDB): value for key, value in settings.items() if key.startswith(_WANDB)}
        try:
            result: WandbSettings = parse_settings(cls, own, "wandb")
        except ConfigError as error:
            raise ConfigError(str(error).replace("wandb.", _WANDB, 1)) from error
        if result.activate:
            require_package("wandb_activate=True", "wandb", "wandb")
        return result


class Wandb:
    """Curves in Weights & Biases, under the metrics' own names. A step is an iteration; the horizontal axis may be any
    metric, and is `samples` where nothing else is chosen."""

    def __init__(self, settings: WandbSettings, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a run there, or go on with it.

        Args:
            settings: with activate=True.
            folder: the run's.
            config: the resolved configuration.

        Raises:
            ConfigError: Weights & Biases refuses, in one line.
        """
        import wandb

        identity = folder / _WANDB_ID
        if not identity.is_file():
            write_text(identity, secrets.token_hex(8))
        try:
            self._run = wandb.init(
                project=settings.project or None,
                entity=settings.entity or None,
                group=settings.group or None,
                name=settings.name or folder.name,
                tags=settings.tags,
                id=identity.read_text("utf-8"),
                resume="allow",
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(console="off"),  # the display is no log
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"wandb_activate=True: {' '.join(str(error).split())}") from error
        self._video = wandb.Video
        self._run.define_metric("samples")
        self._run.define_metric("*", step_metric="samples")

    def write(self, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=int(metrics["iteration"]))

    def add_video(self, path: Path, metrics: Mapping[str, float]) -> None:
        self._run.log({VIDEO: self._video(str(path), format="mp4")}, step=int(metrics["iteration"]))

    def close(self) -> None:
        self._run.finish()
