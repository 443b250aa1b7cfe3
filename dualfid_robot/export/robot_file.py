"""The robot's MJCF as one file that needs nothing but the images and meshes beside it."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from pathlib import Path

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

ROBOT = "robot.xml"

_DIRECTORIES = ("assetdir", "meshdir", "texturedir")
_KINDS = {"body": ("body",), "joint": ("joint", "freejoint"), "geom": ("geom",)}
"""Tags of what may stand unnamed below a worldbody."""


def write_robot(robot: RobotModel, folder: Path) -> None:
    """Write `robot.xml` and the files that it refers to: the same text with includes filled in, so that every number
    keeps its digits, and with the names that RobotModel gives to what the author left unnamed.

    Raises:
        ConfigError: it would not be the same model.
    """
    root = _read(robot.path)
    _fill_includes(root, robot.path.parent)
    _copy_files(root, robot.path.parent, folder)
    anonymous = ET.tostring(root, encoding="unicode")
    _name(root)
    ET.indent(root)
    (folder / ROBOT).write_text(ET.tostring(root, encoding="unicode") + "\n")
    if _names(mujoco.MjModel.from_xml_path(str(folder / ROBOT))) != _names(robot.model):
        # elements that MuJoCo makes itself, such as those of <replicate>, cannot be named in the text
        (folder / ROBOT).write_text(anonymous + "\n")
    _check_same(robot, RobotModel(folder / ROBOT, robot.feet))


def _read(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except (OSError, ET.ParseError) as error:
        raise ConfigError(f"asset file {path}: cannot be read ({error})") from error


def _fill_includes(element: ET.Element, base: Path) -> None:
    """Put the contents of included files in the place of each <include>; their paths start at the main file's folder,
    as MuJoCo's do."""
    children: list[ET.Element] = []
    for child in list(element):
        if child.tag == "include":
            included = _read(base / child.attrib["file"])
            _fill_includes(included, base)
            children += list(included)
        else:
            _fill_includes(child, base)
            children.append(child)
    element[:] = children


def _copy_files(root: ET.Element, base: Path, folder: Path) -> None:
    """Copy images, meshes and height fields next to the MJCF and let it find them there."""
    compilers = root.findall("compiler")
    settings = {key: value for compiler in compilers for key, value in compiler.attrib.items()}
    for compiler in compilers:
        for key in _DIRECTORIES:
            compiler.attrib.pop(key, None)
    sources: dict[str, Path] = {}
    for element in root.iterfind("asset/*"):
        kind = "texturedir" if element.tag == "texture" else "meshdir"
        directory = settings.get(kind, settings.get("assetdir", ""))
        for key in [key for key in element.attrib if key.startswith("file")]:
            given = Path(element.attrib[key])
            source = base / directory / (given.name if settings.get("strippath") == "true" else given)
            if sources.setdefault(given.name, source) != source:
                raise ConfigError(f"asset file {source}: another file of that name belongs to the same robot")
            element.attrib[key] = given.name
    for name, source in sources.items():
        shutil.copyfile(source, folder / name)


def _name(root: ET.Element) -> None:
    for kind, tags in _KINDS.items():
        elements = _below(root.findall("worldbody"), tags)
        for number, element in enumerate(elements, start=1 if kind == "body" else 0):  # the world is body 0
            element.attrib.setdefault("name", f"unnamed_{kind}_{number}")
    actuators = [element for section in root.findall("actuator") for element in section]
    for number, element in enumerate(actuators):
        element.attrib.setdefault("name", f"unnamed_actuator_{number}")


def _below(parents: Iterable[ET.Element], tags: tuple[str, ...]) -> list[ET.Element]:
    """Elements in the order in which MuJoCo numbers them: those of a body, whose parts `parents` are, before those of
    its children; bodies parents first."""
    children = [child for parent in parents for child in _children(parent)]
    bodies = [child for child in children if child.tag == "body"]
    if tags == ("body",):
        return [item for body in bodies for item in (body, *_below([body], tags))]
    own = [child for child in children if child.tag in tags]
    return own + [item for body in bodies for item in _below([body], tags)]


def _children(parent: ET.Element) -> Iterator[ET.Element]:
    """Children of a body; those of a <frame> are its own."""
    for child in parent:
        if child.tag == "frame":
            yield from _children(child)
        else:
            yield child


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
