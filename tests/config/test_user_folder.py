"""A user's folder: what is found in it, what is refused, and which run remembers it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.envs.registry import make_task, task_names
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

SETTINGS = {"numEnvs": 4, "episodeLength": 10}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for folder in ("cfg/task", "tasks", "assets"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    return tmp_path / "mine"


def test_an_asset_is_the_packages_the_users_or_absolute(mine: Path) -> None:
    (mine / "assets" / "arm.xml").write_text("")
    user = UserFolder(mine / "cfg")
    assert user.asset("arm.xml") == mine / "assets" / "arm.xml"
    assert user.asset("ant.xml") == UserFolder().asset("ant.xml") == ASSETS / "ant.xml"
    assert user.asset("/elsewhere/arm.xml") == Path("/elsewhere/arm.xml")
    (mine / "assets" / "ant.xml").write_text("")
    with pytest.raises(ConfigError, match=r"^task.asset.assetFileName=ant.xml: is both .* and .*; give the absolute"):
        user.asset("ant.xml")


def test_tasks_of_two_folders_do_not_mix(mine: Path, tmp_path: Path, cartpole: RobotModel) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for folder, number in ((mine / "tasks", 1), (other, 2)):
        (folder / "base.py").write_text(f"NUMBER = {number}\n")
        (folder / "my_pole.py").write_text(
            "from dualfid_robot.tasks.cartpole import Cartpole\n\nfrom .base import NUMBER\n\n\n"
            "class MyPole(Cartpole):\n    number = NUMBER\n"
        )
    assert "MyPole" in task_names([other]) and "MyPole" not in task_names()
    made = [make_task("MyPole", SETTINGS, cartpole, 0.02, folders=[folder]) for folder in (mine / "tasks", other)]
    assert [task.number for task in made] == [1, 2]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"^task=MyPole: allowed are \['Ant'"):
        make_task("MyPole", SETTINGS, cartpole, 0.02)


def test_a_task_of_the_packages_name_is_refused(mine: Path, cartpole: RobotModel) -> None:
    (mine / "tasks" / "cartpole.py").write_text("")
    with pytest.raises(ConfigError, match=r"^task=Cartpole: is in both .*; give yours another name$"):
        make_task("Cartpole", SETTINGS, cartpole, 0.02, folders=[mine / "tasks"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"x = 1\nclass Hopper(:\n", r"^task=Hopper: .*/tasks/hopper\.py, line 2: invalid syntax$"),
        (b"\xff\xfe", r"^task=Hopper: .*/tasks/hopper\.py, line \w+: .*codec can't decode byte"),
        (b"import nothing_here\n", r"^task=Hopper: .*/hopper\.py cannot be imported: No module named 'nothing_here'$"),
    ],
)
def test_a_file_that_is_no_module_is_one_line(code: bytes, message: str, mine: Path, cartpole: RobotModel) -> None:
    (mine / "tasks" / "hopper.py").write_bytes(code)
    with pytest.raises(ConfigError, match=message) as refused:
        make_task("Hopper", SETTINGS, cartpole, 0.02, folders=[mine / "tasks"])
    assert "\n" not in str(refused.value)
