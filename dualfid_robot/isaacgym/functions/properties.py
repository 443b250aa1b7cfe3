"""Properties of actors."""

from __future__ import annotations

import copy

import numpy as np

from dualfid_robot.isaacgym.actors import (
    Environment,
    body_properties,
    check_shapes,
    shape_properties,
)
from dualfid_robot.isaacgym.parameters import (
    AttractorProperties,
    RigidBodyProperties,
    RigidShapeProperties,
)
from dualfid_robot.isaacgym.transforms import Vec3


class PropertyFunctions:
    """Functions about what an actor has of its own."""

    def get_actor_dof_properties(self, env: Environment, actor: int) -> np.ndarray:
        return env.actors[actor].dof_properties.copy()

    def set_actor_dof_properties(self, env: Environment, actor: int, properties: np.ndarray) -> bool:
        env.actors[actor].dofs = properties.copy()
        env.sim.properties_changed()
        return True

    def get_actor_rigid_body_properties(self, env: Environment, actor: int) -> list[RigidBodyProperties]:
        return body_properties(env.actors[actor])

    def set_actor_rigid_body_properties(
        self, env: Environment, actor: int, properties: list[RigidBodyProperties], recomputeInertia: bool = False
    ) -> bool:
        """Masses and centres of mass; inertias change with the masses."""
        env.actors[actor].bodies = copy.deepcopy(properties)
        env.sim.properties_changed()
        return True

    def get_actor_rigid_shape_properties(self, env: Environment, actor: int) -> list[RigidShapeProperties]:
        return shape_properties(env.actors[actor])

    def set_actor_rigid_shape_properties(
        self, env: Environment, actor: int, properties: list[RigidShapeProperties]
    ) -> bool:
        """Friction, and filters until the engine is built."""
        check_shapes(properties)
        env.actors[actor].friction = np.array([float(shape.friction) for shape in properties])
        env.actors[actor].filters = np.array([shape.filter for shape in properties], np.int64)
        env.sim.properties_changed()
        return True

    def enable_actor_dof_force_sensors(self, env: Environment, actor: int) -> bool:
        return True

    def create_rigid_body_attractor(self, env: Environment, properties: AttractorProperties) -> int:
        env.attractors.append(copy.deepcopy(properties))
        return len(env.attractors) - 1

    def set_rigid_body_color(self, env: Environment, actor: int, body: int, mesh: int, color: Vec3) -> None:
        pass
