"""Damaged robot files: every outcome is a robot or one line."""

from __future__ import annotations

import copy
import os
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer import ImportOptions, import_robot

EXAMPLES = int(os.environ.get("DUALFID_FUZZ", "60"))

URDF = """<robot name="r">
  <material name="grey"><color rgba="0.5 0.5 0.5 1"/></material>
  <mujoco><compiler meshdir="." boundmass="0.001"/><option timestep="0.002"/></mujoco>
  <link name="base"><inertial><origin xyz="0 0 0.1" rpy="0 0.1 0"/><mass value="2"/>
    <inertia ixx="0.1" ixy="0.01" ixz="0" iyy="0.1" iyz="0" izz="0.12"/></inertial>
    <visual><origin xyz="0 0 0"/><geometry><mesh filename="hull.stl" scale="1 1 1"/></geometry>
      <material name="grey"/></visual>
    <collision><geometry><box size="0.2 0.4 0.6"/></geometry></collision>
    <contact><lateral_friction value="0.7"/></contact></link>
  <link name="thigh"><inertial><mass value="1"/><inertia ixx="0.1" iyy="0.1" izz="0.1"/></inertial>
    <collision><geometry><cylinder radius="0.1" length="0.4"/></geometry></collision></link>
  <link name="foot"><collision><origin rpy="1 2 3"/><geometry><mesh filename="package://r/hull.stl"/></geometry></collision></link>
  <link name="finger"><inertial><mass value="0.1"/><inertia ixx="0.1" iyy="0.1" izz="0.1"/></inertial></link>
  <joint name="hip" type="revolute"><parent link="base"/><child link="thigh"/><origin xyz="0 0 -0.3" rpy="0 0 1"/>
    <axis xyz="0 1 0"/><limit lower="-1" upper="2" effort="30" velocity="7"/>
    <dynamics damping="0.1" friction="0.2"/></joint>
  <joint name="ankle" type="fixed"><parent link="thigh"/><child link="foot"/></joint>
  <joint name="slide" type="prismatic"><parent link="thigh"/><child link="finger"/><axis xyz="1 0 0"/>
    <limit lower="0" upper="0.1" effort="3" velocity="1"/><mimic joint="hip" multiplier="0.1" offset="0"/></joint>
  <transmission name="t"><type>simple</type><joint name="hip"/></transmission>
  <gazebo reference="base"><mu1>0.2</mu1></gazebo>
</robot>"""

MJCF = """<mujoco model="m"><compiler angle="radian" meshdir="."/><asset><mesh name="hull" file="hull.stl"/></asset>
  <default><joint damping="0.1"/></default>
  <worldbody><body name="base" pos="0 0 1"><geom type="mesh" mesh="hull"/><geom type="box" size="1 1 1"/>
    <body name="leg"><joint name="hip" axis="0 1 0" range="-1 1" actuatorfrcrange="-3 3"/><geom size="0.1"/>
      <body><joint type="slide"/><geom size="0.1" fromto="0 0 0 0 0 1" type="capsule"/></body></body></body></worldbody>
  <equality><joint joint1="hip"/></equality></mujoco>"""

VALUES = (
    "",
    "0",
    "-1",
    "1e400",
    "nan",
    "inf",
    "1e-300",
    "1e300",
    "0 0 0",
    "1 2",
    "x",
    "base",
    "foot",
    "hip",
    "true",
    "\u00e4 b",
)
TAGS = (
    "link",
    "joint",
    "origin",
    "mesh",
    "box",
    "mimic",
    "inertial",
    "floating",
    "body",
    "geom",
    "freejoint",
    "include",
    "mujoco",
)


def tetrahedron() -> bytes:
    """A binary STL."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)], np.float32)
    faces = [corners[list(face)].tobytes() for face in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))]
    return bytes(80) + struct.pack("<I", 4) + b"".join(bytes(12) + face + bytes(2) for face in faces)


@st.composite
def mutated(draw: st.DrawFn, text: str) -> bytes:
    """A file with up to four changes of its elements and attributes, or with some bytes changed."""
    root = ET.fromstring(text)
    for _ in range(draw(st.integers(1, 4))):
        element = draw(st.sampled_from(list(root.iter())))
        parents = [parent for parent in root.iter() if element in list(parent)]
        what = draw(st.sampled_from(["value", "drop attribute", "drop", "repeat", "rename", "move", "add"]))
        keys = sorted(element.attrib)
        if what == "value" and keys:
            element.set(
                draw(st.sampled_from(keys)), draw(st.sampled_from(VALUES) | st.text("-0123456789.e ", max_size=9))
            )
        elif what == "drop attribute" and keys:
            del element.attrib[draw(st.sampled_from(keys))]
        elif what == "drop" and parents:
            parents[0].remove(element)
        elif what == "repeat" and parents:
            parents[0].append(copy.deepcopy(element))
        elif what == "rename":
            element.tag = draw(st.sampled_from(TAGS))
        elif what == "move" and parents:
            target = draw(st.sampled_from([part for part in root.iter() if part not in list(element.iter())]))
            parents[0].remove(element)
            target.append(element)
        elif what == "add":
            ET.SubElement(
                element, draw(st.sampled_from(TAGS)), {"name": draw(st.sampled_from(VALUES)), "file": "m.xml"}
            )
    data = bytearray(ET.tostring(root))
    for _ in range(draw(st.sampled_from([0, 0, 0, 3]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


OPTIONS = st.builds(
    ImportOptions,
    base=st.sampled_from(["auto", "free", "fixed"]),
    collapse_fixed=st.booleans(),
    actuators=st.sampled_from(["motor", "position", "velocity", "none"]),
    effort=st.sampled_from([0.0, 5.0]),
    order=st.sampled_from(["file", "name"]),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "hull.stl").write_bytes(tetrahedron())
    return folder


def outcome(path: Path, content: bytes, options: ImportOptions) -> None:
    """Import a file; a robot is one that MuJoCo takes, and what is refused is one line that names the file."""
    path.write_bytes(content)
    try:
        robot = import_robot(path, options)
    except ConfigError as error:
        assert "\n" not in str(error) and any(part in str(error) for part in (path.name, "mesh", "asset file"))
        return
    model = robot.compile()
    assert all(
        np.isfinite(values).all() for values in (model.body_mass, model.body_inertia, model.body_pos, model.qpos0)
    )
    assert all(line and "\n" not in line for line in robot.decisions)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(URDF), options=OPTIONS)
def test_a_damaged_urdf(folder: Path, content: bytes, options: ImportOptions) -> None:
    outcome(folder / "r.urdf", content, options)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(MJCF), options=OPTIONS)
def test_a_damaged_mjcf(folder: Path, content: bytes, options: ImportOptions) -> None:
    outcome(folder / "m.xml", content, options)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300), place=st.integers(0, 283))
def test_a_damaged_mesh(folder: Path, content: bytes, place: int) -> None:
    (folder / "hull.stl").write_bytes(tetrahedron()[:place] + content)
    try:
        outcome(folder / "r.urdf", URDF.encode(), ImportOptions())
    finally:
        (folder / "hull.stl").write_bytes(tetrahedron())
