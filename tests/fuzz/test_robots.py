"""Damaged robot files: a robot that every engine can be asked about and MuJoCo can step, or one line."""

from __future__ import annotations

import copy
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from damage import DAMAGES, EXAMPLES, Damage, is_one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.robot import import_robot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import engine_class, make_simulator

MJCF = ("ant.xml", "cartpole.xml", "quadcopter.xml")
URDF = """<robot name="arm">
  <material name="red"><color rgba="1 0 0 1"/></material>
  <link name="base">
    <inertial><mass value="2"/><inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" iyz="0"/></inertial>
    <collision><origin xyz="0 0 0.1" rpy="0 0 0"/><geometry><box size="0.2 0.2 0.2"/></geometry></collision>
  </link>
  <link name="upper">
    <inertial><origin xyz="0 0 0.2"/><mass value="1"/>
      <inertia ixx="0.01" iyy="0.01" izz="0.01" ixy="0" ixz="0" iyz="0"/></inertial>
    <visual><geometry><cylinder radius="0.05" length="0.4"/></geometry><material name="red"/></visual>
    <collision><geometry><cylinder radius="0.05" length="0.4"/></geometry></collision>
  </link>
  <link name="tip"><collision><geometry><sphere radius="0.05"/></geometry></collision></link>
  <joint name="shoulder" type="revolute">
    <parent link="base"/><child link="upper"/><origin xyz="0 0 0.2"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="1" effort="10" velocity="3"/><dynamics damping="0.1" friction="0"/>
  </joint>
  <joint name="end" type="fixed"><parent link="upper"/><child link="tip"/><origin xyz="0 0 0.4"/></joint>
</robot>
"""
ENGINES = ("mujoco", "pybullet", "physx")
VALUES = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "1e30", "1e-30", "nan", "inf", "true", "world", "base", "hinge", "ü", "0 0 0", "../x"]
    ),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=10).map(lambda row: " ".join(map(str, row))),
)


def changed(text: str, data: st.DataObject) -> str:
    """A file with a few elements removed, doubled or moved, and a few attributes removed or set."""
    root = ET.fromstring(text)
    for _ in range(data.draw(st.integers(1, 3))):
        parents = [(parent, child) for parent in root.iter() for child in parent]
        if not parents:
            break
        parent, child = data.draw(st.sampled_from(parents))
        kind = data.draw(st.sampled_from(["remove", "double", "move", "set", "set", "set", "drop", "rename"]))
        if kind == "remove":
            parent.remove(child)
        elif kind == "double":
            parent.append(copy.deepcopy(child))
        elif kind == "move":
            data.draw(st.sampled_from(list(root.iter()))).append(copy.deepcopy(child))
        elif kind == "rename":
            child.tag = data.draw(st.sampled_from(sorted({element.tag for element in root.iter()})))
        elif child.attrib:
            key = data.draw(st.sampled_from(sorted(child.attrib)))
            if kind == "set":
                child.set(key, data.draw(VALUES))
            else:
                del child.attrib[key]
    return ET.tostring(root, encoding="unicode")


def use(path: Path, feet: tuple[str, ...]) -> None:
    """What a run does with a robot before it learns: compile, ask every engine, step in MuJoCo."""
    robot, task = RobotModel(path, feet), {"simulators": {}}
    for engine in ENGINES:
        try:
            engine_class(engine).check_robot(robot, ())
        except ConfigError as error:
            assert is_one_line(error)
    simulator = make_simulator(
        simulator_settings("mujoco_reduced", task) | {"threads": 1}, robot, 2, 1 / 60, (), torch.device("cpu")
    )
    for _ in range(3):
        simulator.start_step(torch.zeros(2, robot.model.nu), 2)
        simulator.finish_step()
    assert np.isfinite(simulator.qpos.numpy()).all()
    simulator.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("robots")


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=st.sampled_from(MJCF), data=st.data())
def test_changed_mjcf(name: str, data: st.DataObject, place: Path) -> None:
    path = place / "robot.xml"
    path.write_text(changed((ASSETS / name).read_text(), data))
    try:
        use(path, ())
    except ConfigError as error:
        assert is_one_line(error)


def test_a_robot_without_joints(place: Path) -> None:
    """Found by the search."""
    path = place / "robot.xml"
    path.write_text("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(ConfigError, match=r"^asset.assetFileName=robot.xml: it has no joints"):
        use(path, ())


@settings(max_examples=EXAMPLES, deadline=None)
@given(name=st.sampled_from(MJCF), damage=DAMAGES)
@example(name="ant.xml", damage=Damage(cut=0.0))
@example(name="ant.xml", damage=Damage(inserted=(0.5, b"\xff\x00")))
def test_damaged_mjcf(name: str, damage: Damage, place: Path) -> None:
    path = place / "robot.xml"
    path.write_bytes(damage.of((ASSETS / name).read_bytes()))
    try:
        use(path, ())
    except ConfigError as error:
        assert is_one_line(error)


@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_changed_urdf(data: st.DataObject, place: Path) -> None:
    path = place / "robot.urdf"
    path.write_text(changed(URDF, data))
    import_and_use(path)


@settings(max_examples=EXAMPLES, deadline=None)
@given(damage=DAMAGES)
def test_damaged_urdf(damage: Damage, place: Path) -> None:
    path = place / "robot.urdf"
    path.write_bytes(damage.of(URDF.encode()))
    import_and_use(path)


def import_and_use(path: Path) -> None:
    """What import_robot.py writes, a run can use."""
    try:
        robot = import_robot(path)
    except ConfigError as error:
        assert is_one_line(error)
        return
    out = path.with_suffix(".xml")
    robot.write(out)
    try:
        use(out, ())
    except ConfigError as error:
        assert is_one_line(error)
