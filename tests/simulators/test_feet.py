"""A contact that E_high has and E_low lacks: kept, refused or announced, but never lost without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engines_under_test import Make, skip_missing

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.conformance.worlds import run
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import lost_contacts

RobotOf = Callable[..., RobotModel]

FLOOR = '<geom name="floor" type="plane" size="0 0 1"/>'
SHELF = '<body name="shelf"><geom name="shelf" type="plane" size="0 0 1"/></body>'
BALL = '<body name="base" pos="0 0 0.2"><freejoint/><geom name="skin" size="0.1" mass="0.5"/>{}</body>'
CHILD = '<body name="child" pos="0 0 0.1"/>'
REDUCED = ["mujoco_reduced", "pybullet", "physx", pytest.param("mujoco_warp", marks=pytest.mark.slow)]
MUJOCO = {"engine": "mujoco"}


def reduced(name: str) -> dict[str, str]:
    return {} if name == "pybullet" else {"contacts": "feet"}


def feet_alone(name: str) -> dict[str, str]:
    return {} if name == "mujoco" else reduced(name)


@pytest.mark.parametrize("ground", [FLOOR, SHELF], ids=["floor", "static body"])
@pytest.mark.parametrize("foot", ["base", "child"])
@pytest.mark.parametrize("name", REDUCED)
def test_a_foot_bears_the_robot(name: str, foot: str, ground: str, make: Make, robot_of: RobotOf) -> None:
    """A ball whose foot is itself, or a part of it without geoms, on a plane of the world or of a fixed body."""
    skip_missing(name)
    simulator = make(name, robot_of(ground + BALL.format(CHILD), feet=(foot,)), 1, **reduced(name))
    run(simulator, 1.0)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize(
    ("worldbody", "rest", "feet", "named"),
    [
        (FLOOR + BALL.format(""), "", (), r"asset\.feet=\[\]: only feet keep contacts"),
        (
            FLOOR + BALL.format('<body name="toe"><joint/><geom size=".01" contype="0" conaffinity="0"/></body>'),
            "",
            ("toe",),
            "asset.feet=toe: it can touch nothing",
        ),
        (
            FLOOR + BALL.format(""),
            '<contact><exclude body1="base" body2="world"/></contact>',
            ("base",),
            "asset.feet=base: it can touch nothing",
        ),
        (
            FLOOR.replace("/>", ' contype="2" conaffinity="2"/>') + BALL.format(""),
            "",
            ("base",),
            "asset.feet=base: it can touch nothing",
        ),
    ],
    ids=["no feet", "masked", "excluded", "other masks"],
)
def test_feet_that_would_bear_nothing_are_refused(
    name: str, worldbody: str, rest: str, feet: tuple[str, ...], named: str, make: Make, robot_of: RobotOf
) -> None:
    skip_missing(name)
    with pytest.raises(ConfigError, match=named):
        make(name, robot_of(worldbody, rest, feet), 1, **reduced(name))


def test_a_robot_whose_contacts_are_switched_off_falls_everywhere(engine: str, make: Make, robot_of: RobotOf) -> None:
    if "warp" in engine:
        pytest.skip("compiles kernels for minutes; it runs on the same compiled model as mujoco")
    robot = robot_of(FLOOR + BALL.format(""), '<option><flag contact="disable"/></option>')
    simulator = make(engine, robot, 1)
    run(simulator, 0.5)
    assert float(simulator.qpos[0, 2]) < -0.9
    assert not lost_contacts(CASES[engine].settings, MUJOCO, robot)


def test_what_low_cannot_touch_is_named(robot_of: RobotOf) -> None:
    leg = '<body name="{0}" pos="{1} 0 0"><joint axis="0 1 0"/><geom size="0.05" pos="0 0 -.1"/></body>'
    robot = robot_of(FLOOR + BALL.format(leg.format("left", 0.3) + leg.format("right", -0.3)), feet=("left", "right"))
    of_feet = {"engine": "mujoco", "contacts": "feet"}
    assert lost_contacts(of_feet, MUJOCO, robot) == "E_low has no contact of base with anything"
    assert lost_contacts({"engine": "pybullet"}, MUJOCO, robot) == (
        "E_low has no contact of base with anything, nor between left and right"
    )
    assert lost_contacts(MUJOCO, MUJOCO, robot) == lost_contacts(of_feet, of_feet, robot) == ""


def test_a_foot_that_only_touches_what_low_leaves_out_is_refused(robot_of: RobotOf) -> None:
    hand = '<body name="hand" pos="0 0 1"><joint/><geom size=".1" contype="2" conaffinity="0"/></body>'
    cube = '<body name="cube" pos="0 0 2"><freejoint/><geom size=".1" contype="1" conaffinity="3"/></body>'
    robot = robot_of(FLOOR + hand + cube, feet=("hand",))
    of_feet = {"engine": "mujoco", "contacts": "feet"}
    with pytest.raises(ConfigError, match=r"^asset\.feet=hand: in robot\.xml it can touch cube alone"):
        lost_contacts(of_feet, MUJOCO, robot)
    both = robot_of(FLOOR + hand + cube, feet=("hand", "cube"))
    assert lost_contacts(of_feet, MUJOCO, both) == ""
    with pytest.raises(ConfigError, match=r"^asset\.feet=hand: in engine pybullet it cannot touch cube$"):
        lost_contacts({"engine": "pybullet"}, MUJOCO, both)


@pytest.mark.parametrize("name", REDUCED)
def test_an_engine_by_itself_refuses_such_a_foot(name: str, make: Make, robot_of: RobotOf) -> None:
    """Evaluation has no E_high to compare with."""
    skip_missing(name)
    hand = '<body name="hand" pos="0 0 1"><joint axis="0 1 0"/><geom size=".1"/></body>'
    plate = '<body name="plate"><joint type="slide"/><geom type="box" size="1 1 .05"/></body>'
    with pytest.raises(ConfigError, match=r"^asset\.feet=hand: in robot\.xml it can touch plate alone"):
        make(name, robot_of(hand + plate, feet=("hand",)), 1, **reduced(name))


def test_a_mocap_body_bears_the_robot(make: Make, robot_of: RobotOf) -> None:
    """Nothing moves it here, so its contacts with feet stay."""
    table = '<body name="table" mocap="true"><geom type="box" size="1 1 .1" pos="0 0 -.1"/></body>'
    simulator = make("mujoco_reduced", robot_of(table + BALL.format(""), feet=("base",)), 1)
    run(simulator, 1.0)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.1, abs=0.015)
    with pytest.raises(ConfigError, match=r"^asset\.feet=table: .* allowed are \['base'\]$"):
        make("mujoco_reduced", robot_of(table + BALL.format(""), feet=("table",)), 1)


@pytest.mark.parametrize("name", ["mujoco", *REDUCED[:3]])
@pytest.mark.parametrize("size", ['memory="2K"', 'njmax="1" nconmax="1"'])
def test_a_small_memory_loses_no_contact(name: str, size: str, make: Make, robot_of: RobotOf) -> None:
    skip_missing(name)
    simulator = make(name, robot_of(FLOOR + BALL.format(""), f"<size {size}/>", ("base",)), 1, **feet_alone(name))
    run(simulator, 1.0)
    assert float(simulator.qpos[0, 2]) == pytest.approx(0.1, abs=0.015)


def test_contacts_that_find_no_room_are_counted_and_announced(
    make: Make, robot_of: RobotOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dualfid_robot.robots.model.LEAST_MEMORY", 0)
    box = BALL.format("").replace('size="0.1"', 'type="box" size="0.1 0.1 0.1"')
    simulator = make("mujoco", robot_of(FLOOR + box, '<size memory="2K"/>'), 2)
    run(simulator, 0.5)
    assert simulator.take_overflows() > 0 and simulator.take_overflows() == 0
    (record,) = caplog.records
    assert "robot.xml: contacts or limits were ignored for want of memory" in record.getMessage()


def test_contacts_of_a_welded_foot_are_measured(make: Make, robot_of: RobotOf) -> None:
    simulator = make("mujoco_reduced", robot_of(FLOOR + BALL.format(CHILD), feet=("child",)), 1, bodies=("base",))
    run(simulator, 1.0)
    weight = float(simulator.robot.model.body_mass.sum()) * 9.81
    torch.testing.assert_close(simulator.contact_wrench[0, 0, 2], torch.tensor(weight), rtol=0.01, atol=0.0)
