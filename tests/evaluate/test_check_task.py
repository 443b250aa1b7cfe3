"""check_task.py: what it prints, what it refuses, and that it works on the robots of other authors."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import pytest
import torch
from any_robot import compose_check, robots_of_others
from omegaconf import OmegaConf
from rich.console import Console

from dualfid_robot.config.experiment import complete_experiment
from dualfid_robot.envs.registry import task_names
from dualfid_robot.envs.task import ActionMapping, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.check_task import Watched, check, check_functions, verdict
from dualfid_robot.evaluate.task_tables import action_line, actuator_table
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import engine_class

DOCS = Path(__file__).parents[2] / "docs" / "your_own_robot.md"


def output_of(*overrides: str) -> str:
    stream = io.StringIO()
    check(compose_check(*overrides), Console(file=stream, width=150))
    return stream.getvalue()


def test_everything_about_cartpole() -> None:
    text = output_of("task=Cartpole", "simulator/low=mujoco_reduced", "simulator.low.mujoco_reduced.threads=1")
    for row in (
        r"slider +│ slide +│ cart +│ 0 +│ 0 +│",
        r"hinge +│ hinge +│ pole +│ 1 +│ 1 +│",
        r"0 +│ slider +│ slider +│ motor +│ 400 +│",
        r"0 +│ cart_position +│ 1",
        r"3 +│ pole_velocity +│ 1",
        r"mujoco_reduced +│ 8\.33 ms, 2 per control +│ yes",
    ):
        assert re.search(row, text), f"{row} in\n{text}"
    for side, name in (("low", "mujoco_reduced"), ("high", "mujoco")):
        assert re.search(rf"{side}, {name}: return \S+ \(95% .*terminated \d+%, 4 episodes", text)
        assert re.search(rf"{side}, {name}: [\d,]+ env steps/s with 8 environments", text)
    # By gravity and random pushes, no pole stays up for 500 steps; what it met is in the table.
    rewards, _, observations = text.partition("Observations that it met")
    smallest, largest = map(float, re.findall(r"│ pole_angle +│ low +│ +(\S+) │ +(\S+) │", observations)[0])
    assert smallest < -0.1 or largest > 0.1
    assert -1.9 < smallest < largest < 1.9
    # What the terms of the reward bring adds up to the return.
    terms = re.findall(r"│ (\w+) +│ +(\S+) \( *\d+%\) │ +(\S+) \( *\d+%\) │", rewards)
    assert [name for name, *_ in terms] == ["alive", "pole_angle", "cart_velocity", "pole_velocity", "failure"]
    for column, side in ((1, "low"), (2, "high")):
        found = re.search(rf"{side}, \w+: return (\S+)", rewards)
        assert found and sum(float(row[column]) for row in terms) == pytest.approx(float(found[1]), rel=2e-3)


@pytest.mark.parametrize("name", task_names())
def test_every_task_of_ours_passes(name: str) -> None:
    text = output_of(f"task={name}", "simulator/low=mujoco_reduced", "task.env.episodeLength=12")
    assert len(re.findall(r"(?:low|high), mujoco(?:_reduced)?: return [-+.\de]+ \(95% ", text)) == 2
    assert "went non-finite" not in text


class TestFunctions:
    """A task whose function returns something else than it declares is refused by the function's name."""

    @pytest.fixture
    def task(self) -> Any:
        cfg = compose_check("task=Cartpole")
        return complete_experiment(cfg, OmegaConf.to_container(cfg.simulator, resolve=True)).make_task()  # type: ignore[arg-type]

    def test_a_right_one_passes(self, task: Any) -> None:
        check_functions(task)

    @pytest.mark.parametrize(
        ("function", "result", "message"),
        [
            ("reward", lambda *_: torch.zeros(3), "reward gives Tensor; a dictionary of terms is expected"),
            ("reward", lambda *_: {"alive": torch.zeros(3, 1)}, r"alive of reward has shape \(3, 1\)"),
            ("reward", lambda *_: {"alive": torch.zeros(3).double()}, "alive of reward is torch.float64"),
            ("terminated", lambda *_: torch.zeros(3), "terminated is torch.float32"),
            ("observe", lambda *_: {"cart_position": torch.zeros(3)}, "observe gives no cart_velocity"),
            ("observe", lambda *_: {"cart_position": torch.zeros(4)}, r"cart_position of observe .*\(4,\)"),
            ("sample_initial_state", lambda *_: (torch.zeros(3, 3), torch.zeros(3, 2)), r"qpos of sample.*\(3, 3\)"),
            ("measure", lambda *_: {"tilt": torch.zeros(2)}, "tilt of measure"),
        ],
    )
    def test_a_wrong_one_is_named(self, task: Any, function: str, result: Any, message: str) -> None:
        setattr(task, function, result)
        with pytest.raises(ConfigError, match=f"task=Cartpole: {message}"):
            check_functions(task)


def test_statistics_of_what_was_seen() -> None:
    task: Any = SimpleNamespace(
        terms=(Term("a", 2),),
        privileged_terms=(Term("b", 1),),
        config=SimpleNamespace(clipObservations=5.0),
        num_observations=3,
    )
    watched = Watched(lambda observations: observations, task)
    watched(torch.tensor([[1.0, 5.0, 2.0], [3.0, -5.0, 2.0]]))
    watched(torch.tensor([[2.0, float("nan"), 2.0], [2.0, 0.0, 2.0]]))
    assert watched.columns_where(watched.not_finite > 0) == ["a[1]"]
    assert watched.columns_where(watched.largest == watched.smallest) == ["b"]
    assert watched.clipped.tolist() == [0, 2, 0]
    smallest, largest, mean, std = watched.by_term()["a"]
    assert (smallest, largest) == (-5.0, 5.0)
    assert mean == pytest.approx(8.0 / 8)  # the value that is not finite counts as zero
    assert std == pytest.approx(((1 + 9 + 4 + 4 + 25 + 25) / 8 - 1) ** 0.5)
    assert watched.by_term()["b"] == (2.0, 2.0, 2.0, 0.0)


def test_actuators_and_the_action_mapping() -> None:
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body><joint name="j" type="hinge"/><geom size="0.1"/><site name="s"/></body></worldbody>
        <actuator>
          <motor name="m" joint="j" gear="7" ctrllimited="true" ctrlrange="-2 2"/>
          <position name="p" joint="j" kp="30" kv="1.5" forcelimited="true" forcerange="-4 4"/>
          <velocity name="v" joint="j" kv="0.25"/>
          <motor name="thrust" site="s" gear="0 0 1 0 0 0.1"/>
        </actuator></mujoco>"""
    )
    stream = io.StringIO()
    Console(file=stream, width=150).print(actuator_table(model))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in stream.getvalue().splitlines() if "│" in line]
    assert rows == [
        ["0", "m", "j", "motor", "7", "", "", "-2 to 2", "free"],
        ["1", "p", "j", "position", "1", "30", "1.5", "free", "-4 to 4"],
        ["2", "v", "j", "velocity", "1", "", "0.25", "free", "free"],
        ["3", "thrust", "site s", "motor", "(0, 0, 1, 0, 0, 0.1)", "", "", "free", "free"],
    ]
    mapped: Any = SimpleNamespace(action_mapping=ActionMapping("angle", scale=(0.5, 0.5), offset=(0.1, -0.2)))
    assert action_line(mapped) == "angle = 0.5 · clip(action, ±1) + (0.1, -0.2)"
    mapped.action_mapping = ActionMapping("angle", scale=0.04, cumulative=True)
    assert action_line(mapped) == "angle = limit(previous angle + 0.04 · clip(action, ±1))"


ELEMENT = r"\b(actuator|body|bodies|joint|tendon|geoms?|equality|option) [\w, ]+:"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
@pytest.mark.parametrize(
    "name", robots_of_others() or [pytest.param("", marks=pytest.mark.skip(reason="neither is installed"))]
)
def test_robots_of_other_authors(name: str, users_folder: Callable[[Path, tuple[str, ...]], list[str]]) -> None:
    """MuJoCo takes them all, at both fidelities; another engine takes them or names the element that it cannot have."""
    asset, feet = robots_of_others()[name]
    search = users_folder(asset, feet)
    model = mujoco.MjModel.from_xml_path(str(asset))
    low = "mujoco_reduced"
    if importlib.util.find_spec("pybullet") is not None:
        cfg = compose_check(*search, "task=AnyRobot", "simulator/low=pybullet")
        simulators: Any = OmegaConf.to_container(cfg.simulator, resolve=True)
        found = verdict(complete_experiment(cfg, simulators), simulators["low"]["pybullet"])
        assert found == "yes" or re.match(rf"no: {asset.name}: .*{ELEMENT}", found), found
        low = "pybullet" if found == "yes" else low
    # At the default steps of 10 ms, dm_control's humanoid flies apart in Bullet; at 5 ms it does not.
    one_process = ["simulator.low.pybullet.workers=1"] * (low == "pybullet")
    text = output_of(*search, "task=AnyRobot", f"simulator/low={low}", f"simulator.low.{low}.substeps=4", *one_process)
    assert (
        len(re.findall(r"(?:low|high), \w+: return 50 .*episode length 50\.0, terminated 0%, 4 episodes\n", text)) == 2
    )
    for engine in ("mujoco", "mujoco_reduced", "physx", "pybullet"):
        (answer,) = re.findall(rf"│ {engine} +│ .*?│ (.*?) +│", text)
        installed = "not installed" not in answer
        assert answer == "yes" or not installed or (not engine.startswith("mujoco") and answer.startswith("no: "))
    joints = [model.joint(i).name for i in range(model.njnt)]
    places = [text.index(f"│ {joint} ") for joint in joints if joint]
    assert places == sorted(places) and len(places) > 2


@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
@pytest.mark.parametrize(("column", "engine", "package"), [(0, "pybullet", "pybullet"), (1, "physx", "sapien")])
def test_engines_take_the_robots_of_others_that_the_docs_say(column: int, engine: str, package: str) -> None:
    pytest.importorskip(package)
    documented = {}
    for author, names, answers in re.findall(r"^\| (\w+)'s ([\w, ]+) \| (.*) \|$", DOCS.read_text(), re.MULTILINE):
        answer = answers.split(" | ")[column]
        documented |= {f"{author} {name}".lower(): answer for name in names.split(", ")}
    for name, (asset, feet) in robots_of_others().items():
        try:
            engine_class(engine).check_robot(RobotModel(asset, feet))
            taken = True
        except ConfigError:
            taken = False
        assert documented[name.replace("half_", "half")].startswith("yes" if taken else "no: "), name


@pytest.mark.skipif(importlib.util.find_spec("pybullet") is None, reason="PyBullet is not installed")
def test_a_simulator_that_was_asked_for_and_refuses_is_an_error(
    users_folder: Callable[[Path, tuple[str, ...]], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "ball.xml").write_text(
        '<mujoco><worldbody><body><joint name="wrist" type="ball"/><geom size="0.1"/></body></worldbody>'
        '<actuator><motor joint="wrist" gear="1 0 0"/></actuator></mujoco>'
    )
    search = users_folder(tmp_path / "ball.xml", ())
    with pytest.raises(ConfigError, match=r"ball\.xml: joint wrist"):
        output_of(*search, "task=AnyRobot", "simulator/low=pybullet")


def test_a_robot_without_actuators_is_refused(
    users_folder: Callable[[Path, tuple[str, ...]], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "arm.xml").write_text(
        '<mujoco><worldbody><body><joint name="wrist"/><geom size="0.1"/></body></worldbody></mujoco>'
    )
    search = users_folder(tmp_path / "arm.xml", ())
    with pytest.raises(ConfigError, match=r"^asset\.assetFileName=arm\.xml: it has no actuators"):
        output_of(*search, "task=AnyRobot")
