"""Damaged exports: no file is used that is not as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from damage import DAMAGES, EXAMPLES, Damage, is_one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError

pytest.importorskip("onnxruntime")

from dualfid_robot.export.launch import export
from dualfid_robot.export.request import ExportRequest
from dualfid_robot.onboard.runtime import SUMS, Controller, ExportedPolicy, write_sums
from dualfid_robot.play.player import read_starts
from dualfid_robot.play.simulated_robot import check_robot
from dualfid_robot.robots.model import RobotModel

FILES = ("policy.onnx", "observation.onnx", "episode.onnx", "policy.json", "starts.npz", "robot.xml", SUMS)


@pytest.fixture(scope="module")
def exported(whole: Path) -> Path:
    folder = whole.with_name("export")
    export(whole, ExportRequest(("onnx",), num_envs=2), folder)
    return folder


def use(folder: Path) -> None:
    """Everything that play.py reads."""
    policy = ExportedPolicy(folder)
    Controller(policy)
    check_robot(policy.metadata, RobotModel(folder / policy.metadata.robot.file, policy.metadata.robot.feet))
    read_starts(policy)


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=st.sampled_from(FILES), damage=DAMAGES, new_sums=st.booleans())
@example(name=SUMS, damage=Damage(flips=((0.0, 255),)), new_sums=False)
@example(name="policy.json", damage=Damage(inserted=(0.0, b"\x80")), new_sums=True)
@example(name="starts.npz", damage=Damage(cut=0.5), new_sums=True)
def test_damaged_bytes(name: str, damage: Damage, new_sums: bool, exported: Path) -> None:
    folder = exported.with_name("damaged")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(exported, folder)
    content = (folder / name).read_bytes()
    damaged = damage.of(content)
    (folder / name).write_bytes(damaged)
    if new_sums and name in ("policy.json", "starts.npz", "robot.xml"):
        write_sums(folder)
    elif damaged != content:
        with pytest.raises(ConfigError) as refused:
            use(folder)
        assert is_one_line(refused.value)
        return
    try:
        use(folder)
    except ConfigError as error:
        assert is_one_line(error)
