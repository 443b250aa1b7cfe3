"""From a robot's file to an MJCF that can be trained with."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import mujoco

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.build import Builder, numbers
from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.importer.imported import ImportedRobot
from dualfid_robot.robots.importer.meshes import Meshes, search_path
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.scene import add_actuators, add_ground, lowest_point, report_start
from dualfid_robot.robots.importer.urdf import Urdf, read_urdf

_DEFAULTS = ImportOptions()


def import_urdf(path: Path, options: ImportOptions = _DEFAULTS) -> ImportedRobot:
    """A URDF as a robot with actuators and, under a free base, a floor.

    Raises:
        ConfigError: names the file, and the element that is wrong or that MuJoCo cannot have.
    """
    decisions = Decisions()
    urdf = read_urdf(path, decisions)
    options = _with_extension(urdf, options)
    meshes = Meshes(
        path.parent.absolute(), urdf.compiler.get("meshdir", ""), search_path(options.package_path), decisions
    )
    try:
        built = Builder(urdf, meshes, options, decisions)
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {str(error).removeprefix(f'{path.name}: ')}") from error
    robot = ImportedRobot(built.root, meshes.contents, ())
    model = _compile(robot, path, decisions)
    report_start(model, decisions)
    if built.free:
        _place(built.root, model, options, decisions)
    add_actuators(built.root, built.drives, options, decisions)
    if options.ground if options.ground != "auto" else built.free:
        add_ground(built.root, decisions)
    used = {geom.get("mesh") for geom in built.root.iter("geom")}
    files = {mesh.get("file") for mesh in built.root.iterfind("asset/mesh") if mesh.get("name") in used}
    robot = ImportedRobot(
        built.root, {name: content for name, content in meshes.contents.items() if name in files}, decisions.lines()
    )
    robot.compile()
    return robot


def _with_extension(urdf: Urdf, options: ImportOptions) -> ImportOptions:
    """The options with what the URDF's own <mujoco><compiler> asks for."""
    if urdf.compiler.get("discardvisual") == "true":
        options = replace(options, visuals=False)
    if urdf.compiler.get("fusestatic") == "true":
        options = replace(options, collapse_fixed=True)
    return options


def _compile(robot: ImportedRobot, path: Path, decisions: Decisions) -> mujoco.MjModel:
    """Compile a robot, if need be without the visuals whose meshes MuJoCo refuses."""
    try:
        return robot.compile()
    except ConfigError as error:
        first = error
    asset = robot.mjcf.find("asset")
    if asset is None:
        raise ConfigError(f"{path.name}: {first}")
    for mesh in asset.findall("mesh"):
        geoms = [geom for geom in robot.mjcf.iter("geom") if geom.get("mesh") == mesh.get("name")]
        reason = _refusal(mesh, robot)
        if reason and any(geom.get("class") == "collision" for geom in geoms):
            raise ConfigError(f"{path.name}: mesh {mesh.get('file')}: {reason}")
        if reason:
            decisions.add(f"<visual> is left out: {reason}", str(mesh.get("file")))
            asset.remove(mesh)
            for body in robot.mjcf.iter("body"):
                for geom in [geom for geom in body.findall("geom") if geom in geoms]:
                    body.remove(geom)
    try:
        return robot.compile()
    except ConfigError:
        raise ConfigError(f"{path.name}: {first}") from None


def _refusal(mesh: ET.Element, robot: ImportedRobot) -> str:
    """What MuJoCo says of a mesh alone; empty: it takes it."""
    root = ET.Element("mujoco")
    ET.SubElement(root, "asset").append(mesh)
    ET.SubElement(ET.SubElement(root, "worldbody"), "geom", type="mesh", mesh=str(mesh.get("name")))
    file = str(mesh.get("file"))
    try:
        ImportedRobot(root, {file: robot.files[file]}, ()).compile()
    except ConfigError as error:
        return str(error)
    return ""


def _place(root: ET.Element, model: mujoco.MjModel, options: ImportOptions, decisions: Decisions) -> None:
    """Set the height of the free bases."""
    for body in root.iterfind("worldbody/body"):
        if body.find("freejoint") is None:
            continue
        x, y, z = map(float, body.get("pos", "0 0 0").split())
        height = options.height if options.height != "auto" else z - lowest_point(model)
        body.set("pos", numbers((x, y, height)))
        how = "as asked" if options.height != "auto" else "its lowest point touches z = 0 when all joints are at 0"
        decisions.add(f"it begins at a height of {height:.4g} m: {how}", f"link {body.get('name')}")


def import_robot(path: Path, options: ImportOptions = _DEFAULTS) -> ImportedRobot:
    """Import a URDF or an MJCF, by what the file holds; raises as `import_urdf` does."""
    try:
        start = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    return import_mjcf(path, options) if b"<mujoco" in start and b"<robot" not in start else import_urdf(path, options)


def import_mjcf(path: Path, options: ImportOptions = _DEFAULTS) -> ImportedRobot:
    raise NotImplementedError
