"""A run's curves, as TensorBoard and Weights & Biases read them back."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.curves import TENSORBOARD, WandbSettings, tag_of
from dualfid_robot.runs.run_log import RunLog

STARTED = 1e9  # s since 1970


def metrics_of(iteration: int) -> dict[str, float]:
    """Of an iteration of 100 samples, which costs 0.3 s."""
    metrics = {"iteration": iteration, "samples": 100.0 * iteration, "cost_seconds": 0.3 * iteration}
    metrics |= {"reward/alive/low": 0.5, "reward/alive/high": 0.25, "seconds/learner": 0.1, "policy/std": 1.0}
    if iteration > 1:
        metrics |= {"return/low": -float(iteration), "return/high": float(iteration)}
    return metrics


def write(folder: Path, iterations: range, resumed_at: int | None = None, **config: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "nn").mkdir(exist_ok=True)
    log = RunLog(folder, config, None if resumed_at is None else metrics_of(resumed_at))
    for iteration in iterations:
        log.write(metrics_of(iteration))
    log.close()


def events_of(folder: Path) -> EventAccumulator:
    """What TensorBoard shows; there is one run in the folder."""
    (place,) = {path.parent for path in folder.rglob("*tfevents*")}
    assert place == folder / TENSORBOARD
    events = EventAccumulator(str(place))
    events.Reload()
    return events


def test_one_curve_for_each_metric_against_samples_and_cost(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    events = events_of(tmp_path)
    assert set(events.Tags()["scalars"]) == {tag_of(name) for name in metrics_of(2)}
    points = events.Scalars("1_return/return/high")
    assert [(point.step, point.value) for point in points] == [(200, 2.0), (300, 3.0), (400, 4.0)]
    assert [point.wall_time - points[0].wall_time for point in points] == pytest.approx([0.0, 0.3, 0.6], abs=1e-6)


def test_a_run_that_goes_on_has_its_points_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    os.utime(tmp_path / "config.yaml", (STARTED, STARTED))
    write(tmp_path, range(3, 7), resumed_at=2)
    points = events_of(tmp_path).Scalars("6_cost/cost_seconds")
    assert [point.step for point in points] == [100, 200, 300, 400, 500, 600]
    assert [point.wall_time for point in points][2:] == pytest.approx([STARTED + 0.3 * i for i in range(3, 7)])


def test_the_return_comes_first_and_low_and_high_share_a_chart(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    events = events_of(tmp_path)
    assert min(events.Tags()["scalars"]).startswith("1_return/")
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert [category.title for category in layout.category] == ["1_return", "2_reward"]
    assert charts["return"] == ["^1_return/return/low$", "^1_return/return/high$"]
    assert charts["reward/alive"] == ["^2_reward/reward/alive/low$", "^2_reward/reward/alive/high$"]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Weights & Biases without a network, an account and the user's own settings."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield


def wandb_records(path: Path) -> Iterator[bytes]:
    """Records of wandb's offline file: LevelDB's log format in blocks of 32 KiB behind a header of 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # full, or the last part
            yield record
            record = b""


@pytest.mark.usefixtures("offline")
def test_weights_and_biases_offline(tmp_path: Path) -> None:
    """What `wandb sync` would send."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    folder = tmp_path / "Ant_today"
    asked = {"wandb_project": "robots", "wandb_entity": "us", "wandb_group": "ants", "wandb_tags": ["a", "b"]}
    write(folder, range(1, 3), wandb_activate=True, **asked)
    time.sleep(1.1)  # wandb names its folders by the second
    write(folder, range(3, 5), resumed_at=2, wandb_activate=True, wandb_name="later", **asked)
    wandb.teardown()  # its process writes what it has and ends
    rows, runs = [], []
    for path in sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime):
        for data in wandb_records(path):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                runs.append(record.run)
            elif record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert [row["samples"] for row in rows] == [100, 200, 300, 400]
    assert [row["_step"] for row in rows] == [1, 2, 3, 4]
    assert [row.get("return/high") for row in rows] == [None, 2.0, 3.0, 4.0]
    assert [row["cost_seconds"] for row in rows] == pytest.approx([0.3, 0.6, 0.9, 1.2])
    assert {(run.project, run.entity, run.run_group, tuple(run.tags)) for run in runs} == {
        ("robots", "us", "ants", ("a", "b"))
    }
    assert runs[0].display_name == "Ant_today" and runs[-1].display_name == "later"
    assert len({run.run_id for run in runs}) == 1


def test_weights_and_biases_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find_spec(name))
    assert not WandbSettings.of({"wandb_activate": False, "seed": 1}).activate
    with pytest.raises(ConfigError, match=r"wandb_activate=True: wandb is not installed; .*\[wandb\]"):
        WandbSettings.of({"wandb_activate": True})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wandb_tags": "a"}, "wandb_tags=a: a list is expected"),
        ({"wandb_activate": "yes"}, "wandb_activate=yes: True or False is expected"),
        ({"wandb_project": 3}, "wandb_project=3: a text is expected"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WandbSettings.of(settings)


@pytest.mark.usefixtures("offline")
def test_a_refusal_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^wandb_activate=True: .*project"):
        write(tmp_path / "run", range(1), wandb_activate=True, wandb_project="a/b?")
