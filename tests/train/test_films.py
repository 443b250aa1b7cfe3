"""Films of a policy that is being trained: beside the run, in TensorBoard, and without a trace in the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import pytest
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.train.films import FILMS, TrainingFilms
from dualfid_robot.train.trainer import Trainer
from dualfid_robot.view.video import check_drawing

SMALL = (
    *("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=16", "train.params.config.minibatch_size=256"),
    *("max_iterations=4", "capture_video_freq=2", "capture_video_len=9", "capture_video_size=[96,64]"),
)
TIMES = ("seconds", "cost", "per_second", "cpu")  # what a clock has a say in


def trained(experiment: Experiment, folder: Path) -> list[dict[str, float]]:
    (folder / "nn").mkdir(parents=True)
    trainer = Trainer(experiment)
    try:
        trainer.train(folder)
    finally:
        trainer.close()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not any(word in name for word in TIMES)} for row in rows]


def test_films_change_nothing_and_are_found(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    fixed = ("allocation=fixed",)
    filmed = Experiment(compose_config(*SMALL, *fixed, "capture_video=True"))
    try:
        check_drawing(filmed.robot, (96, 64), "test")
    except ConfigError as error:
        pytest.skip(str(error))
    plain = Experiment(compose_config(*SMALL, *fixed))
    assert trained(filmed, tmp_path / "filmed") == trained(plain, tmp_path / "plain")
    films = sorted((tmp_path / "filmed" / FILMS).iterdir())
    assert [film.name for film in films] == ["iteration_000002.mp4", "iteration_000004.mp4"]
    assert imageio.imread(films[0]).shape == (5, 64, 96, 3)
    assert not (tmp_path / "plain" / FILMS).exists()
    (curves,) = (path.parent for path in (tmp_path / "filmed").rglob("events*") if "cost" not in path.parent.name)
    events = EventAccumulator(str(curves))
    events.Reload()
    (tag,) = events.Tags()["images"]
    assert [image.encoded_image_string[:6] for image in events.Images(tag)] == [b"GIF89a"] * 2


@pytest.mark.parametrize(
    "wrong", ["capture_video_freq=0", "capture_video_len=0", "capture_video_size=[1,2]", "capture_video_size=[96]"]
)
def test_wrong_settings_are_refused(wrong: str, compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    experiment = Experiment(compose_config("task=Cartpole", "capture_video=True", wrong))
    with pytest.raises(ConfigError, match=wrong.split("=")[0]):
        TrainingFilms(experiment, experiment.make_policy(), tmp_path, lambda path, metrics: None)
