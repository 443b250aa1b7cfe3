"""Properties of actors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dualfid_robot.isaacgym.actors import (
    Environment,
    body_properties,
    check_dofs,
    check_shapes,
    checked_bodies,
    shape_properties,
)
from dualfid_robot.isaacgym.functions.handles import no_tendons
from dualfid_robot.isaacgym.parameters import (
    AttractorProperties,
    RigidBodyProperties,
    RigidShapeProperties,
)
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.transforms import Vec3


class PropertyFunctions:
    """Functions about what an actor has of its own."""

    def get_actor_dof_properties(self, env: Environment, actor: int) -> np.ndarray:
        return env.actors[actor].dof_properties.copy()

    def set_actor_dof_properties(self, env: Environment, actor: int, properties: np.ndarray) -> bool:
        check_dofs(env.actors[actor], properties)
        env.actors[actor].dofs = properties.copy()
        env.sim.properties_changed()
        return True

    def get_actor_rigid_body_properties(self, env: Environment, actor: int) -> list[RigidBodyProperties]:
        return body_properties(env.actors[actor])

    def set_actor_rigid_body_properties(
        self, env: Environment, actor: int, properties: list[RigidBodyProperties], recomputeInertia: bool = False
    ) -> bool:
        """Masses and centres of mass; inertias change with the masses."""
        env.actors[actor].bodies = checked_bodies(env.actors[actor], properties, recomputeInertia)
        env.sim.properties_changed()
        return True

    def get_actor_rigid_shape_properties(self, env: Environment, actor: int) -> list[RigidShapeProperties]:
        return shape_properties(env.actors[actor])

    def set_actor_rigid_shape_properties(
        self, env: Environment, actor: int, properties: list[RigidShapeProperties]
    ) -> bool:
        """Friction, and filters until the engine is built."""
        changed = env.actors[actor]
        check_shapes(f"actor {changed.name}", properties, len(changed.filters))
        filters = np.array([shape.filter for shape in properties], np.int64)
        if env.sim.built and (filters != changed.filters).any():
            raise not_provided("a collision filter that changes after the first step or refresh")
        changed.friction = np.array([shape.friction for shape in properties])
        changed.filters = filters
        env.sim.properties_changed()
        return True

    def get_actor_tendon_properties(self, env: Environment, actor: int) -> list[Any]:
        return no_tendons(env.actors[actor].asset, "gym.get_actor_tendon_properties")

    def set_actor_tendon_properties(self, env: Environment, actor: int, properties: list[Any]) -> bool:
        return no_tendons(env.actors[actor].asset, "gym.set_actor_tendon_properties") == properties

    def enable_actor_dof_force_sensors(self, env: Environment, actor: int) -> bool:
        return True

    def create_rigid_body_attractor(self, env: Environment, properties: AttractorProperties) -> int:
        env.attractors.append(copy.deepcopy(properties))
        return len(env.attractors) - 1

    def set_rigid_body_color(self, env: Environment, actor: int, body: int, mesh: int, color: Vec3) -> None:
        pass
