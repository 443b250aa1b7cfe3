"""robot.xml is the same model as the asset, wherever its parts came from."""

from __future__ import annotations

import struct
from pathlib import Path

import imageio.v3
import mujoco
import numpy as np
import pytest

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.export.robot_file import write_robot
from dualfid_robot.robots.mjcf import read_mjcf
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


def _tetrahedron(size: float = 1.0) -> bytes:
    """A binary STL."""
    corners = size * np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
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


def test_files_of_one_name_get_numbers(crawler: Path, tmp_path: Path) -> None:
    other = crawler.parent / "shapes" / "other" / "hull.stl"
    other.parent.mkdir()
    other.write_bytes(_tetrahedron(2.0))
    extra = '<mesh name="second" file="other/hull.stl"/><hfield name="hills"'
    crawler.write_text(crawler.read_text().replace('<hfield name="hills"', extra))
    robot = RobotModel(crawler)
    (tmp_path / "export").mkdir()
    write_robot(robot, tmp_path / "export")
    names = sorted(path.name for path in (tmp_path / "export").iterdir())
    assert names == ["hills.bin", "hull.stl", "hull_2.stl", "robot.xml"]
    written = RobotModel(tmp_path / "export" / "robot.xml").model
    assert np.ptp(written.mesh_vert, axis=0).max() > 2.0 * np.ptp(written.mesh_vert[:4], axis=0).max()


_OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
_SIDES = ("right", "left", "up", "down", "front", "back")
_BODY = '<body><freejoint/><inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><geom type="mesh" mesh="a"/></body>'
_ATTACHED = """<mujoco model="s"><compiler meshdir="mäsh"/><asset><mesh name="a" file="x y.stl"/></asset>
  <worldbody><body name="root"><geom type="mesh" mesh="a"/></body></worldbody></mujoco>"""
_URDF = """<robot name="r"><link name="root"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0"
  iyz="0"/></inertial><collision><geometry><mesh filename="meshes/x.stl"/></geometry></collision></link></robot>"""


def _png(red: int) -> bytes:
    """An image of four pixels."""
    return imageio.v3.imwrite(
        "<bytes>", np.uint8([[[red, 0, 0], [0, 0, 0]], [[0, 90, 0], [7, 7, 7]]]), extension=".png"
    )


def _skin() -> bytes:
    """A triangle that follows the body `hip`: MuJoCo's SKN format."""
    data = struct.pack("<4i", 3, 0, 1, 1) + struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
    data += struct.pack("<3i", 0, 1, 2) + struct.pack("40s", b"hip") + struct.pack("<7f", 0, 0, 0, 1, 0, 0, 0)
    return data + struct.pack("<i", 3) + struct.pack("<3i", 0, 1, 2) + struct.pack("<3f", 1, 1, 1)


def _mesh(attributes: str, more: str = "") -> str:
    return f'<mujoco>{more}<asset><mesh name="a" {attributes}/></asset><worldbody>{_BODY}</worldbody></mujoco>'


def _attach(file: str) -> str:
    return f"""<mujoco><asset><model name="s" file="{file}"/></asset><worldbody>
      <attach model="s" body="root" prefix="p_"/></worldbody></mujoco>"""


_CUBE = "".join(f'file{side}="{side}/a.png" ' for side in _SIDES)
REFERENCES: dict[str, dict[str, str | bytes]] = {
    "assetdir": {"m.xml": _mesh('file="x.stl"', '<compiler assetdir="d"/>'), "d/x.stl": b""},
    "meshdir before assetdir": {
        "m.xml": _mesh('file="x.stl"', '<compiler assetdir="e" meshdir="d"/>'),
        "d/x.stl": b"",
        "e/x.stl": b"other",
    },
    "the last compiler counts": {
        "m.xml": _mesh('file="x.stl"', '<compiler meshdir="d"/><compiler assetdir="e"/>'),
        "d/x.stl": b"other",
        "e/x.stl": b"",
    },
    "strippath": {"m.xml": _mesh('file="far/x.stl"', '<compiler strippath="true" meshdir="d"/>'), "d/x.stl": b""},
    "backslashes": {"m.xml": _mesh('file="d\\x.stl"'), "d/x.stl": b""},
    "absolute": {"m.xml": _mesh('file="{folder}/d/x.stl"', '<compiler meshdir="e"/>'), "d/x.stl": b""},
    "absolute folder": {"m.xml": _mesh('file="x.stl"', '<compiler meshdir="{folder}/d"/>'), "d/x.stl": b""},
    "spaces and umlauts": {"m.xml": _mesh('file="Ä b/ö x.STL"'), "Ä b/ö x.STL": b""},
    "names of the export's files": {"m.xml": _mesh('file="policy.obj"'), "policy.obj": _OBJ},
    "letters that differ in case": {
        "m.xml": _mesh('file="X.stl"').replace("<mesh", '<mesh name="b" file="d/x.STL" scale="2 2 2"/><mesh', 1),
        "X.stl": b"",
        "d/x.STL": b"other",
    },
    "named by its file": {"m.xml": _mesh('file="d/a.stl"').replace('name="a" ', ""), "d/a.stl": b""},
    "two files name two meshes": {
        "m.xml": f"""<mujoco><asset><mesh file="d/a.stl"/><mesh name="b" file="e/a.stl"/></asset><worldbody>{_BODY}
          <geom type="mesh" mesh="b"/></worldbody></mujoco>""",
        "d/a.stl": b"",
        "e/a.stl": b"other",
    },
    "obj with a material": {"m.xml": _mesh('file="x.obj"'), "x.obj": "mtllib x.mtl\n" + _OBJ},
    "of an include, from the main folder": {
        "m.xml": f'<mujoco><include file="p/i.xml"/><worldbody>{_BODY}</worldbody></mujoco>',
        "p/i.xml": '<mujoco><asset><mesh name="a" file="x.stl"/></asset></mujoco>',
        "x.stl": b"",
        "p/x.stl": b"other",
    },
    "of an include, from its own folder": {
        "m.xml": f'<mujoco><compiler meshdir="d"/><include file="p/i.xml"/><worldbody>{_BODY}</worldbody></mujoco>',
        "p/i.xml": '<mujoco><include file="q/ü j.xml"/></mujoco>',
        "p/q/ü j.xml": '<mujoco><asset><mesh name="a" file="x.stl"/></asset></mujoco>',
        "p/q/x.stl": b"",
    },
    "height field": {
        "m.xml": """<mujoco><compiler meshdir="d" texturedir="t"/><asset><hfield name="h" file="h.bin" size="1 1 1 1"/>
          </asset><worldbody><geom type="hfield" hfield="h"/></worldbody></mujoco>""",
        "d/h.bin": struct.pack("<2i4f", 2, 2, 0.0, 0.1, 0.2, 0.3),
    },
    "height field of an image": {
        "m.xml": """<mujoco><asset><hfield name="h" file="d/h.png" size="1 1 1 1"/></asset>
          <worldbody><geom type="hfield" hfield="h"/></worldbody></mujoco>""",
        "d/h.png": _png(40),
    },
    "texture of six images": {
        "m.xml": f"""<mujoco><compiler texturedir="t"/><asset><texture name="c" type="cube" {_CUBE}/></asset>
          <worldbody/></mujoco>""",
        **{f"t/{side}/a.png": _png(20 * number) for number, side in enumerate(_SIDES)},
    },
    "skin": {
        "m.xml": """<mujoco><compiler meshdir="d"/><asset><skin name="s" file="s.skn"/></asset>
          <worldbody><body name="hip"><freejoint/><geom size=".1"/></body></worldbody></mujoco>""",
        "d/s.skn": _skin(),
    },
    "flexcomp": {
        "m.xml": """<mujoco><compiler meshdir="d"/><worldbody><flexcomp type="mesh" name="f" file="x.obj" dim="2"
          mass="1" rigid="true"/></worldbody></mujoco>""",
        "d/x.obj": _OBJ,
    },
    "attached model": {"m.xml": _attach("s/robot.xml"), "s/robot.xml": _ATTACHED, "s/mäsh/x y.stl": b""},
    "attached URDF": {"m.xml": _attach("s/r.urdf"), "s/r.urdf": _URDF, "s/meshes/x.stl": b""},
}


def write_reference(folder: Path, name: str) -> Path:
    """The main file of one of `REFERENCES`; empty contents stand for a mesh, and "other" for another one."""
    meshes = {b"": _tetrahedron(), b"other": _tetrahedron(3.0)}
    for file, content in REFERENCES[name].items():
        data = content.replace("{folder}", str(folder)).encode() if isinstance(content, str) else content
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(meshes.get(data, data))
    return folder / "m.xml"


@pytest.mark.parametrize("name", REFERENCES)
def test_whatever_mujoco_loads_is_kept(name: str, tmp_path: Path) -> None:
    """`write_robot` compares each number, those of meshes and images among them; the sources are gone afterwards."""
    robot = RobotModel(write_reference(tmp_path / "source", name))
    (tmp_path / "export").mkdir()
    write_robot(robot, tmp_path / "export")
    (tmp_path / "source").rename(tmp_path / "gone")
    written = RobotModel(tmp_path / "export" / "robot.xml")
    for key in ("mesh_vert", "hfield_data", "tex_data", "skin_vert", "flex_vert", "geom_pos", "body_mass"):
        np.testing.assert_array_equal(getattr(written.model, key), getattr(robot.model, key))
    assert written.model.names == robot.model.names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<mujoco><include file="no.xml"/></mujoco>', "asset file no.xml: no such file, as an <include> of m.xml"),
        ('<mujoco><include file="m.xml"/></mujoco>', "asset file m.xml: includes itself"),
        (_mesh('file="no.stl"'), "asset file no.stl: no such file, as <mesh> names it"),
        ("<mujoco>", "m.xml: cannot be read"),
    ],
)
def test_files_that_are_missing_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mjcf(tmp_path / "m.xml")


def test_a_geom_may_be_put_into_an_exported_robot(crawler: Path, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    write_robot(RobotModel(crawler), tmp_path / "export")
    path = tmp_path / "export" / "robot.xml"
    before = RobotModel(path).model
    path.write_text(path.read_text().replace("<worldbody>", '<worldbody><geom size="0.5" pos="9 9 9"/>', 1))
    after = RobotModel(path).model
    names = [[model.geom(i).name for i in range(model.ngeom)] for model in (before, after)]
    assert len(set(names[1])) == len(names[0]) + 1 and set(names[0]) < set(names[1])
