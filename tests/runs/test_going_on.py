"""Going on with a run: its own settings, what is typed besides, and which run is meant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import save_checkpoint
from dualfid_robot.runs.going_on import _changed, _unlike_files, arguments_to_go_on

OWN = ["task=Mine", "num_envs=64", "+method=mfpg"]


def make_run(folder: Path, config_dir: str, overrides: list[str], age: float) -> None:
    (folder / "nn").mkdir(parents=True)
    settings = {"config_dir": config_dir, "overrides": overrides, "task": {"name": "Mine"}, "train": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    checkpoint = folder / "nn" / "last.pth"
    save_checkpoint(checkpoint, {"settings": json.dumps(settings)})
    os.utime(checkpoint, (1e9 - age, 1e9 - age))


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three runs, the newest first: an experiment by name, one in the user's folder, and one whose folder is gone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "cfg").mkdir(parents=True)
    made = {"a [1]": ("", ["task=Ant"]), "Mine": (str(tmp_path / "mine" / "cfg"), OWN), "gone": ("/gone/cfg", OWN)}
    for age, (name, (config_dir, overrides)) in enumerate(made.items()):
        make_run(Path("runs") / f"{name}_2026-01-01_00-00-00", config_dir, overrides, float(age))


MINE, NAMED = "checkpoint=runs/Mine_2026-01-01_00-00-00", "checkpoint='runs/a [1]_2026-01-01_00-00-00/nn/last.pth'"


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([MINE], ["--config-dir={cfg}", *OWN, MINE]),
        ([MINE, "num_envs=32"], ["--config-dir={cfg}", OWN[0], OWN[2], "num_envs=32", MINE]),
        ([MINE, "--config-dir=other"], [*OWN, "--config-dir=other", MINE]),
        ([MINE, "multi_gpu=True", "a=b"], ["--config-dir={cfg}", MINE, "multi_gpu=True", "a=b"]),
        ([MINE, "-m", "a=b,c"], ["--config-dir={cfg}", MINE, "-m", "a=b,c"]),
        (["resume=True"], ["task=Ant", NAMED]),
        (["experiment='a [1]'", "resume=true"], ["task=Ant", "experiment='a [1]'", NAMED]),
        (["task=Mine", "resume=True"], ["--config-dir={cfg}", *OWN[1:], OWN[0], f"{MINE}/nn/last.pth"]),
        (["test=True", MINE], ["test=True", MINE]),
        (["resume=False", "task=Ant"], ["resume=False", "task=Ant"]),
    ],
)
def test_what_the_run_was_made_with_comes_first(typed: list[str], expected: list[str], tmp_path: Path) -> None:
    assert arguments_to_go_on(typed) == [text.format(cfg=tmp_path / "mine" / "cfg") for text in expected]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["resume=True", "task=Cartpole"], "resume=True: no run of task=Cartpole with a checkpoint under runs/"),
        (["resume=True", "experiment=Min"], "resume=True: no run of experiment=Min with a checkpoint under runs/"),
        (["resume=True", "experiment=gone"], "config_dir=/gone/cfg: "),
        (["checkpoint=nowhere"], "checkpoint=nowhere: no such file"),
    ],
)
def test_a_run_that_is_not_there_is_named(typed: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        arguments_to_go_on(typed)
    assert str(refused.value).startswith(message)


def test_only_what_was_typed_changes() -> None:
    """The checkpoint's values stand, whatever the files say now, but for what was typed besides."""
    own: dict[str, Any] = {"rate": 1, "seed": 7, "low": {"engine": "a", "substeps": 2}, "rule": {"name": "x", "k": 1}}
    before = {"rate": 9, "seed": -1, "low": {"engine": "a", "substeps": 2}, "rule": {"name": "x", "k": 1}}
    after = {"rate": 9, "seed": -1, "low": {"engine": "a", "substeps": 4}, "rule": {"name": "y"}, "more": {"z": 0}}
    assert _changed(own, before, after) == {
        "rate": 1,
        "seed": 7,
        "low": {"engine": "a", "substeps": 4},
        "rule": {"name": "y"},
        "more": {"z": 0},
    }
    assert own["low"]["substeps"] == 2


def test_files_that_say_something_else_now_are_named() -> None:
    """But not what follows from the command line, and what the run does not have."""
    run = {"env": {"episodeLength": 50, "numEnvs": 8}, "asset": {"feet": ["toe"]}, "randomize": False}
    files = {"env": {"episodeLength": 20, "numEnvs": 16, "more": 1}, "asset": {"feet": ["toe"]}, "randomize": True}
    assert _unlike_files({"task": run, "seed": 1}, {"task": files, "seed": 2}) == [
        "task.env.episodeLength=20 in the files: the run goes on with its own 50"
    ]
