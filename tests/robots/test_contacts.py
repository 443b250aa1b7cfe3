"""What can touch what, against the contacts that MuJoCo makes, and what a foot is."""

from __future__ import annotations

from pathlib import Path

import mujoco
import pytest

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.contacts import touching_bodies, touching_pairs
from dualfid_robot.robots.model import RobotModel

SCENE = """<mujoco><option><flag filterparent="{parents}" contact="{contacts}"/></option><worldbody>
<geom name="floor" type="plane" size="5 5 1"/>
<body name="table"><geom name="table" size=".1" pos="2 0 0"/></body>
<body name="base" pos="0 0 1"><freejoint/>
  <geom name="base" size=".1"/><geom name="ghost" size=".1" contype="0" conaffinity="0"/>
  <body name="sole" pos=".3 0 0"><geom name="sole" size=".1"/>
    <body name="upper" pos=".3 0 0"><joint/><geom name="upper" size=".1" contype="2" conaffinity="1"/>
      <body name="lower" pos=".3 0 0"><joint/><geom name="lower" size=".1" contype="4" conaffinity="2"/></body></body>
  </body>
  <body name="bare"/>
</body></worldbody><contact>
<exclude body1="sole" body2="lower"/><exclude body1="upper" body2="world"/>
<pair geom1="ghost" geom2="floor"/><pair geom1="base" geom2="upper"/></contact></mujoco>"""


def found_by_mujoco(model: mujoco.MjModel) -> set[tuple[int, ...]]:
    """The pairs of geoms in contact, where contacts begin at 50 m."""
    data = mujoco.MjData(model)
    model.geom_margin[:] = model.pair_margin[:] = model.body_margin[:] = 50.0
    mujoco.mj_forward(model, data)
    return {tuple(sorted(contact.geom.tolist())) for contact in data.contact}


@pytest.mark.parametrize("contacts", ["enable", "disable"])
@pytest.mark.parametrize("parents", ["enable", "disable"])
def test_pairs_are_mujocos_under_masks_excludes_pairs_and_flags(parents: str, contacts: str) -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(parents=parents, contacts=contacts))
    found = {tuple(pair) for pair in touching_pairs(model).tolist()}
    assert found == found_by_mujoco(model)
    assert bool(found) == (contacts == "enable")


@pytest.mark.parametrize("asset", ["ant", "anymal", "humanoid", "cartpole", "quadcopter"])
def test_pairs_of_the_tasks_robots_are_mujocos(asset: str) -> None:
    model = mujoco.MjModel.from_xml_path(str(ASSETS / f"{asset}.xml"))
    assert {tuple(pair) for pair in touching_pairs(model).tolist()} == found_by_mujoco(model)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.xml"
    path.write_text(SCENE.format(parents="enable", contacts="enable"))
    return path


@pytest.mark.parametrize(
    ("feet", "geoms"),
    [
        (("sole",), ["sole"]),
        (("base",), ["base", "ghost"]),
        (("bare",), ["base", "ghost", "sole"]),  # it has no geom: those of all that it is welded to
        (("bare", "upper"), ["base", "ghost", "sole", "upper"]),
    ],
)
def test_a_foot_is_its_own_geoms_or_those_that_it_is_welded_to(
    scene: Path, feet: tuple[str, ...], geoms: list[str]
) -> None:
    robot = RobotModel(scene, feet)
    assert sorted(robot.model.geom(geom).name for geom in robot.foot_geoms) == geoms
    reduced = robot.compile(0.01, contacts="feet")
    touching = {reduced.geom(geom).name for pair in touching_pairs(reduced).tolist() for geom in pair}
    assert touching - {"floor", "table"} == set(geoms)
    assert "table" in touching  # what does not move keeps its contacts, whatever its body


def test_feet_that_can_touch_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "robot.xml"
    legs = '<body name="leg"><joint/><geom size=".1" contype="0" conaffinity="0"/></body>'
    ball = '<geom type="plane" size="1 1 1"/><body name="a"><freejoint/><geom size=".1"/></body>'
    post = '<body name="post"><geom size=".1"/></body><body name="a"><joint/><geom size=".1"/></body>'
    for worldbody, feet, named in (
        (legs, ("leg",), r"^asset\.feet=leg: it can touch nothing in robot\.xml"),
        (legs, (), ""),
        (ball, (), r"^asset\.feet=\[\]: only feet keep contacts, .* falls through .* allowed are \['a'\]"),
        (post, ("post",), r"^asset\.feet=post: it can touch nothing"),
    ):
        path.write_text(f"<mujoco><worldbody>{worldbody}</worldbody></mujoco>")
        robot = RobotModel(path, feet)
        robot.compile(0.01)
        if named:
            with pytest.raises(ConfigError, match=named):
                robot.compile(0.01, contacts="feet")
        else:
            assert not touching_bodies(robot.compile(0.01, contacts="feet"))


def test_a_contact_body_that_can_touch_nothing_is_refused(scene: Path) -> None:
    with pytest.raises(ConfigError, match=r"^contact_bodies=bare: no geom of it can touch anything in scene\.xml"):
        RobotModel(scene, ("base",)).compile(0.01, contact_bodies=("bare",))
