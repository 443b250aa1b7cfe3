"""docs/your_own_robot.md, done as it says: its files and its commands, in a folder of a user's own."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


Run = Callable[..., "subprocess.CompletedProcess[str]"]
PAGE = ROOT / "docs" / "your_own_robot.md"


def files_of_the_page() -> dict[str, str]:
    """Each block of code that has a language, by the last file's name in the text before it."""
    files: dict[str, str] = {}
    last_end = 0
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        names = re.findall(r"`([\w/]+\.\w+)`", PAGE.read_text()[last_end : block.start()])
        files[names[-1]] = block.group(2)
        last_end = block.end()
    return files


def test_the_page_holds_the_files_that_it_names() -> None:
    assert set(files_of_the_page()) == {
        *("assets/arm.urdf", "tasks/reach.py"),
        *("cfg/task/Reach.yaml", "cfg/train/ReachPPO.yaml"),
    }


@pytest.mark.slow
def test_the_page_leads_to_a_trained_policy(run_script: Run, tmp_path: Path) -> None:
    for name, text in files_of_the_page().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("assetFileName: arm.xml", f"assetFileName: {tmp_path}/assets/arm.xml"))
    (command,) = re.findall(r"^python (import_robot.py assets/.*)$", PAGE.read_text(), re.MULTILINE)
    printed = run_script(*command.split()).stdout
    assert f"```\n{printed}```" in PAGE.read_text()

    def run(script: str, *arguments: str) -> str:
        result = run_script(script, "--config-dir", "cfg", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    checked = run("check_task.py", "task=Reach")
    assert re.search(r"│ mujoco +│ .* │ yes", checked) and re.search(r"4-5 +│ joint_velocity +│ 2", checked)
    assert "Export: yes" in checked
    run("train.py", "task=Reach", "max_iterations=25")
    (folder,) = (tmp_path / "runs").glob("Reach_*")
    run("evaluate.py", f"checkpoint={folder}")
    run("evaluate.py", "task=Reach", "agent=random")
    run("export.py", f"checkpoint={folder}", "num_envs=8")
    played = run("play.py", f"policy={folder}/export", "viewer=none")
    assert "return" in played
    trained = report(folder / "nn" / "last_adapted_mujoco.json")
    chance = report(tmp_path / "runs" / "Reach_random_mujoco.json")
    # 64 episodes each: far outside both intervals, and the hand is nearer to its target in the end.
    assert trained["return_95_low"] > 2 * chance["return_95_high"]
    assert trained["final_distance"] < 0.5 * chance["final_distance"]


def report(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found
