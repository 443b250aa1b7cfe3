"""A robot as PhysX must be told it, read from the model that MuJoCo compiled.

Every body with joints becomes a link whose frame is the body's own. Bodies without joints are merged into the one that
carries them, and into the world where they cannot move. A body with several joints gets a nearly massless link for each
but the last, as in Isaac Gym's importer. The bodies stay MuJoCo's.

Exact are masses, inertias, frames, armature, joint damping, springs and limits (PhysX's are hard), gravity, contact
filters, and sliding friction. MuJoCo's contact softness (solref, solimp) has no counterpart in PhysX and is not used.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.robots.contacts import touching_pairs
from dualfid_robot.simulators.physx.protocol import Articulation, Joint, Link, Part, Pose, Shape

_JOINT, _GEOM = mujoco.mjtJoint, mujoco.mjtGeom

_SIZES = {"plane": 0, "sphere": 1, "capsule": 2, "box": 3}
_ALONG_X = ("plane", "capsule")
"""Shapes that PhysX has along its x axis and MuJoCo along its z axis."""
_X_TO_Z = np.array([0.5**0.5, 0.0, -(0.5**0.5), 0.0])

_LIGHT = 1e-6
"""Mass and inertia of the links between the joints of one body, relative to the body's: float32's rounding."""

_MOST_EXCLUSIONS = 32  # bits of a filter word


class _Converter:
    """One conversion.

    Attributes:
        pairs: geoms that may touch.
    """

    def __init__(self, model: mujoco.MjModel, asset: str) -> None:
        self.model, self.asset = model, asset
        self.data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, self.data)
        self.floating = model.njnt > 0 and model.jnt_type[0] == _JOINT.mjJNT_FREE
        self.pairs = {(a, b) for a, b in touching_pairs(model).tolist()}

    def refuse(self, kind: str, name: str, problem: str) -> None:
        raise ConfigError(f"{self.asset}: {kind} {name}: {problem} cannot be expressed for engine physx")

    # Contacts --------------------------------------------------------------------------------------------------------

    def _ignored(self) -> list[tuple[int, int]]:
        """Links between which PhysX must ignore contacts, though their geoms' types and masks allow them."""
        model, links = self.model, self.model.body_weldid[self.model.geom_bodyid]
        kept = {tuple(sorted(links[list(pair)].tolist())) for pair in self.pairs}
        shapes = sorted({geom for pair in self.pairs for geom in pair})
        ignored = set()
        for place, a in enumerate(shapes):
            for b in shapes[place + 1 :]:
                types, masks = model.geom_contype[[a, b]], model.geom_conaffinity[[b, a]]
                if links[a] != links[b] and (types & masks).any() and (a, b) not in self.pairs:
                    first, second = sorted((int(links[a]), int(links[b])))
                    ignored.add((first, second))
        for a, b in ignored & kept:
            names = f"{model.body(a).name}, {model.body(b).name}"
            self.refuse("bodies", names, "that only some of their welded parts touch")
        return sorted(ignored)

    def _exclusion_words(self) -> dict[int, int]:
        """One word per link. Two words share a bit where PhysX must ignore a pair of links that MuJoCo ignores.

        PhysX itself ignores links that a joint connects.
        """
        model = self.model
        single = {body for body in range(model.nbody) if model.body_jntnum[body] == 1}
        words, used = dict.fromkeys(model.body_weldid.tolist(), 0), 0
        for a, b in self._ignored():
            connected = model.body_weldid[model.body_parentid[b]] == a and b in single and a != 0
            if not connected:
                if used == _MOST_EXCLUSIONS:
                    self.refuse("body", model.body(b).name, f"more than {used} pairs of bodies without contact")
                words[a] |= 1 << used
                words[b] |= 1 << used
                used += 1
        return words

    def _friction(self) -> np.ndarray:
        """Friction of each geom's material, so that PhysX's mean over a pair is MuJoCo's coefficient of the pair.

        MuJoCo takes the larger of two, or that of the geom of higher priority; as many linear equations as pairs.
        """
        model = self.model
        friction, pairs = model.geom_friction[:, 0].copy(), sorted(self.pairs)
        if not pairs:
            return friction
        matrix, target = np.zeros((len(pairs), model.ngeom)), np.zeros(len(pairs))
        for row, (a, b) in enumerate(pairs):
            first, second = model.geom_priority[a], model.geom_priority[b]
            deciding = [a] if first > second else [b] if second > first else [a, b]
            highest = max(deciding, key=lambda geom: int(model.geom_condim[geom]))
            dimension = model.geom_condim[highest]
            if dimension > 3:
                self.refuse("geom", self._geom_name(highest), f"condim {dimension} (allowed are 1 and 3)")
            matrix[row, [a, b]] = 0.5
            target[row] = max(model.geom_friction[deciding, 0]) if dimension == 3 else 0.0
        # Near the asset's own coefficients, where the equations leave a choice.
        friction += np.linalg.lstsq(matrix, target - matrix @ friction, rcond=None)[0]
        wrong = np.abs(matrix @ friction - target) > 1e-6
        wrong |= (friction[np.array(pairs)] < -1e-9).any(1)
        if wrong.any():
            names = [self._geom_name(geom) for geom in pairs[int(np.argmax(wrong))]]
            self.refuse("geoms", ", ".join(names), "their friction beside that of the other pairs")
        return friction.clip(min=0.0)

    def _geom_name(self, geom: int) -> str:
        return str(self.model.geom(geom).name)

    def shapes(self, friction_factor: float, rest_offset: float, contact_offset: float) -> dict[int, list[Shape]]:
        """The collision shapes of each link, by its topmost body; those of the world under 0."""
        model, data = self.model, self.data
        friction, words = self._friction(), self._exclusion_words()
        found: dict[int, list[Shape]] = {}
        for geom in sorted({geom for pair in self.pairs for geom in pair}):
            body = int(model.body_weldid[model.geom_bodyid[geom]])
            kind = _GEOM(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
            if kind not in _SIZES:
                self.refuse("geom", self._geom_name(geom), f"a {kind} that touches others")
            if kind == "plane" and body:
                self.refuse("geom", self._geom_name(geom), "a plane that moves")
            groups = (int(model.geom_contype[geom]), int(model.geom_conaffinity[geom]), words[body], 0)
            placed = self._pose_in(body, data.geom_xpos[geom], data.geom_xmat[geom])
            found.setdefault(body, []).append(
                Shape(
                    body=int(model.geom_bodyid[geom]),
                    kind=kind,
                    size=tuple(model.geom_size[geom, : _SIZES[kind]].tolist()),
                    pose=_compose(placed, Pose(np.zeros(3), _X_TO_Z)) if kind in _ALONG_X else placed,
                    friction=float(friction[geom]) * friction_factor,
                    rest_offset=float(model.geom_margin[geom]) + rest_offset,  # MuJoCo, too, adds the margins of a pair
                    contact_offset=float(model.geom_margin[geom]) + contact_offset,
                    groups=tuple(word & 0xFFFFFFFF for word in groups),  # type: ignore[arg-type]
                )
            )
        return found

    # Links -----------------------------------------------------------------------------------------------------------

    def _frame(self, body: int) -> tuple[np.ndarray, np.ndarray]:
        """World position and rotation matrix of a body at `qpos0`; the world's own for 0."""
        return self.data.xpos[body], self.data.xmat[body].reshape(3, 3)

    def _pose_in(self, body: int, position: np.ndarray, matrix: np.ndarray) -> Pose:
        """A frame of the world in a body's frame."""
        origin, axes = self._frame(body)
        return Pose(axes.T @ (position - origin), _quaternion(axes.T @ matrix.reshape(3, 3)))

    def _parts(self, link: int) -> tuple[Part, ...]:
        model, (origin, axes) = self.model, self._frame(link)
        parts = []
        for body in np.flatnonzero(model.body_weldid == link).tolist():
            turn = axes.T @ self.data.ximat[body].reshape(3, 3)
            inertia = turn @ np.diag(model.body_inertia[body]) @ turn.T
            centre, turned = axes.T @ (self.data.xipos[body] - origin), axes.T @ self._frame(body)[1]
            parts.append(Part(body - 1, float(model.body_mass[body]), centre, inertia, turned))
        return tuple(parts)

    def _joint(self, joint: int, in_parent: Pose | None) -> Joint:
        """A joint whose link has, at zero, this pose in the link above. None means the same frame."""
        model = self.model
        slide, dof, address = (
            model.jnt_type[joint] == _JOINT.mjJNT_SLIDE,
            model.jnt_dofadr[joint],
            model.jnt_qposadr[joint],
        )
        own = Pose(model.jnt_pos[joint].copy(), _x_axis_to(model.jnt_axis[joint]))
        zero, margin = model.qpos0[address], model.jnt_margin[joint]
        limits = model.jnt_range[joint] - zero + (margin, -margin) if model.jnt_limited[joint] else (-np.inf, np.inf)
        return Joint(
            kind="prismatic" if slide else "revolute_unwrapped",
            in_parent=_compose(in_parent, own) if in_parent else own,
            in_child=own,
            limits=(float(limits[0]), float(limits[1])),
            armature=float(model.dof_armature[dof]),
            damping=float(model.dof_damping[dof]),
            stiffness=float(model.jnt_stiffness[joint]),
            rest=float(model.qpos_spring[address] - zero),
        )

    def links(self, shapes: dict[int, list[Shape]]) -> tuple[Link, ...]:
        """The articulation's links, parents first."""
        model = self.model
        links: list[Link] = []
        numbers: dict[int, int] = {}  # of the link of a topmost body
        if not self.floating:
            numbers[0] = 0
            links.append(Link(0, None, None, (Part(None, 1.0, np.zeros(3), np.eye(3), np.eye(3)),), ()))
        for body in range(1, model.nbody):
            if model.body_weldid[body] != body:
                continue
            parts, own = self._parts(body), tuple(shapes.get(body, ()))
            first = model.body_jntadr[body]
            if model.jnt_type[first] == _JOINT.mjJNT_FREE:
                links.append(Link(body, None, None, parts, own))
            else:
                above = int(model.body_weldid[model.body_parentid[body]])
                parent, pose = numbers[above], self._pose_in(above, self.data.xpos[body], self.data.xmat[body])
                light = tuple(Part(None, _LIGHT * p.mass, p.centre, _LIGHT * p.inertia, p.axes) for p in parts)
                last = first + model.body_jntnum[body] - 1
                for joint in range(first, last + 1):
                    between = joint < last
                    converted = self._joint(joint, pose if joint == first else None)
                    links.append(Link(body, parent, converted, light if between else parts, () if between else own))
                    parent = len(links) - 1
            numbers[body] = len(links) - 1
        return tuple(links)


def make_articulation(
    model: mujoco.MjModel, asset: str, friction: float, rest_offset: float, contact_offset: float
) -> Articulation:
    """Convert a compiled model.

    Args:
        model: the model; its geoms' contact filters say what touches what.
        asset: the file's name, for messages.
        friction: factor on the coefficients of friction.
        rest_offset, contact_offset: of each shape, m; added to the asset's margins.

    Raises:
        ConfigError: names an element of the model that PhysX cannot express.
    """
    converter = _Converter(model, asset)
    Actuators.from_model(model, asset)
    shapes = converter.shapes(friction, rest_offset, contact_offset)
    ground = tuple(shapes.pop(0, ()))
    return Articulation(converter.links(shapes), bool(converter.floating), ground)


def make_contact_table(
    model: mujoco.MjModel, articulation: Articulation, bodies: Sequence[str]
) -> tuple[tuple[int, int], ...]:
    """Link and body of each column of a table of contacts. These bodies come first, then the others on the same links.

    Raises:
        ConfigError: a body that does not move.
    """
    numbers = [int(model.body(body).id) for body in bodies]
    for body, number in zip(bodies, numbers, strict=True):
        if model.body_weldid[number] == 0:
            raise ConfigError(f"contact_bodies={body}: it does not move; engine physx measures only bodies that do")
    last = {link.body: place for place, link in enumerate(articulation.links)}  # the link that has the body's shapes
    wanted = [(last[int(model.body_weldid[number])], number) for number in numbers]
    links = {link for link, _ in wanted}
    others = {(link, shape.body) for link in links for shape in articulation.links[link].shapes} - set(wanted)
    return (*wanted, *sorted(others))


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, matrix.ravel())
    return quaternion


def _x_axis_to(axis: np.ndarray) -> np.ndarray:
    """A rotation that takes the x axis to this one."""
    x = axis / np.linalg.norm(axis)
    z = np.cross(x, np.eye(3)[np.argmin(np.abs(x))])
    z /= np.linalg.norm(z)
    return _quaternion(np.stack([x, np.cross(z, x), z], 1))


def _compose(outer: Pose, inner: Pose) -> Pose:
    position, rotation = np.zeros(3), np.zeros(4)
    mujoco.mju_rotVecQuat(position, inner.position, outer.quaternion)
    mujoco.mju_mulQuat(rotation, outer.quaternion, inner.quaternion)
    return Pose(outer.position + position, rotation)
