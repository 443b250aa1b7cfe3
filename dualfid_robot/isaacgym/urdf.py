"""A URDF as a MuJoCo spec in Isaac Gym's order, with the properties of its joints."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.parameters import DOF_PROPERTIES, UNLIMITED, AssetOptions
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.importer.inertia import collapse_fixed, principal, settle_inertias
from dualfid_robot.robots.importer.meshes import Meshes, search_path
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.urdf import Inertial, Joint, Link, Pose, Shape, Urdf, read_urdf

_GEOMS = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "mesh": mujoco.mjtGeom.mjGEOM_MESH,
}
_TYPES = {
    "revolute": mujoco.mjtJoint.mjJNT_HINGE,
    "continuous": mujoco.mjtJoint.mjJNT_HINGE,
    "prismatic": mujoco.mjtJoint.mjJNT_SLIDE,
}


def urdf_spec(path: Path, options: AssetOptions) -> tuple[mujoco.MjSpec, np.ndarray]:
    """Read a URDF.

    Returns:
        Its bodies without a joint at the root, and its joints' properties (dofs,). Both are in Isaac Gym's order.

    Raises:
        ConfigError: names the file and what is wrong in it.
    """
    # Links with their masses, those at fixed joints merged where that is asked for.
    decisions = Decisions()
    urdf = read_urdf(path, decisions)
    meshes = Meshes(path.parent, urdf.compiler.get("meshdir", ""), search_path(()), decisions)
    importing = ImportOptions(density=options.density)
    inertials = settle_inertias(
        urdf, not options.fix_base_link, lambda link: _of_geometry(link, meshes, options), importing, decisions
    )
    if options.collapse_fixed_joints:
        urdf, inertials = collapse_fixed(urdf, inertials, decisions)

    # Bodies depth first, children by the names of their joints.
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    dofs: list[np.ndarray] = []

    def add(link: Link, parent: mujoco.MjsBody, joint: Joint | None) -> None:
        body = parent.add_body(name=link.name)
        if joint is not None:
            body.pos, body.quat = joint.pose.position, joint.pose.quaternion
            if joint.kind != "fixed":
                _add_joint(body, joint, path)
                dofs.append(_dof_properties(joint, options))
        if link.name in inertials:
            _set_inertial(body, inertials[link.name])
        for shape in link.collisions:
            _add_shape(spec, body, shape, meshes, options)
        for child in sorted(urdf.children(link.name), key=lambda joint: joint.name):
            add(urdf.links[child.child], body, child)

    add(urdf.links[urdf.root], spec.worldbody, None)
    spec.assets = dict(meshes.contents)
    return spec, np.array(dofs, DOF_PROPERTIES) if dofs else np.zeros(0, DOF_PROPERTIES)


def _add_joint(body: mujoco.MjsBody, joint: Joint, path: Path) -> None:
    if joint.kind not in _TYPES:
        raise not_provided(f"load_asset({path.name}): joint {joint.name}", f"type {joint.kind} is not read")
    limits = joint.range
    body.add_joint(
        name=joint.name,
        type=_TYPES[joint.kind],
        axis=joint.axis,
        limited=mujoco.mjtLimited.mjLIMITED_FALSE if limits is None else mujoco.mjtLimited.mjLIMITED_TRUE,
        range=(0.0, 0.0) if limits is None else limits,
    )


def _dof_properties(joint: Joint, options: AssetOptions) -> np.ndarray:
    limits = joint.range
    effort, velocity = (UNLIMITED if value is None else value for value in (joint.effort, joint.velocity))
    lower, upper = (-UNLIMITED, UNLIMITED) if limits is None else limits
    values = (limits is not None, lower, upper, options.default_dof_drive_mode, velocity, effort)
    return np.array((*values, 0.0, joint.damping, joint.friction, options.armature), DOF_PROPERTIES)


def _set_inertial(body: mujoco.MjsBody, inertial: Inertial) -> None:
    moments, axes = principal(inertial.inertia)
    body.explicitinertial = True
    body.mass, body.ipos, body.inertia = inertial.mass, inertial.pose.position, moments
    body.iquat = Pose(rotation=inertial.pose.rotation * axes).quaternion


def _add_shape(
    spec: mujoco.MjSpec, body: mujoco.MjsBody, shape: Shape, meshes: Meshes, options: AssetOptions
) -> mujoco.MjsGeom:
    """A collision shape; a mesh collides as its convex hull."""
    kind = "capsule" if shape.kind == "cylinder" and options.replace_cylinder_with_capsule else shape.kind
    geom = body.add_geom(type=_GEOMS[kind], pos=shape.pose.position, quat=shape.pose.quaternion)
    if kind != "mesh":
        geom.size = [*shape.size, *[0.0] * (3 - len(shape.size))]
        return geom
    file = meshes.find(shape.file)
    if file is None:
        raise ConfigError(f"mesh {shape.file} of a collision shape of {body.name}: no such file near {meshes.base}")
    name = f"mesh_{len(spec.meshes)}"
    spec.add_mesh(
        name=name, file=meshes.read(file), scale=shape.size, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    )
    geom.meshname = name
    return geom


def _of_geometry(link: Link, meshes: Meshes, options: AssetOptions) -> Inertial | None:
    """Mass properties of a link's collision shapes at 1 kg/m³. They are None where it has none."""
    if not link.collisions:
        return None
    spec = mujoco.MjSpec()
    body = spec.worldbody.add_body(name=link.name)
    for shape in link.collisions:
        _add_shape(spec, body, shape, meshes, options).density = 1.0
    spec.assets = dict(meshes.contents)
    model = spec.compile()
    x, y, z, w = np.roll(model.body_iquat[1], -1)
    pose = Pose(model.body_ipos[1].copy(), Rotation.from_quat([x, y, z, w]))
    return Inertial(float(model.body_mass[1]), pose, np.diag(model.body_inertia[1]))


__all__ = ["Urdf", "urdf_spec"]
