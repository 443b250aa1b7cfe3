"""import_robot.py on an MJCF, and as a command."""

from __future__ import annotations

import errno
import shlex
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer import ImportedRobot, ImportOptions, import_robot
from dualfid_robot.robots.model import RobotModel

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PARTS = '<mujoco><worldbody><body name="leg"><joint name="hip" range="-0.123456789012345 1" actuatorfrcrange="-3 3"/>'
PARTS += '<joint type="slide"/><geom size="0.1"/></body></worldbody></mujoco>'
MAIN = """<mujoco model="m"><compiler angle="radian"/><include file="parts/legs.xml"/>
  <asset><texture name="t" type="2d" builtin="flat" width="2" height="2"/></asset></mujoco>"""


def imported(folder: Path, main: str = MAIN, **options: object) -> ImportedRobot:
    (folder / "parts").mkdir()
    (folder / "parts" / "legs.xml").write_text(PARTS)
    (folder / "robot.xml").write_text(main)
    return import_robot(folder / "robot.xml", ImportOptions(**options))  # type: ignore[arg-type]


def test_what_an_mjcf_lacks_is_added_and_its_digits_stay(tmp_path: Path) -> None:
    """A hinge with a limit on its force gets a motor of that force; a slide without one gets what is asked for."""
    robot = imported(tmp_path, effort=20.0, ground=True, height=0.5)
    robot.write(tmp_path / "out" / "m.xml")
    model = RobotModel(tmp_path / "out" / "m.xml").model
    assert model.jnt_range[0, 0] == -0.123456789012345
    np.testing.assert_array_equal(model.actuator_gear[:, 0], (3.0, 20.0))
    assert [model.actuator(i).name for i in range(2)] == ["hip", "unnamed_joint_1"]
    assert model.geom("floor").type == mujoco.mjtGeom.mjGEOM_PLANE and model.body_pos[1, 2] == 0.5


def test_actuators_and_ground_that_are_there_stay(tmp_path: Path) -> None:
    more = '<worldbody><geom type="plane" size="1 1 1"/></worldbody><actuator><motor joint="hip"/></actuator>'
    robot = imported(tmp_path, MAIN.replace("</mujoco>", more + "</mujoco>"), ground=True)
    model = robot.compile()
    assert (model.nu, model.ngeom) == (1, 2)
    assert robot.decisions[-2:] == ("its ground stays", "its 1 actuators stay")


def test_the_base_is_let_go_and_held(tmp_path: Path) -> None:
    text = '<mujoco><worldbody><body name="b" pos="0 0 2"><geom size="0.1"/></body></worldbody></mujoco>'
    (tmp_path / "fixed.xml").write_text(text)
    free = import_robot(tmp_path / "fixed.xml", ImportOptions(base="free"))
    free.write(tmp_path / "free.xml")
    model = free.compile()
    assert model.nv == 6 and model.qpos0[2] == 2.0 and model.ngeom == 2  # with a floor
    held = import_robot(tmp_path / "free.xml", ImportOptions(base="fixed"))
    assert held.compile().nv == 0


def test_a_base_that_a_joint_holds_is_not_let_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"base=free: the first body of .*\.xml has the joint hip"):
        imported(tmp_path, base="free")


def test_a_urdf_as_asset_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    path = tmp_path / "my arm.urdf"
    path.write_text("<robot name='a'><link name='b'/></robot>")
    with pytest.raises(ConfigError, match=r"is a URDF; make an MJCF of it: python import_robot\.py") as refused:
        RobotModel(path)
    assert shlex.split(str(refused.value))[-2:] == [str(path), str(tmp_path / "my arm.xml")]


def test_a_full_disk_leaves_no_half_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robot = ImportedRobot(ET.Element("mujoco"), {"mesh.obj": b"v 0 0 0"}, ())

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match=r"out.xml: cannot be written \(No space left on device\)"):
        robot.write(tmp_path / "out.xml")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["robot.urdf", "a ü=b'[x],{y} $z.urdf"])
def test_the_command_takes_any_file_name(name: str, run_script: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_text("<robot name='r'><link name='b'/></robot>")
    result = run_script("import_robot.py", name, "out/ö \\.xml", "ground=True")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "ö \\.xml").is_file() and "fixed base" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name the robot's file and the one to write"),
        (("no.urdf", "out.xml"), "no.urdf: cannot be read"),
        (("r.urdf", "out.urdf"), "out=out.urdf: a file that ends in .xml is expected"),
        (("r.urdf", "out.xml", "base=loose"), "base=loose: allowed are"),
        (("r.urdf", "out.xml", "joints='['"), "is not a regular expression"),
        (("r.urdf", "r.urdf/out.xml"), "cannot be written"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: tuple[str, ...], message: str, run_script: Run, tmp_path: Path) -> None:
    (tmp_path / "r.urdf").write_text("<robot name='r'><link name='b'/></robot>")
    result = run_script("import_robot.py", *arguments)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert message in result.stderr
