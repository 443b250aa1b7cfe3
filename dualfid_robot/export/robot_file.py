"""The robot's MJCF as one file that needs nothing but the images and meshes beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.runtime import EPISODE, METADATA, OBSERVATION, POLICY, STARTS, SUMS
from dualfid_robot.robots.mjcf import name_all, read_mjcf
from dualfid_robot.robots.model import RobotModel

ROBOT = "robot.xml"

_TAKEN = (ROBOT, POLICY, OBSERVATION, EPISODE, METADATA, STARTS, SUMS, "policy.pt", "policy.hpp")
"""Names of an export's other files."""


def write_robot(robot: RobotModel, folder: Path) -> None:
    """Write `robot.xml` and the files that it refers to. It is the same text with includes filled in, so every number
    keeps its digits. What the author left unnamed has RobotModel's names.

    Raises:
        ConfigError: it would not be the same model.
    """
    mjcf = read_mjcf(robot.path, _TAKEN)
    mjcf.write_files(folder)
    anonymous = ET.tostring(mjcf.root, encoding="unicode")
    name_all(mjcf.root)
    ET.indent(mjcf.root)
    _write(folder, ET.tostring(mjcf.root, encoding="unicode"))
    if _names(mujoco.MjModel.from_xml_path(str(folder / ROBOT))) != _names(robot.model):
        # elements that MuJoCo makes itself, such as those of <replicate>, cannot be named in the text
        _write(folder, anonymous)
    _check_same(robot, RobotModel(folder / ROBOT, robot.feet))


def _write(folder: Path, text: str) -> None:
    (folder / ROBOT).write_text(text + "\n", encoding="utf-8")


def _names(model: mujoco.MjModel) -> bytes:
    names: bytes = model.names
    return names


def _check_same(robot: RobotModel, written: RobotModel) -> None:
    """Raise ConfigError unless two models are equal in every number that a simulation sees."""
    different = [
        key
        for key in dir(robot.model)
        if not key.startswith(("_", "name", "path")) and not key.endswith("pathadr")
        if isinstance(expected := getattr(robot.model, key), np.ndarray) and expected.dtype.kind in "fiub"
        if not np.array_equal(expected, getattr(written.model, key), equal_nan=True)
    ]
    names = ("body_names", "joint_names", "actuator_names")
    different += [key for key in names if getattr(robot, key) != getattr(written, key)]
    if different:
        raise ConfigError(f"{robot.path.name}: its copy {ROBOT} differs in {different[0]}")
