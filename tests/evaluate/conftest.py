"""A user's own folder with a task for any robot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from any_robot import YAML


@pytest.fixture
def users_folder(tmp_path: Path) -> Callable[[Path, tuple[str, ...]], list[str]]:
    """Set up a user's own task for an asset; gives the overrides that find it."""
    config_dir = tmp_path / "cfg"
    shutil.copytree(Path(__file__).parent / "users_tasks", tmp_path / "tasks")

    def set_up(asset: Path, feet: tuple[str, ...]) -> list[str]:
        for group in ("task", "train"):
            (config_dir / group).mkdir(parents=True)
        text = YAML.replace("nothing.xml", str(asset)).replace("feet: []", f"feet: [{', '.join(feet)}]")
        (config_dir / "task" / "AnyRobot.yaml").write_text(text)
        (config_dir / "train" / "AnyRobotPPO.yaml").write_text(
            "defaults: [CartpolePPO, _self_]\nparams: {config: {name: AnyRobot, minibatch_size: 32}}\n"
        )
        return [f"hydra.searchpath=[file://{config_dir}]", f"+config_dir={config_dir}"]

    return set_up
