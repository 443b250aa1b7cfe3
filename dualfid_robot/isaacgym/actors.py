"""Actors and environments: what was created, and the properties that a task gives them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.parameters import (
    DOF_PROPERTIES,
    AttractorProperties,
    DofDriveMode,
    Mat33,
    RigidBodyProperties,
    RigidShapeProperties,
)
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.transforms import Transform, Vec3


@dataclass
class Actor:
    """An asset in an environment. What is None is still its asset's."""

    asset: Asset
    pose: Transform
    name: str
    group: int
    filters: np.ndarray
    friction: np.ndarray
    dofs: np.ndarray | None = None
    bodies: list[RigidBodyProperties] | None = None

    @property
    def dof_properties(self) -> np.ndarray:
        """(dofs,) of `DOF_PROPERTIES`."""
        return self.asset.dof_properties if self.dofs is None else self.dofs


@dataclass
class Environment:
    """The handle of an environment: its place among the others, where it would stand, its simulation,
    its actors."""

    number: int
    origin: Vec3
    sim: Any
    actors: list[Actor] = field(default_factory=list)
    attractors: list[AttractorProperties] = field(default_factory=list)

    def body_offset(self, actor: int) -> int:
        """How many bodies the actors before one have."""
        return sum(len(other.asset.body_names) for other in self.actors[:actor])

    @property
    def groups(self) -> list[int]:
        """Each actor's collision group: -1, or the first actor of the same group."""
        groups = [actor.group for actor in self.actors]
        return [-1 if group < 0 else groups.index(group) for group in groups]

    def all_alike(self) -> tuple[object, ...]:
        """What must not differ between environments, besides the properties of DOFs."""
        assets = [id(actor.asset) for actor in self.actors]
        filters = [actor.filters.tolist() for actor in self.actors]
        return assets, (self.groups, filters), repr(self.attractors)


def make_actor(asset: Asset, pose: Transform, name: str, group: int, collision_filter: int) -> Actor:
    """An actor with copies of what may change; a filter below 0 leaves the shapes their own."""
    filters = [shape.filter if collision_filter < 0 else collision_filter for shape in asset.shapes]
    friction = np.array([shape.friction for shape in asset.shapes])
    return Actor(asset, copy.deepcopy(pose), name, group, np.array(filters, np.int64), friction)


def body_properties(actor: Actor) -> list[RigidBodyProperties]:
    """Masses, centres of mass and inertias of an actor's bodies, copies."""
    if actor.bodies is not None:
        return copy.deepcopy(actor.bodies)
    return _asset_bodies(actor.asset)


def _asset_bodies(asset: Asset) -> list[RigidBodyProperties]:
    model, found = asset.model, []
    for body in range(1, model.nbody):
        axes = np.zeros(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[body])
        inertia = axes.reshape(3, 3) @ np.diag(model.body_inertia[body]) @ axes.reshape(3, 3).T
        properties = RigidBodyProperties(com=Vec3(*model.body_ipos[body]))
        _set_mass(properties, float(model.body_mass[body]), inertia)
        found.append(properties)
    return found


def _set_mass(body: RigidBodyProperties, mass: float, inertia: np.ndarray) -> None:
    """Give a body a mass and an inertia (3, 3), and their inverses: 0 where it has none."""
    massive = mass > 0 and float(np.linalg.det(inertia)) > 0
    inverse = np.linalg.inv(inertia) if massive else np.zeros((3, 3))
    body.mass, body.invMass = mass, 1 / mass if mass > 0 else 0.0
    body.inertia, body.invInertia = (Mat33(*(Vec3(*row) for row in rows)) for rows in (inertia, inverse))


def _inertias(bodies: list[RigidBodyProperties]) -> np.ndarray:
    """(bodies, 3, 3)."""
    return np.array([[tuple(row) for row in (body.inertia.x, body.inertia.y, body.inertia.z)] for body in bodies])


def _check_positive(what: str, values: np.ndarray) -> None:
    """Raise ConfigError unless all are finite, and none is below 0."""
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ConfigError(f"isaacgym: {what} {values.tolist()}: allowed are finite numbers of at least 0")


def shape_properties(actor: Actor) -> list[RigidShapeProperties]:
    """Surfaces of an actor's shapes, copies."""
    found = copy.deepcopy(actor.asset.shapes)
    for shape, friction, bits in zip(found, actor.friction, actor.filters, strict=True):
        shape.friction, shape.filter = friction, int(bits)
    return found


def check_dofs(actor: Actor, dofs: np.ndarray) -> None:
    """Raise ConfigError unless these are properties that the DOFs of an actor can have."""
    where, expected = f"DOF properties of actor {actor.name}", actor.asset.dof_properties
    if not isinstance(dofs, np.ndarray) or dofs.dtype.names != DOF_PROPERTIES.names or dofs.shape != expected.shape:
        found = (
            f"{dofs.dtype.names or dofs.dtype} {dofs.shape}" if isinstance(dofs, np.ndarray) else type(dofs).__name__
        )
        raise ConfigError(
            f"isaacgym: {where}: {found}; expected is an array ({len(expected)},) as get_actor_dof_properties gives it"
        )
    if not np.isin(dofs["driveMode"], list(DofDriveMode)).all():
        allowed = [mode.value for mode in DofDriveMode]
        raise ConfigError(f"isaacgym: {where}: driveMode={dofs['driveMode'].tolist()}: allowed are {allowed}")
    for name in ("stiffness", "damping", "friction", "armature"):
        _check_positive(f"{where}: {name}", dofs[name])


def checked_bodies(actor: Actor, bodies: list[RigidBodyProperties], recompute: bool) -> list[RigidBodyProperties]:
    """Copies of new properties of an actor's bodies, whose inertias are scaled as their masses.

    Raises:
        ConfigError: too few or too many, or a mass that is none.
        NotProvided: an inertia that is scaled otherwise, or flags.
    """
    where, names = f"bodies of actor {actor.name}", actor.asset.body_names
    if len(bodies) != len(names):
        raise ConfigError(f"isaacgym: {where}: properties of {len(bodies)}; it has {len(names)}")
    masses = np.array([body.mass for body in bodies])
    own = actor.asset.model.body_mass[1:]
    _check_positive(f"{where}: mass", masses)
    if ((masses == 0) != (own == 0)).any():
        raise ConfigError(f"isaacgym: {where}: masses {masses.tolist()}: a body with a mass keeps one")
    factors = np.divide(masses, own, out=np.ones_like(own), where=own > 0)
    if any(body.flags for body in bodies):
        raise not_provided("RigidBodyProperties.flags")

    # An inertia is what it was, or scaled as the mass is.
    given, present = _inertias(bodies), _inertias(body_properties(actor))
    scaled = _inertias(_asset_bodies(actor.asset)) * factors[:, None, None]
    size = np.abs(scaled).max((1, 2), initial=1e-12)
    other = np.minimum(np.abs(given - present).max((1, 2)), np.abs(given - scaled).max((1, 2))) > 1e-4 * size
    if other.any():
        name = names[int(other.argmax())]
        raise not_provided(f"the inertia of {name}", "inertias can only be scaled as the masses are")
    if not recompute and (np.abs(scaled - present).max((1, 2)) > 1e-4 * size).any():
        say_once("inertias of bodies are scaled as their masses, also without recomputeInertia")
    copies = copy.deepcopy(bodies)
    for body, mass, inertia in zip(copies, masses, scaled, strict=True):
        _set_mass(body, mass, inertia)
    return copies


def check_shapes(where: str, shapes: list[RigidShapeProperties], count: int) -> None:
    """Say which of the shapes' properties have no counterpart.

    Raises:
        ConfigError: too few or too many, or a friction that is none.
    """
    if len(shapes) != count:
        raise ConfigError(f"isaacgym: shapes of {where}: properties of {len(shapes)}; it has {count}")
    _check_positive(f"shapes of {where}: friction", np.array([shape.friction for shape in shapes]))
    default = RigidShapeProperties()
    for part in fields(RigidShapeProperties):
        if part.name in ("friction", "filter"):
            continue
        if any(getattr(shape, part.name) != getattr(default, part.name) for shape in shapes):
            say_once(f"{part.name} of shapes has no counterpart")
