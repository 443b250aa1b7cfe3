"""From a robot's file to an MJCF that can be trained with."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.build import Builder, numbers
from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.importer.imported import ImportedRobot
from dualfid_robot.robots.importer.meshes import Meshes, search_path
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.scene import Drive, add_actuators, add_ground, lowest_point, report_start
from dualfid_robot.robots.importer.urdf import Urdf, read_urdf
from dualfid_robot.robots.mjcf import elements, is_urdf, read_mjcf, unnamed

_DEFAULTS = ImportOptions()
_GROUNDS = (int(mujoco.mjtGeom.mjGEOM_PLANE), int(mujoco.mjtGeom.mjGEOM_HFIELD))


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
    _taken(robot, path)
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
    with contextlib.suppress(ConfigError):
        return _taken(robot, path)
    for asset in robot.mjcf.findall("asset"):
        for mesh in asset.findall("mesh"):
            geoms = [geom for geom in robot.mjcf.iter("geom") if geom.get("mesh") == mesh.get("name")]
            reason = _refusal(mesh, robot)
            if reason and any(geom.get("class") == "collision" for geom in geoms):
                raise ConfigError(f"{path.name}: mesh {mesh.get('file')}: {reason}")
            if reason:
                decisions.add(f"<visual> is left out: {reason}", str(mesh.get("file")))
                asset.remove(mesh)
                for body in [*robot.mjcf.iter("body"), *robot.mjcf.iter("worldbody")]:
                    for geom in [geom for geom in body.findall("geom") if geom in geoms]:
                        body.remove(geom)
    return _taken(robot, path)


def _taken(robot: ImportedRobot, path: Path) -> mujoco.MjModel:
    """Compile a robot; what MuJoCo says against it names the file."""
    try:
        return robot.compile()
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error


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
    return import_urdf(path, options) if is_urdf(path) else import_mjcf(path, options)


def import_mjcf(path: Path, options: ImportOptions = _DEFAULTS) -> ImportedRobot:
    """An MJCF with what it lacks. It gets a free base and a floor where asked, and actuators where it has none.

    Its text stays as it is otherwise; includes are filled in. Settings of a URDF's links do nothing here.

    Raises:
        ConfigError: names the file, and what is wrong or missing in it.
    """
    decisions = Decisions()
    mjcf = read_mjcf(path)
    if mjcf.root.tag != "mujoco":
        raise ConfigError(f"{path}: <{mjcf.root.tag}> is not a robot; <robot> (URDF) or <mujoco> (MJCF) is expected")
    files = {name: mjcf.content(name) for name in mjcf.files}
    robot = ImportedRobot(mjcf.root, files, ())
    model = _taken(robot, path)
    _settle_base(path, mjcf.root, model, options, decisions)
    model = _taken(robot, path)
    report_start(model, decisions)
    has_free_base = model.njnt > 0 and model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    has_ground = any(
        model.geom_type[geom] in _GROUNDS and not model.body_weldid[model.geom_bodyid[geom]]
        for geom in range(model.ngeom)
    )
    if has_ground:
        decisions.add("its ground stays")
    elif options.ground if options.ground != "auto" else has_free_base:
        add_ground(mjcf.root, decisions)
    if model.nu:
        decisions.add(f"its {model.nu} actuators stay")
    else:
        add_actuators(mjcf.root, _drives(mjcf.root, model, decisions), options, decisions)
    robot = ImportedRobot(mjcf.root, files, decisions.lines())
    _taken(robot, path)
    return robot


def _settle_base(
    path: Path, root: ET.Element, model: mujoco.MjModel, options: ImportOptions, decisions: Decisions
) -> None:
    """Give the first body a free joint, or take it away."""
    bodies = elements(root, "body")
    if options.base == "auto" and options.height == "auto":
        return
    if not bodies or model.nbody < 2:
        raise ConfigError(f"base and height: {path} has no body that they could be for")
    base, place = bodies[0], f"body {model.body(1).name or bodies[0].get('name', '')}"
    free = [joint for joint in base if joint.tag == "freejoint" or joint.get("type") == "free"]
    others = [joint for joint in base if joint.tag == "joint" and joint not in free]
    if options.base == "fixed" and free:
        base.remove(free[0])
        decisions.add("fixed base, as asked", place)
    if options.base == "free" and others:
        joint = others[0].get("name", "")
        raise ConfigError(f"base=free: the first body of {path} has the joint {joint}, which holds it")
    if options.base == "free" and not free:
        base.insert(0, ET.Element("freejoint", name="base_free"))
        decisions.add("free base, as asked", place)
    if options.height != "auto":
        x, y, _ = map(float, base.get("pos", "0 0 0").split())
        base.set("pos", numbers((x, y, options.height)))
        decisions.add(f"it begins at a height of {options.height:.4g} m, as asked", place)


def _drives(root: ET.Element, model: mujoco.MjModel, decisions: Decisions) -> list[Drive]:
    """The hinges and slides of an MJCF. Those without a name get one, where the text has as many joints as the model.
    What MuJoCo makes itself does not stand in the text."""
    in_text = elements(root, "joint")
    found = []
    for joint in range(model.njnt):
        turns = model.jnt_type[joint] == int(mujoco.mjtJoint.mjJNT_HINGE)
        if not turns and model.jnt_type[joint] != int(mujoco.mjtJoint.mjJNT_SLIDE):
            continue
        name = model.joint(joint).name
        if not name and len(in_text) == model.njnt:
            name = unnamed("joint", joint, {element.get("name", "") for element in in_text})
            in_text[joint].set("name", name)
        if not name:
            decisions.add("no actuator: it has no name", f"joint {joint}")
            continue
        limits = tuple(model.jnt_range[joint].tolist()) if model.jnt_limited[joint] else None
        effort = float(np.abs(model.jnt_actfrcrange[joint]).max()) if model.jnt_actfrclimited[joint] else None
        found.append(Drive(name, turns, limits, effort, None))
    return found
