"""What a URDF says, read into plain data. Names and frames are those of http://wiki.ros.org/urdf/XML."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.decisions import Decisions
from dualfid_robot.robots.importer.document import Document

JOINT_TYPES = ("revolute", "continuous", "prismatic", "fixed", "floating", "planar", "spherical")
SHAPES = ("box", "cylinder", "sphere", "capsule", "mesh")
_MOST_LEVELS = 250  # of links below each other: XML parsers end at 500 elements in each other
_COMPILER = ("meshdir", "strippath", "discardvisual", "fusestatic")
_COMPILER_KEPT = ("balanceinertia", "boundmass", "boundinertia", "settotalmass")

NOT_USED = {
    "gazebo": "settings of Gazebo",
    "transmission": "a URDF's effort and velocity are those of the joint, behind the transmission",
    "joint/safety_controller": "bounds that a robot's controller keeps, within the joint's own",
    "joint/calibration": "where the real robot's encoders have their marks",
    "link/visual/material/texture": "colours alone are kept",
    "material/texture": "colours alone are kept",
    "link/collision/material": "what collides has its colour from what is seen",
    "link/collision/verbose": "a remark",
    "link/contact/stiffness": "contacts of MuJoCo are set with solref and solimp",
    "link/contact/damping": "contacts of MuJoCo are set with solref and solimp",
    "link/contact/contact_cfm": "a setting of Bullet",
    "link/contact/contact_erp": "a setting of Bullet",
    "link/contact/inertia_scaling": "a setting of Bullet",
    "link/contact/friction_anchor": "a setting of Bullet",
    "link/contact/restitution": "MuJoCo has no restitution",
    **dict.fromkeys(
        (f"joint/{tag}" for tag in ("axis", "limit", "dynamics", "joint_properties", "mimic")),
        "the joint's type has none",
    ),
}


@dataclass(frozen=True)
class Pose:
    """Position (3,), m, and rotation of a frame in its parent's."""

    position: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotation: Rotation = field(default_factory=Rotation.identity)

    def __matmul__(self, inner: Pose) -> Pose:
        """The frame `inner`, which is given in this one, in this one's parent."""
        return Pose(self.position + self.rotation.apply(inner.position), self.rotation * inner.rotation)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """w, x, y, z."""
        return tuple(np.roll(self.rotation.as_quat(canonical=True), 1).tolist())


@dataclass(frozen=True)
class Inertial:
    """Mass, kg, and pose of the centre of mass in the link.

    The inertia (3, 3), kg m^2, is about that centre, in the pose's axes.
    """

    mass: float
    pose: Pose
    inertia: np.ndarray


@dataclass(frozen=True)
class Shape:
    """A shape of a link.

    Attributes:
        name: of the <visual> or <collision>; may be empty.
        kind: of `SHAPES`.
        size: what MuJoCo's geom of that kind takes (half sizes), m; a mesh's scale.
        file: a mesh's filename as written.
        rgba: colour. It is None where there is none.
    """

    name: str
    kind: str
    size: tuple[float, ...]
    pose: Pose
    file: str = ""
    rgba: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Link:
    """A link. `friction` holds the sliding, spinning and rolling coefficients that a <contact> gives, else None."""

    name: str
    inertial: Inertial | None
    visuals: tuple[Shape, ...]
    collisions: tuple[Shape, ...]
    friction: tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Mimic:
    """A joint that follows another: position = multiplier * the other's + offset."""

    joint: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class Joint:
    """A joint.

    Attributes:
        kind: of `JOINT_TYPES`.
        pose: of the child link in the parent link, at position 0.
        axis: unit vector (3,) in the child link's frame.
        range: lower and upper limit, rad or m; None: none.
        effort, velocity: largest, N m or N and rad/s or m/s; None: not given.
        damping, friction: N m s/rad or N s/m, and N m or N.
        keep: whether its links stay two where fixed joints are collapsed.
    """

    name: str
    kind: str
    parent: str
    child: str
    pose: Pose
    axis: np.ndarray
    range: tuple[float, float] | None = None
    effort: float | None = None
    velocity: float | None = None
    damping: float = 0.0
    friction: float = 0.0
    mimic: Mimic | None = None
    keep: bool = False


@dataclass(frozen=True)
class Urdf:
    """A robot: one tree of links.

    Attributes:
        links: by name; parents first, children in the file's order.
        joints: by the name of the link below.
        root: the link without a joint above.
        transmissions: names of the joints that a <transmission> names.
        compiler: of the extension <mujoco>.
        options: its elements that MuJoCo takes as they are.
    """

    name: str
    links: dict[str, Link]
    joints: dict[str, Joint]
    root: str
    transmissions: frozenset[str]
    compiler: dict[str, str]
    options: tuple[ET.Element, ...]

    def children(self, link: str, by_name: bool = False) -> list[Joint]:
        """Joints below a link, in the order of the file or of the links' names."""
        found = [joint for joint in self.joints.values() if joint.parent == link]
        return sorted(found, key=lambda joint: joint.child) if by_name else found


def read_urdf(path: Path, decisions: Decisions) -> Urdf:
    """Read a URDF; what is not used of it is noted.

    Raises:
        ConfigError: names the element that is missing or wrong.
    """
    document = Document(path)
    root = document.root
    if root.tag != "robot":
        raise ConfigError(f"{path}: <{root.tag}> is not a URDF; its outermost element is <robot>")
    if any(isinstance(part.tag, str) and "xacro" in part.tag for part in root.iter()):
        raise ConfigError(f"{path}: is a xacro; make a URDF of it first: xacro robot.xacro > robot.urdf")
    document.text(root, "name", "")
    document.text(root, "version", "1.0")
    reader = _Reader(document, decisions)
    links = [reader.link(element) for element in document.children(root, "link")]
    joints = [reader.joint(element) for element in document.children(root, "joint")]
    _require_unique(path, "link", [link.name for link in links])
    _require_unique(path, "joint", [joint.name for joint in joints])
    transmissions = {
        name
        for element in root.findall("transmission")
        for part in element.findall("joint")
        if (name := part.get("name"))
    }
    compiler, options = reader.extension()
    document.report_unread(decisions, NOT_USED)
    tree = _tree(path, {link.name: link for link in links}, joints)
    return Urdf(root.get("name") or path.stem, *tree, frozenset(transmissions), compiler, options)


class _Reader:
    """Reads the elements of a document."""

    def __init__(self, document: Document, decisions: Decisions) -> None:
        self.document, self.decisions = document, decisions
        self.colours: dict[str, tuple[float, ...]] = {}
        for material in document.children(document.root, "material"):
            self._colour(material)
        for material in document.root.iterfind("link/visual/material"):  # may be referred to before it is defined
            if material.find("color") is not None:
                self._colour(material)

    def link(self, element: ET.Element) -> Link:
        document = self.document
        name = document.text(element, "name")
        document.text(element, "type", "")
        inertial = document.child(element, "inertial")
        shapes = {
            tag: [self._shape(part, seen=tag == "visual") for part in document.children(element, tag)]
            for tag in ("visual", "collision")
        }
        contact = document.child(element, "contact")
        friction = [
            None if contact is None else self._value(contact, f"{kind}_friction")
            for kind in ("lateral", "spinning", "rolling")
        ]
        return Link(
            name,
            None if inertial is None else self._inertial(inertial),
            tuple(shape for shape in shapes["visual"] if shape),
            tuple(shape for shape in shapes["collision"] if shape),
            (friction[0], friction[1], friction[2]),
        )

    def _value(self, element: ET.Element, tag: str) -> float | None:
        part = self.document.child(element, tag)
        return None if part is None else self.document.number(part, "value")

    def _inertial(self, element: ET.Element) -> Inertial:
        document = self.document
        mass = self._value(element, "mass") or 0.0
        if mass < 0.0:
            raise ConfigError(f"{document.path.name}: {document.place(element)}: mass {mass:g}: at least 0 is expected")
        matrix = np.zeros((3, 3))
        inertia = document.child(element, "inertia")
        if inertia is not None:
            for row, column in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
                key = f"i{'xyz'[row]}{'xyz'[column]}"
                matrix[row, column] = matrix[column, row] = document.number(inertia, key, "0")
        return Inertial(mass, self._origin(element), matrix)

    def _origin(self, element: ET.Element) -> Pose:
        """Roll, pitch and yaw are turns about the fixed axes x, y and z, in this order."""
        origin = self.document.child(element, "origin")
        if origin is None:
            return Pose()
        position = np.array(self.document.numbers(origin, "xyz", 3, "0 0 0"))
        if origin.get("quat_xyzw") is not None:
            quaternion = self.document.numbers(origin, "quat_xyzw", 4)
            if not np.linalg.norm(quaternion) > 1e-6:
                raise ConfigError(f"{self.document.path.name}: {self.document.place(origin)}: quat_xyzw is 0")
            return Pose(position, Rotation.from_quat(quaternion))
        return Pose(position, Rotation.from_euler("xyz", self.document.numbers(origin, "rpy", 3, "0 0 0")))

    def _shape(self, element: ET.Element, seen: bool) -> Shape | None:
        """A shape. It is None where it is only seen and MuJoCo has no such shape."""
        document = self.document
        place = f"{document.path.name}: {document.place(element)}"
        name, pose = document.text(element, "name", ""), self._origin(element)
        material = document.child(element, "material") if seen else None
        rgba = None if material is None else self._colour(material)
        geometry = document.child(element, "geometry")
        tags = [] if geometry is None else [str(child.tag) for child in geometry if child.tag in SHAPES]
        if geometry is None or not tags:
            found = [] if geometry is None else [str(child.tag) for child in geometry]
            if not seen:
                raise ConfigError(f"{place}: <collision> has the shape {found}; allowed are {list(SHAPES)}")
            self.decisions.add(f"<visual> with the shape {found} is left out", document.place(element))
            return None
        kind, shape = tags[0], document.children(geometry, tags[0])[0]
        if kind == "box":
            size = tuple(length / 2 for length in document.numbers(shape, "size", 3))
        elif kind == "sphere":
            size = document.numbers(shape, "radius", 1)
        elif kind == "mesh":
            scale = document.text(shape, "scale", "1 1 1")
            size = document.numbers(shape, "scale", len(scale.split()) if len(scale.split()) == 1 else 3, "1 1 1")
            size = size * 3 if len(size) == 1 else size
        else:
            size = (document.number(shape, "radius"), document.number(shape, "length") / 2)
        wrong = 0.0 in size if kind == "mesh" else min(size) <= 0.0
        if wrong and not seen:
            raise ConfigError(f"{place}: <{kind}> of <collision> has a size that is not positive")
        if wrong:
            self.decisions.add("<visual> without a size is left out", document.place(element))
            return None
        return Shape(name, kind, size, pose, document.text(shape, "filename") if kind == "mesh" else "", rgba)

    def _colour(self, material: ET.Element) -> tuple[float, ...] | None:
        name = self.document.text(material, "name", "")
        colour = self.document.child(material, "color")
        if colour is not None:
            rgba = tuple(min(max(part, 0.0), 1.0) for part in self.document.numbers(colour, "rgba", 4))
            self.colours.setdefault(name, rgba)
            return rgba
        if name and name not in self.colours:
            self.decisions.add("material without a colour: grey", name)
        return self.colours.get(name)

    def joint(self, element: ET.Element) -> Joint:
        document = self.document
        name, kind = document.text(element, "name"), document.text(element, "type")
        place = f"{document.path.name}: joint {name}"
        if kind not in JOINT_TYPES:
            raise ConfigError(f"{place}: type={kind}: allowed are {list(JOINT_TYPES)}")
        ends = []
        for tag in ("parent", "child"):
            end = document.child(element, tag)
            if end is None:
                raise ConfigError(f"{place}: has no <{tag}>")
            ends.append(document.text(end, "link"))
        pose = self._origin(element)
        axis = self._axis(element, place) if kind in ("revolute", "continuous", "prismatic", "planar") else np.zeros(3)
        keep = document.text(element, "dont_collapse", "false").lower() in ("true", "1") and kind == "fixed"
        joint = Joint(name, kind, ends[0], ends[1], pose, axis, keep=keep)
        return joint if kind == "fixed" else self._with_limits(element, self._with_dynamics(element, joint), place)

    def _axis(self, element: ET.Element, place: str) -> np.ndarray:
        part = self.document.child(element, "axis")
        axis = np.array((1.0, 0.0, 0.0) if part is None else self.document.numbers(part, "xyz", 3, "1 0 0"))
        length = np.linalg.norm(axis)
        if not 1e-6 < length < 1e6:
            raise ConfigError(f"{place}: axis {axis.tolist()}: a direction is expected")
        return axis / length

    def _with_dynamics(self, element: ET.Element, joint: Joint) -> Joint:
        """<dynamics>, and <joint_properties> as it was called at first."""
        damping = friction = 0.0
        for tag in ("joint_properties", "dynamics"):
            part = self.document.child(element, tag)
            if part is not None:
                damping = self.document.number(part, "damping", "0")
                friction = self.document.number(part, "friction", "0")
        if min(damping, friction) < 0.0:
            self.decisions.add("negative damping or friction: 0 instead", f"joint {joint.name}")
        joint = replace(joint, damping=max(damping, 0.0), friction=max(friction, 0.0))
        mimic = self.document.child(element, "mimic")
        if mimic is None:
            return joint
        numbers = self.document.number(mimic, "multiplier", "1"), self.document.number(mimic, "offset", "0")
        return replace(joint, mimic=Mimic(self.document.text(mimic, "joint"), *numbers))

    def _with_limits(self, element: ET.Element, joint: Joint, place: str) -> Joint:
        limit = self.document.child(element, "limit")
        bounds: dict[str, float | None] = dict.fromkeys(("lower", "upper", "effort", "velocity"))
        if limit is not None:
            for key in bounds:
                if key in limit.attrib and limit.get(key, "").strip().lower().lstrip("+-") not in ("inf", "infinity"):
                    bounds[key] = self.document.number(limit, key)
                else:
                    self.document.text(limit, key, "")
        effort, velocity = (abs(value) if (value := bounds[key]) else None for key in ("effort", "velocity"))
        joint = replace(joint, effort=effort, velocity=velocity)
        lower, upper = bounds["lower"], bounds["upper"]
        if joint.kind not in ("revolute", "prismatic"):
            if joint.kind == "continuous" and (lower or upper):
                self.decisions.add("limits of a continuous joint are not used", f"joint {joint.name}")
            return joint
        if lower is None and upper is None:
            self.decisions.add(f"{joint.kind} joint without limits: it moves without bounds", f"joint {joint.name}")
            return joint
        lower, upper = (
            0.0 if limit is not None and limit.get(key) is None else bounds[key] for key in ("lower", "upper")
        )
        lower, upper = -math.inf if lower is None else lower, math.inf if upper is None else upper
        if lower > upper:
            self.decisions.add(f"lower {lower:g} above upper {upper:g}: it moves without bounds", f"joint {joint.name}")
            return joint
        if lower == upper:
            self.decisions.add(f"lower and upper are both {lower:g}: it is fixed there", f"joint {joint.name}")
            turn = joint.kind == "revolute"
            moved = Pose(rotation=Rotation.from_rotvec(lower * joint.axis)) if turn else Pose(lower * joint.axis)
            return replace(joint, kind="fixed", pose=joint.pose @ moved, mimic=None)
        if math.isinf(lower) or math.isinf(upper):
            raise ConfigError(f"{place}: limits [{lower:g}, {upper:g}]: two finite numbers are expected, or none")
        return replace(joint, range=(lower, upper))

    def extension(self) -> tuple[dict[str, str], tuple[ET.Element, ...]]:
        """MuJoCo's own extension of URDF: <compiler>, <option> and <size> in <mujoco>."""
        document = self.document
        compiler: dict[str, str] = {}
        options = []
        for element in document.children(document.root, "mujoco"):
            for part in document.children(element, "compiler"):
                for key in (*_COMPILER, *_COMPILER_KEPT):
                    if key in part.attrib:
                        compiler[key] = document.text(part, key)
            options += [document.keep(part) for tag in ("option", "size") for part in element.findall(tag)]
        kept = {key: value for key, value in compiler.items() if key in _COMPILER_KEPT}
        if kept:
            options.append(ET.Element("compiler", kept))
        return compiler, tuple(options)


def _require_unique(path: Path, kind: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path.name}: {kind} {twice[0]}: there are two of that name")


def _tree(path: Path, links: dict[str, Link], joints: list[Joint]) -> tuple[dict[str, Link], dict[str, Joint], str]:
    """Links and joints, parents first, and the root's name."""
    above: dict[str, Joint] = {}
    below: dict[str, list[Joint]] = {name: [] for name in links}
    for joint in joints:
        for end in (joint.parent, joint.child):
            if end not in links:
                raise ConfigError(f"{path.name}: joint {joint.name}: there is no link {end}")
        if joint.child in above:
            raise ConfigError(f"{path.name}: link {joint.child}: two joints lead to it; URDF allows no loop")
        above[joint.child] = joint
        below[joint.parent].append(joint)
    roots = [name for name in links if name not in above]
    if len(roots) != 1:
        raise ConfigError(f"{path.name}: links without a joint above: {roots}; one is expected")
    order, level = {roots[0]: links[roots[0]]}, [roots[0]]
    levels = 1
    while level:
        level = [joint.child for link in level for joint in below[link]]
        order |= {name: links[name] for name in level}
        levels += 1
    if levels > _MOST_LEVELS:
        raise ConfigError(f"{path.name}: {levels} links below each other; allowed are {_MOST_LEVELS}")
    loop = [name for name in links if name not in order]
    if loop:
        raise ConfigError(f"{path.name}: link {loop[0]}: no joints connect it to {roots[0]}")
    return order, {joint.child: joint for joint in joints}, roots[0]
