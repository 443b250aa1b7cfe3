"""robot.xml is the same model as the asset, wherever its parts came from."""

from __future__ import annotations

import struct
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.robot_file import write_robot
from dualfid_robot.robots.model import RobotModel

_MAIN = """
<mujoco model="crawler">
  <compiler angle="degree" meshdir="shapes" texturedir="pictures"/>
  <include file="parts/settings.xml"/>
  <asset>
    <mesh name="hull" file="hull.stl" scale="0.123456789012345 0.1 0.1"/>
    <hfield name="hills" file="hills.bin" size="1 1 0.1 0.1"/>
  </asset>
  <worldbody>
    <geom type="plane" size="1 1 1"/>
    <body pos="0 0 1">
      <freejoint/>
      <geom type="mesh" mesh="hull"/>
      <frame pos="0 0.1 0"><body name="leg"><joint axis="0 1 0" range="-33.333333333333 10" limited="true"/>
        <geom size="0.1"/></body></frame>
      <body pos="0 1 0"><joint/><geom size="0.07"/></body>
    </body>
  </worldbody>
  <worldbody><geom name="second" size="0.3"/></worldbody>
  <actuator><motor joint="unnamed"/></actuator>
</mujoco>
"""
_SETTINGS = '<mujoco><option gravity="0 0 -9.80665"/><include file="parts/defaults.xml"/></mujoco>'
_DEFAULTS = '<mujoco><default><geom friction="0.777777777777777 0.01 0.001"/></default></mujoco>'


def _tetrahedron() -> bytes:
    """A binary STL."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    faces = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
    data = b"\0" * 80 + struct.pack("<I", len(faces))
    for face in faces:
        data += struct.pack("<3f", 0, 0, 0) + corners[list(face)].tobytes() + b"\0\0"
    return data


@pytest.fixture
def crawler(tmp_path: Path) -> Path:
    """A robot of several files in several folders, with unnamed parts."""
    files: dict[str, str | bytes] = {
        "crawler.xml": _MAIN.replace('<joint axis="0 1 0"', '<joint name="unnamed" axis="0 1 0"'),
        "parts/settings.xml": _SETTINGS,
        "parts/defaults.xml": _DEFAULTS,
        "shapes/hull.stl": _tetrahedron(),
        "shapes/hills.bin": struct.pack("<2i4f", 2, 2, 0.0, 0.1, 0.2, 0.3),
    }
    for name, content in files.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / "source" / "crawler.xml"


def test_a_robot_of_many_files_becomes_one_folder(crawler: Path, tmp_path: Path) -> None:
    robot = RobotModel(crawler)
    folder = tmp_path / "export"
    folder.mkdir()
    write_robot(robot, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["hills.bin", "hull.stl", "robot.xml"]
    for path in (tmp_path / "source").rglob("*"):
        path.rename(path.with_name(f"gone_{path.name}")) if path.is_file() else None
    written = mujoco.MjModel.from_xml_path(str(folder / "robot.xml"))
    assert written.geom_friction[0, 0] == 0.777777777777777
    assert written.jnt_range[1, 0] == np.deg2rad(-33.333333333333)
    np.testing.assert_array_equal(written.body_mass, robot.model.body_mass)
    np.testing.assert_array_equal(written.mesh_vert, robot.model.mesh_vert)
    np.testing.assert_array_equal(written.hfield_data, robot.model.hfield_data)
    assert [written.body(i).name for i in range(1, written.nbody)] == list(robot.body_names)
    assert [written.joint(i).name for i in range(1, written.njnt)] == list(robot.joint_names)
    assert [written.actuator(0).name] == list(robot.actuator_names)


def test_parts_that_mujoco_makes_itself_stay_unnamed_and_the_model_the_same(tmp_path: Path) -> None:
    text = """<mujoco><worldbody>
      <replicate count="3" offset="1 0 0"><body><joint/><geom size="0.1"/></body></replicate>
      <body><joint/><geom size="0.2"/></body></worldbody></mujoco>"""
    (tmp_path / "row.xml").write_text(text)
    (tmp_path / "export").mkdir()
    write_robot(RobotModel(tmp_path / "row.xml"), tmp_path / "export")
    written = RobotModel(tmp_path / "export" / "robot.xml")
    assert written.body_names == RobotModel(tmp_path / "row.xml").body_names


@pytest.mark.parametrize("asset", sorted(path.name for path in (ASSETS).glob("*.xml")))
def test_every_asset(asset: str, tmp_path: Path) -> None:
    if asset == "anymal_robot.xml":
        pytest.skip("a part of others")
    robot = RobotModel(ASSETS / asset)
    write_robot(robot, tmp_path)
    written = mujoco.MjModel.from_xml_path(str(tmp_path / "robot.xml"))
    assert [written.geom(i).name for i in range(written.ngeom)] == [
        robot.model.geom(i).name for i in range(robot.model.ngeom)
    ]
    data = [mujoco.MjData(model) for model in (written, robot.model)]
    for _ in range(50):
        for model, each in zip((written, robot.model), data, strict=True):
            each.ctrl[:] = 0.1
            mujoco.mj_step(model, each)
    np.testing.assert_array_equal(data[0].qpos, data[1].qpos)


def test_files_of_one_name_are_refused(crawler: Path, tmp_path: Path) -> None:
    other = crawler.parent / "shapes" / "other" / "hull.stl"
    other.parent.mkdir()
    other.write_bytes(_tetrahedron())
    extra = '<mesh name="second" file="other/hull.stl"/><hfield name="hills"'
    crawler.write_text(crawler.read_text().replace('<hfield name="hills"', extra))
    with pytest.raises(ConfigError, match="another file of that name"):
        write_robot(RobotModel(crawler), tmp_path)
