"""A URDF as MJCF: links become bodies, and every number keeps its digits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import replace

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.decisions import Decisions, few
from dualfid_robot.robots.importer.inertia import collapse_fixed, mass_at_root, principal, settle_inertias
from dualfid_robot.robots.importer.meshes import Meshes
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.scene import Drive
from dualfid_robot.robots.importer.urdf import Inertial, Joint, Link, Pose, Shape, Urdf

WORLD = "world"
_MOVING = ("revolute", "continuous", "prismatic")


class Builder:
    """Makes the MJCF of a URDF.

    Attributes:
        root: the MJCF, without actuators and ground.
        drives: the joints that an actuator can move.
        free: whether the base is free.
    """

    def __init__(self, urdf: Urdf, meshes: Meshes, options: ImportOptions, decisions: Decisions) -> None:
        """Make it.

        Raises:
            ConfigError: names a link or joint that MuJoCo cannot have.
        """
        self._meshes, self._options, self._decisions = meshes, options, decisions
        if WORLD in urdf.links and urdf.root != WORLD:
            raise ConfigError("link world: MuJoCo calls its own root so, but this one has a joint above")
        self._urdf = self._settle_base(urdf)
        self._inertials = settle_inertias(self._urdf, self.free, self._of_geometry, options, decisions)
        if options.collapse_fixed:
            self._urdf, self._inertials = collapse_fixed(self._urdf, self._inertials, decisions)
        self.root = ET.Element("mujoco", model=urdf.name)
        ET.SubElement(self.root, "compiler", angle="radian", autolimits="true")
        self.root.extend(urdf.options)
        self._assets: dict[tuple[str, tuple[float, ...]], str] = {}
        self._add_defaults()
        self._asset = ET.SubElement(self.root, "asset")
        self._worldbody = ET.SubElement(self.root, "worldbody")
        self._add_bodies()
        if not len(self._asset):
            self.root.remove(self._asset)
        self.drives = [_drive(joint) for joint in self._ordered() if joint.kind in _MOVING and joint.mimic is None]
        self._add_mimics()

    # --- the base -----------------------------------------------------------------------------------------------------

    def _settle_base(self, urdf: Urdf) -> Urdf:
        """Decide whether the base is free."""
        below = urdf.children(urdf.root)
        mass = mass_at_root(urdf)
        if urdf.root == WORLD:
            self.free = self._options.base == "free" or any(joint.kind == "floating" for joint in below)
            if self._options.base == "free":
                welded = [joint.child for joint in below if joint.kind == "fixed"]
                self._decisions.add("free base, as asked; it was fixed to the link world", few(welded))
            kind = {"fixed": "floating"} if self._options.base == "free" else {}
            kind |= {"floating": "fixed"} if self._options.base == "fixed" else {}
            self.free = self.free and self._options.base != "fixed"
            changed = {joint.child: replace(joint, kind=kind.get(joint.kind, joint.kind), keep=True) for joint in below}
            return replace(urdf, joints=urdf.joints | changed)
        self.free = mass > 0.0 if self._options.base == "auto" else self._options.base == "free"
        weight = f"it has a mass ({mass:.4g} kg); base=fixed welds it to the world" if mass > 0 else "it has no mass"
        reason = weight if self._options.base == "auto" else "as asked"
        self._decisions.add(f"{'free' if self.free else 'fixed'} base: {reason}", f"link {urdf.root}")
        return urdf

    # --- bodies -------------------------------------------------------------------------------------------------------

    def _ordered(self) -> list[Joint]:
        """Joints in the order of the bodies below them: depth first."""
        order: list[Joint] = []
        pending = [*reversed(self._urdf.children(self._urdf.root, self._options.order == "name"))]
        while pending:
            joint = pending.pop()
            order.append(joint)
            pending += reversed(self._urdf.children(joint.child, self._options.order == "name"))
        return order

    def _add_bodies(self) -> None:
        root = self._urdf.links[self._urdf.root]
        elements, poses = {root.name: self._worldbody}, {root.name: Pose()}
        if root.name != WORLD:
            elements[root.name] = self._body(self._worldbody, root, Pose())
            if self.free:
                ET.SubElement(elements[root.name], "freejoint", name="base_free")
        self._fill(elements[root.name], root)
        for joint in self._ordered():
            link = self._urdf.links[joint.child]
            poses[link.name] = poses[joint.parent] @ joint.pose
            floats = joint.kind == "floating"
            parent, pose = (self._worldbody, poses[link.name]) if floats else (elements[joint.parent], joint.pose)
            if floats and joint.parent != WORLD:
                self._decisions.add("floating: a body of its own in the world", f"joint {joint.name}")
            elements[link.name] = self._body(parent, link, pose)
            self._add_joint(elements[link.name], joint)
            self._fill(elements[link.name], link)

    def _body(self, parent: ET.Element, link: Link, pose: Pose) -> ET.Element:
        return ET.SubElement(parent, "body", {"name": link.name, **_placed(pose)})

    def _fill(self, element: ET.Element, link: Link) -> None:
        """Inertial and geoms."""
        if link.name in self._inertials and element is not self._worldbody:
            element.append(_inertial(self._inertials[link.name]))
        friction = [f if f is not None else d for f, d in zip(link.friction, (1.0, 0.005, 0.0001), strict=True)]
        for number, shape in enumerate(link.collisions):
            geom = self._geom(link, shape, "collision", number)
            if geom is None:
                raise ConfigError(f"link {link.name}: mesh {shape.file}: no such file; package_path names more folders")
            if any(part is not None for part in link.friction):
                geom.set("friction", numbers(friction))
            element.append(geom)
        for number, shape in enumerate(link.visuals if self._options.visuals else ()):
            geom = self._geom(link, shape, "visual", number)
            if geom is not None:
                geom.set("rgba", numbers(shape.rgba or (0.5, 0.5, 0.5, 1.0)))
                element.append(geom)

    def _geom(self, link: Link, shape: Shape, role: str, number: int) -> ET.Element | None:
        """A geom. It is None where its mesh is missing, or is only seen and cannot be read."""
        name = f"{link.name}_{role}{number or ''}"
        geom = ET.Element("geom", {"name": name, "class": role, "type": shape.kind, **_placed(shape.pose)})
        if shape.kind != "mesh":
            geom.set("size", numbers(shape.size))
            return geom
        path = self._meshes.find(shape.file)
        if path is None and role == "visual":
            self._decisions.add("<visual> is left out: no such file", shape.file)
        if path is None:
            return None
        try:
            file = self._meshes.read(path)
        except ConfigError as error:
            if role == "collision":
                raise
            self._decisions.add(f"<visual> is left out: {error}")
            return None
        geom.set("mesh", self._mesh(file, shape.size))
        return geom

    def _mesh(self, file: str, scale: tuple[float, ...]) -> str:
        """The name of a mesh asset, one for each file and scale."""
        if (file, scale) not in self._assets:
            name = (
                file.rpartition(".")[0]
                if scale == (1.0, 1.0, 1.0)
                else f"{file.rpartition('.')[0]}_{len(self._assets)}"
            )
            while name in self._assets.values():
                name += "_"
            self._assets[file, scale] = name
            attributes = {"name": name, "file": file, "inertia": "convex"}
            if scale != (1.0, 1.0, 1.0):
                attributes["scale"] = numbers(scale)
            ET.SubElement(self._asset, "mesh", attributes)
        return self._assets[file, scale]

    # --- joints -------------------------------------------------------------------------------------------------------

    def _add_joint(self, body: ET.Element, joint: Joint) -> None:
        common = {"damping": joint.damping, "frictionloss": joint.friction, "armature": self._options.armature}
        shared = {key: numbers([value]) for key, value in common.items() if value}
        if joint.kind == "floating":
            ET.SubElement(body, "freejoint", name=joint.name)
        elif joint.kind == "spherical":
            ET.SubElement(body, "joint", {"name": joint.name, "type": "ball", **shared})
        elif joint.kind == "planar":
            self._decisions.add("planar: two slides and a hinge, _1, _2 and _3", f"joint {joint.name}")
            first = np.cross(joint.axis, np.eye(3)[np.argmin(np.abs(joint.axis))])
            first /= np.linalg.norm(first)
            for number, axis in enumerate((first, np.cross(joint.axis, first), joint.axis), start=1):
                kind = "hinge" if number == 3 else "slide"
                attributes = {"name": f"{joint.name}_{number}", "type": kind, "axis": numbers(axis), **shared}
                ET.SubElement(body, "joint", attributes)
        elif joint.kind in _MOVING:
            kind = "slide" if joint.kind == "prismatic" else "hinge"
            element = ET.SubElement(body, "joint", name=joint.name, type=kind, axis=numbers(joint.axis))
            if joint.range is not None:
                element.set("range", numbers(joint.range))
            if joint.effort is not None:
                element.set("actuatorfrcrange", numbers((-joint.effort, joint.effort)))
            element.attrib.update(shared)

    def _add_mimics(self) -> None:
        kinds = {joint.name: joint.kind for joint in self._urdf.joints.values()}
        equality = ET.SubElement(self.root, "equality")
        for joint in self._ordered():
            mimic = joint.mimic
            if mimic is None:
                continue
            if mimic.joint not in kinds or mimic.joint == joint.name:
                raise ConfigError(
                    f"joint {joint.name}: mimic joint={mimic.joint}: there is no other joint of that name"
                )
            if joint.kind not in _MOVING or kinds[mimic.joint] not in _MOVING:
                self._decisions.add("<mimic> is not used: one of the joints has no position", f"joint {joint.name}")
                continue
            coefficients = numbers((mimic.offset, mimic.multiplier, 0.0, 0.0, 0.0))
            ET.SubElement(equality, "joint", joint1=joint.name, joint2=mimic.joint, polycoef=coefficients)
            law = f"{mimic.multiplier:g} times {mimic.joint} {mimic.offset:+g}"
            self._decisions.add(f"an equality makes it {law}; it gets no actuator", f"joint {joint.name}")
        if not len(equality):
            self.root.remove(equality)

    # --- shapes -------------------------------------------------------------------------------------------------------

    def _add_defaults(self) -> None:
        default = ET.SubElement(self.root, "default")
        seen = self._options.visuals and any(link.visuals for link in self._urdf.links.values())
        collision = {"density": "0", "group": "3" if seen else "0"}
        if not self._options.self_collision:
            collision |= {"contype": "0", "conaffinity": "1"}
        visual = {"density": "0", "group": "2", "contype": "0", "conaffinity": "0"}
        for name, attributes in (("collision", collision), ("visual", visual)):
            ET.SubElement(ET.SubElement(default, "default", {"class": name}), "geom", attributes)

    def _of_geometry(self, link: Link) -> Inertial | None:
        """Mass properties of the collision geometry at 1 kg/m^3, as MuJoCo computes them; of meshes, of their hulls."""
        if not link.collisions:
            return None
        spec = mujoco.MjSpec()
        body = spec.worldbody.add_body()
        for number, shape in enumerate(link.collisions):
            geom = body.add_geom(pos=shape.pose.position, quat=shape.pose.quaternion, density=1.0)
            geom.type = getattr(mujoco.mjtGeom, f"mjGEOM_{shape.kind.upper()}")
            if shape.kind == "mesh":
                path = self._meshes.find(shape.file)
                if path is None:
                    raise ConfigError(
                        f"link {link.name}: mesh {shape.file}: no such file; package_path names more folders"
                    )
                file = self._meshes.read(path)
                spec.assets[f"{number}_{file}"] = self._meshes.contents[file]
                mesh = spec.add_mesh(name=f"{number}", file=f"{number}_{file}", scale=shape.size)
                mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
                geom.meshname = mesh.name
            else:
                geom.size[: len(shape.size)] = shape.size
        try:
            model = spec.compile()
        except ValueError as error:
            self._decisions.add(f"its geometry has no volume ({' '.join(str(error).split())})", f"link {link.name}")
            return None
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, model.body_iquat[1])
        axes = matrix.reshape(3, 3)
        inertia = axes @ np.diag(model.body_inertia[1]) @ axes.T
        return Inertial(float(model.body_mass[1]), Pose(model.body_ipos[1].copy()), inertia)


def _drive(joint: Joint) -> Drive:
    return Drive(joint.name, joint.kind != "prismatic", joint.range, joint.effort, joint.velocity)


def _placed(pose: Pose) -> dict[str, str]:
    """Position and orientation as attributes; what is zero is left out."""
    attributes = {"pos": numbers(pose.position)} if pose.position.any() else {}
    if pose.rotation.magnitude() > 0.0:
        attributes["quat"] = numbers(pose.quaternion)
    return attributes


def _inertial(inertial: Inertial) -> ET.Element:
    """The digits of the URDF are kept where its axes are the link's."""
    attributes = {"pos": numbers(inertial.pose.position), "mass": numbers([inertial.mass])}
    matrix = inertial.inertia
    if inertial.pose.rotation.magnitude() == 0.0:
        parts = (matrix[0, 0], matrix[1, 1], matrix[2, 2], matrix[0, 1], matrix[0, 2], matrix[1, 2])
        attributes["fullinertia"] = numbers(parts)
    else:
        moments, axes = principal(matrix)
        attributes["quat"] = numbers(Pose(rotation=inertial.pose.rotation * axes).quaternion)
        attributes["diaginertia"] = numbers(moments)
    return ET.Element("inertial", attributes)


def numbers(values: Iterable[float]) -> str:
    """Numbers as MJCF writes them, with all their digits."""
    return " ".join(repr(float(value) + 0.0).removesuffix(".0") for value in values)
