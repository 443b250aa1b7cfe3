"""Actors and environments: what was created, and the properties that a task gives them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any

import mujoco
import numpy as np

from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.parameters import AttractorProperties, Mat33, RigidBodyProperties, RigidShapeProperties
from dualfid_robot.isaacgym.session import say_once
from dualfid_robot.isaacgym.transforms import Transform, Vec3


@dataclass
class Actor:
    """An asset in an environment. What is None is still its asset's."""

    asset: Asset
    pose: Transform
    name: str
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


def make_actor(asset: Asset, pose: Transform, name: str, collision_filter: int) -> Actor:
    """An actor with copies of what may change; a filter below 0 leaves the shapes their own."""
    filters = [shape.filter if collision_filter < 0 else collision_filter for shape in asset.shapes]
    friction = np.array([float(shape.friction) for shape in asset.shapes])
    return Actor(asset, copy.deepcopy(pose), name, np.array(filters, np.int64), friction)


def body_properties(actor: Actor) -> list[RigidBodyProperties]:
    """Masses, centres of mass and inertias of an actor's bodies, copies."""
    if actor.bodies is not None:
        return copy.deepcopy(actor.bodies)
    model, found = actor.asset.model, []
    for body in range(1, model.nbody):
        mass = float(model.body_mass[body])
        axes = np.zeros(9)
        mujoco.mju_quat2Mat(axes, model.body_iquat[body])
        inertia = axes.reshape(3, 3) @ np.diag(model.body_inertia[body]) @ axes.reshape(3, 3).T
        rows = Mat33(*(Vec3(*row) for row in inertia))
        inverse = Mat33(*(Vec3(*row) for row in np.linalg.inv(inertia))) if mass > 0 else Mat33()
        found.append(RigidBodyProperties(mass, Vec3(*model.body_ipos[body]), rows, 1 / mass if mass else 0.0, inverse))
    return found


def shape_properties(actor: Actor) -> list[RigidShapeProperties]:
    """Surfaces of an actor's shapes, copies."""
    found = copy.deepcopy(actor.asset.shapes)
    for shape, friction, bits in zip(found, actor.friction, actor.filters, strict=True):
        shape.friction, shape.filter = float(friction), int(bits)
    return found


def check_shapes(shapes: list[RigidShapeProperties]) -> None:
    """Say which of the shapes' properties have no counterpart."""
    default = RigidShapeProperties()
    for part in fields(RigidShapeProperties):
        if part.name in ("friction", "filter"):
            continue
        if any(getattr(shape, part.name) != getattr(default, part.name) for shape in shapes):
            say_once(f"{part.name} of shapes has no counterpart")
