"""Assets: what `gym.load_asset` and its like read, as a MuJoCo spec of one root body and Isaac Gym's lists.

Bodies and joints are in Isaac Gym's order, which is depth first. Children are sorted by name in a URDF, and keep the
file's order in an MJCF. MuJoCo numbers a compiled spec in the same order.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.parameters import (
    DOF_PROPERTIES,
    UNLIMITED,
    ActuatorProperties,
    AssetOptions,
    DofDriveMode,
    RigidShapeProperties,
)
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.transforms import Transform
from dualfid_robot.isaacgym.urdf import urdf_spec

_ASSET_NUMBERS = itertools.count()
_NOT_READ = (
    "convex_decomposition_from_submeshes",
    "enable_gyroscopic_forces",
    "override_com",
    "override_inertia",
    "tendon_limit_stiffness",
    "use_physx_armature",
    "vhacd_enabled",
)
_JOINTS = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass
class Asset:
    """One articulation or rigid body.

    Attributes:
        spec: its bodies below the world, without the joint that frees its root.
        floating: whether its root moves freely.
        options: those it was loaded with.
        body_names, dof_names: dof_names are those of the joints that move.
        dof_properties: (dofs,) structured array of `DOF_PROPERTIES`.
        shapes: surface of each collision shape, in the bodies' order.
        model: the spec compiled alone, for masses and sizes.
        actuators: of an MJCF: (joint's name, properties).
        sensors: force sensors: (body's index, pose).
    """

    spec: mujoco.MjSpec
    floating: bool
    options: AssetOptions
    body_names: tuple[str, ...]
    dof_names: tuple[str, ...]
    dof_properties: np.ndarray
    shapes: list[RigidShapeProperties]
    model: mujoco.MjModel
    actuators: list[tuple[str, ActuatorProperties]] = field(default_factory=list)
    sensors: list[tuple[int, Transform]] = field(default_factory=list)


def load_asset(root: str, file: str, options: AssetOptions) -> Asset:
    """Read a URDF or an MJCF.

    Raises:
        ConfigError: the file is missing, of another kind, or not valid.
    """
    path = Path(root) / file
    if not path.is_file():
        raise ConfigError(f"asset {path}: no such file")
    if path.suffix == ".urdf":
        spec, dofs = urdf_spec(path, options)
        return _asset(spec, not options.fix_base_link, options, dofs, [])
    if path.suffix == ".xml":
        return _mjcf_asset(path, options)
    raise not_provided(f"load_asset({file})", "allowed are .urdf and .xml")


def box(width: float, height: float, depth: float, options: AssetOptions) -> Asset:
    """A box with its frame in its middle; sizes along x, y and z, m."""
    return _primitive(mujoco.mjtGeom.mjGEOM_BOX, [width / 2, height / 2, depth / 2], options)


def sphere(radius: float, options: AssetOptions) -> Asset:
    """A sphere."""
    return _primitive(mujoco.mjtGeom.mjGEOM_SPHERE, [radius, 0, 0], options)


def capsule(radius: float, length: float, options: AssetOptions) -> Asset:
    """A capsule along x: a cylinder of this length with caps."""
    return _primitive(mujoco.mjtGeom.mjGEOM_CAPSULE, [radius, length / 2, 0], options, (0.5**0.5, 0, 0.5**0.5, 0))


def _primitive(
    kind: mujoco.mjtGeom, size: list[float], options: AssetOptions, quat: tuple[float, ...] = (1, 0, 0, 0)
) -> Asset:
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name="body")
    body.add_geom(type=kind, size=size, quat=quat, density=options.density)
    return _asset(spec, not options.fix_base_link, options, np.zeros(0, DOF_PROPERTIES), [])


def _mjcf_asset(path: Path, options: AssetOptions) -> Asset:
    """An MJCF's first body; its world's geoms, its options and its sensors are not the asset's."""
    try:
        spec = mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise ConfigError(f"asset {path} is not a valid MJCF: {' '.join(str(error).split())}") from error
    _take_options(mujoco.MjSpec(), spec)
    roots = [body for body in spec.worldbody.bodies]
    if len(roots) != 1:
        raise ConfigError(f"asset {path}: its world has {len(roots)} bodies; one is expected")

    # Take away whatever is not the robot's body or drives it.
    leftovers = [*spec.sensors, *spec.keys, *spec.lights, *spec.cameras, *spec.worldbody.geoms]
    for element in (*leftovers, *spec.worldbody.sites):
        spec.delete(element)
    for geom in spec.geoms:
        geom.material = ""
    for element in (*spec.materials, *spec.textures):
        spec.delete(element)

    # The root's free joint is added when an actor is made; what is left are hinges and slides.
    free = [joint for joint in spec.joints if joint.type == mujoco.mjtJoint.mjJNT_FREE]
    for joint in free:
        spec.delete(joint)
    other = [joint.name for joint in spec.joints if joint.type not in _JOINTS]
    if other:
        raise not_provided(f"load_asset({path.name}): joint {other[0]}", "only hinges, slides and a free root are read")
    _name_unnamed(spec)
    # Read the joints and the actuators, which are then taken away too.
    try:
        model = spec.compile()
    except ValueError as error:
        raise ConfigError(f"asset {path} is not a valid MJCF: {' '.join(str(error).split())}") from error
    actuators = [(each.target, _actuator_properties(model, number)) for number, each in enumerate(spec.actuators)]
    for actuator in spec.actuators:
        spec.delete(actuator)
    dofs = np.zeros(len(spec.joints), DOF_PROPERTIES)
    driven = {name for name, _ in actuators}
    for dof, joint in zip(dofs, spec.joints, strict=True):
        row = model.joint(joint.name)
        limited = bool(row.limited[0] if hasattr(row.limited, "__len__") else row.limited)
        dof["hasLimits"] = limited
        dof["lower"], dof["upper"] = row.range if limited else (-UNLIMITED, UNLIMITED)
        mode = DofDriveMode.DOF_MODE_EFFORT if joint.name in driven else options.default_dof_drive_mode
        dof["driveMode"], dof["velocity"], dof["effort"] = mode, UNLIMITED, UNLIMITED
        dof["stiffness"], dof["damping"] = row.stiffness[0], row.damping[0]
        dof["friction"], dof["armature"] = row.frictionloss[0], max(row.armature[0], options.armature)
    return _asset(spec, bool(free) and not options.fix_base_link, options, dofs, actuators)


def _take_options(plain: mujoco.MjSpec, spec: mujoco.MjSpec) -> None:
    """Give a spec the options and sizes of a plain one: MuJoCo warns of each that differs when bodies are attached."""
    for name in ("njmax", "nconmax", "nstack", "memory"):
        setattr(spec, name, getattr(plain, name))
    sections = [(plain.option, spec.option), (plain.visual, spec.visual)]
    while sections:
        source, target = sections.pop()
        for name in (name for name in dir(source) if not name.startswith("_")):
            value = getattr(source, name)
            if isinstance(value, int | float | np.ndarray):
                setattr(target, name, value)
            elif not callable(value):
                sections.append((value, getattr(target, name)))


def _actuator_properties(model: mujoco.MjModel, number: int) -> ActuatorProperties:
    """Of a compiled actuator. Its gains are those of a servo, negative factors of position and velocity."""
    controls, forces = model.actuator_ctrllimited[number], model.actuator_forcelimited[number]
    unlimited = np.array([-UNLIMITED, UNLIMITED])
    lower, upper = (model.actuator_ctrlrange[number] if controls else unlimited).tolist()
    weakest, strongest = (model.actuator_forcerange[number] if forces else unlimited).tolist()
    kp, kv = np.abs(model.actuator_biasprm[number, 1:3]).tolist()
    gear = float(model.actuator_gear[number, 0])
    return ActuatorProperties(bool(controls), bool(forces), kp, kv, lower, upper, weakest, strongest, gear)


def _name_unnamed(spec: mujoco.MjSpec) -> None:
    for kind, elements in (("body", spec.bodies), ("joint", spec.joints)):
        for number, element in enumerate(elements):
            if not element.name:
                element.name = f"{kind}_{number}"


def _asset(
    spec: mujoco.MjSpec,
    floating: bool,
    options: AssetOptions,
    dofs: np.ndarray,
    actuators: list[tuple[str, ActuatorProperties]],
) -> Asset:
    """The asset of a spec, whose joints are left without forces of their own: an actor's drives have them."""
    _simplify(spec, options)
    model = spec.compile()
    _say_what_is_not_read(options)
    return Asset(
        spec,
        floating,
        options,
        tuple(model.body(i).name for i in range(1, model.nbody)),
        tuple(model.joint(i).name for i in range(model.njnt)),
        dofs,
        [RigidShapeProperties(friction=1.0) for _ in range(model.ngeom)],
        model,
        actuators,
    )


def _say_what_is_not_read(options: AssetOptions) -> None:
    """Name the options that the script chose and that change nothing here."""
    if options.angular_damping or options.linear_damping:
        say_once("angular_damping and linear_damping of assets have no counterpart")
    default = AssetOptions()
    if chosen := [name for name in _NOT_READ if getattr(options, name) != getattr(default, name)]:
        say_once(f"options of assets without counterpart: {', '.join(chosen)}")


def _simplify(spec: mujoco.MjSpec, options: AssetOptions) -> None:
    """Give geoms MuJoCo's own contact settings, and joints no springs or dampers."""
    spec.compiler.balanceinertia = True
    geoms = [geom for geom in spec.geoms if geom.contype or geom.conaffinity]
    if seen := [geom for geom in spec.geoms if geom not in geoms]:
        _keep_masses(spec)
        for geom in seen:
            spec.delete(geom)
    for geom in geoms:
        geom.name = ""  # an actor's geoms are found by their number
        geom.condim, geom.margin, geom.gap, geom.priority = 3, 0.0, 0.0, 1
        geom.solref, geom.solimp = [0.02, 1.0], [0.9, 0.95, 0.001, 0.5, 2.0]
    for body in spec.bodies:
        if body.name != "world":
            body.gravcomp = float(options.disable_gravity)
    for joint in spec.joints:
        joint.stiffness, joint.damping, joint.frictionloss = [0.0] * 3, [0.0] * 3, 0.0
    _embed_meshes(spec)


def _keep_masses(spec: mujoco.MjSpec) -> None:
    """State the inertia of every body explicitly.

    Geoms that are only seen have added to it. They can be deleted afterwards.
    """
    model = spec.compile()
    spec.compiler.inertiafromgeom = mujoco.mjtInertiaFromGeom.mjINERTIAFROMGEOM_AUTO
    for body in spec.bodies:
        if body.name != "world":
            row = model.body(body.name)
            body.explicitinertial, body.mass = True, row.mass[0]
            body.ipos, body.iquat, body.inertia = row.ipos, row.iquat, row.inertia


def _embed_meshes(spec: mujoco.MjSpec) -> None:
    """Keep meshes in the spec's memory, under names that no other asset has."""
    folder = Path(spec.modelfiledir) / spec.meshdir
    number = next(_ASSET_NUMBERS)
    contents = {}
    for mesh in spec.meshes:
        if mesh.file:
            content = spec.assets[mesh.file] if mesh.file in spec.assets else (folder / mesh.file).read_bytes()
            mesh.file = f"asset_{number}_{mesh.file.replace('/', '_')}"
            contents[mesh.file] = content
    spec.assets = contents
