"""Damaged, foreign and dangerous checkpoints."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint, saved_settings
from dualfid_robot.runs.identity import identity
from dualfid_robot.runs.saved_policy import policy_of
from dualfid_robot.train.trainer import Trainer


def test_round_trip_of_everything_that_a_checkpoint_holds(tmp_path: Path) -> None:
    state = {"a": torch.arange(3), "b": {"c": np.arange(4.0)}, "d": [1, 2.5, "text", None, True], "e": (1, [2])}
    save_checkpoint(tmp_path / "x.pth", state)
    loaded = load_checkpoint(tmp_path / "x.pth")
    assert torch.equal(loaded["a"], state["a"])
    assert np.array_equal(loaded["b"]["c"].numpy(), state["b"]["c"])
    assert loaded["d"] == state["d"] and loaded["e"] == [1, [2]]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save_checkpoint(path, {"value": 1})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(path, {"value": lambda: None})
    assert load_checkpoint(path)["value"] == 1


@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0.0, 0.999), flips=st.lists(st.integers(0, 10**6), max_size=3))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: float, flips: list[int]) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    save_checkpoint(folder / "whole.pth", {"value": torch.randn(100)})
    content = bytearray((folder / "whole.pth").read_bytes())
    content = content[: int(len(content) * cut)]
    for flip in flips:
        if content:
            content[flip % len(content)] ^= 0xFF
    (folder / "cut.pth").write_bytes(content)
    with pytest.raises(ConfigError, match="damaged, or no checkpoint"):
        load_checkpoint(folder / "cut.pth")


def test_a_run_is_found_from_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nn").mkdir()
    (tmp_path / "nn" / "last.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve_checkpoint(Path(".")) == Path("nn/last.pth")
    monkeypatch.chdir(tmp_path / "nn")
    assert resolve_checkpoint(Path(".")) == resolve_checkpoint(Path("last")) == Path("last.pth")
    with pytest.raises(ConfigError, match="checkpoint=/: no such file"):
        resolve_checkpoint(Path("/"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda settings: settings["train"]["params"]["config"].update(old=1), r"train.params.config.old=1: no such"),
        (lambda settings: settings["task"].pop("sim"), r"task.sim: is required"),
        (lambda settings: settings.update(old=1), r"old: no such setting"),
    ],
)
def test_settings_of_another_version_are_called_so(
    change: Callable[[dict[str, Any]], object],
    message: str,
    compose_config: Callable[..., DictConfig],
    tmp_path: Path,
) -> None:
    experiment = Experiment(compose_config("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=32"))
    settings = json.loads(json.dumps(experiment.settings))
    change(settings)
    state = identity(experiment) | {"settings": json.dumps(settings), "policy": experiment.make_policy().state_dict()}
    with pytest.raises(
        ConfigError, match=f"^checkpoint=x.pth: {message}.*; a checkpoint of another version of"
    ) as refused:
        policy_of(Path("x.pth"), state)
    assert "\n" not in str(refused.value)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("executed", "w"))


def test_loading_never_executes_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "0.3", "x": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="damaged, or no checkpoint"):
        load_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "executed").exists()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    torch.save({"model": torch.zeros(1)}, tmp_path / "foreign.pth")
    torch.save({"format": torch.zeros(2)}, tmp_path / "numbers.pth")
    torch.save({"format": 3}, tmp_path / "older.pth")
    for name in ("foreign.pth", "numbers.pth"):
        with pytest.raises(ConfigError, match="not written by dualfid_robot"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(ConfigError, match=r"has format 3; this version reads format 0\.3 alone"):
        load_checkpoint(tmp_path / "older.pth")
    with pytest.raises(ConfigError, match="no such file"):
        load_checkpoint(tmp_path / "absent")


def test_a_checkpoint_of_other_settings_is_refused(compose_config: Callable[..., DictConfig], tmp_path: Path) -> None:
    common = ("simulator/low=mujoco_reduced", "num_envs=32", "train.params.config.minibatch_size=64")
    trainer = Trainer(Experiment(compose_config("task=Cartpole", *common)))
    trainer.iterate()
    trainer.save(tmp_path / "x.pth")
    trainer.close()
    for overrides, message in (
        (("task=Ant", *common), "was trained on task=Cartpole, not on task=Ant"),
        (("task=Cartpole", *common, "simulator.high.substeps=4"), "simulator.high.substeps=4: .* made with 8"),
        (("task=Cartpole", *common, "train.params.network.adapter.rank=2"), "adapter.rank=2: .* made with 8"),
        (("task=Cartpole", *common[:1], "num_envs=64", common[2]), "num_envs=64: .* made with 32"),
    ):
        other = Trainer(Experiment(compose_config(*overrides)))
        with pytest.raises(ConfigError, match=message):
            other.resume(tmp_path / "x.pth")
        other.close()


def test_settings_that_have_come_since_change_nothing() -> None:
    config = {"gamma": 0.5, "name": "Old"}
    old = {
        "train": {"params": {"config": config}},
        "task": {"name": "Ant", "randomization": {"mass": {"range": [1, 2]}}},
    }
    completed = saved_settings({"settings": json.dumps(old)})
    assert completed["train"]["params"]["config"].items() >= config.items()
    assert completed["train"]["params"]["config"]["adapter_weight_decay"] == 0.0
    assert completed["train"]["params"]["config"]["low_passes"] == 1.0
    assert completed["task"]["low"] == "" and completed["task"]["randomization"]["com"] is None
    assert completed["task"]["randomization"]["mass"] == {"range": [1, 2]}
