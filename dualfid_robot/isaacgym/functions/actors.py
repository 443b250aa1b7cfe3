"""Environments and their actors."""

from __future__ import annotations

from typing import Any

import mujoco

from dualfid_robot.isaacgym.actors import (
    Environment,
    make_actor,
)
from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.functions.handles import Sim, check_unbuilt, find
from dualfid_robot.isaacgym.transforms import Quat, Transform, Vec3

_DOMAIN_ENV, _DOMAIN_SIM = 0, 1


class ActorFunctions:
    """Functions about environments and actors. A body is its place among all of its environment."""

    def create_env(self, sim: Sim, lower: Vec3, upper: Vec3, num_per_row: int) -> Environment:
        """An environment. It is a world of its own; its origin is where it would stand in a grid."""
        check_unbuilt(sim, "create_env")
        number = len(sim.environments)
        row, column = divmod(number, max(num_per_row, 1))
        size = upper - lower
        origin = Vec3(column * size.x, row * size.y, 0.0)
        environment = Environment(number, origin, sim)
        sim.environments.append(environment)
        return environment

    def get_env(self, sim: Sim, index: int) -> Environment:
        return sim.environments[index]

    def get_env_count(self, sim: Sim) -> int:
        return sim.num_envs

    def get_env_origin(self, env: Environment) -> Vec3:
        return env.origin

    def create_actor(
        self,
        env: Environment,
        asset: Asset,
        pose: Transform,
        name: str = "",
        group: int = -1,
        filter: int = -1,
        segmentationId: int = 0,
    ) -> int:
        """An actor. Two of an environment touch if their filters allow it and their groups: equal, or one is -1."""
        check_unbuilt(env.sim, "create_actor")
        env.actors.append(make_actor(asset, pose, name, group, filter))
        return len(env.actors) - 1

    def begin_aggregate(self, env: Environment, max_bodies: int, max_shapes: int, self_collisions: bool) -> bool:
        return True

    def end_aggregate(self, env: Environment) -> bool:
        return True

    def get_actor_count(self, env: Environment) -> int:
        return len(env.actors)

    def get_actor_handle(self, env: Environment, index: int) -> int:
        return index

    def find_actor_handle(self, env: Environment, name: str) -> int:
        return find([actor.name for actor in env.actors], name)

    def get_actor_name(self, env: Environment, actor: int) -> str:
        return env.actors[actor].name

    def get_actor_asset(self, env: Environment, actor: int) -> Asset:
        return env.actors[actor].asset

    def get_actor_index(self, env: Environment, actor: int, domain: int) -> int:
        if domain == _DOMAIN_SIM:
            return env.number * len(env.actors) + actor
        return actor

    def find_actor_index(self, env: Environment, name: str, domain: int) -> int:
        return self.get_actor_index(env, self.find_actor_handle(env, name), domain)

    def get_sim_actor_count(self, sim: Sim) -> int:
        return sum(len(env.actors) for env in sim.environments)

    def get_sim_dof_count(self, sim: Sim) -> int:
        return sum(len(actor.asset.dof_names) for env in sim.environments for actor in env.actors)

    def get_sim_rigid_body_count(self, sim: Sim) -> int:
        return sum(len(actor.asset.body_names) for env in sim.environments for actor in env.actors)

    def get_env_rigid_body_count(self, env: Environment) -> int:
        return env.body_offset(len(env.actors))

    def get_env_dof_count(self, env: Environment) -> int:
        return sum(len(actor.asset.dof_names) for actor in env.actors)

    def get_actor_rigid_body_count(self, env: Environment, actor: int) -> int:
        return len(env.actors[actor].asset.body_names)

    def get_actor_rigid_body_names(self, env: Environment, actor: int) -> list[str]:
        return list(env.actors[actor].asset.body_names)

    def get_actor_rigid_body_dict(self, env: Environment, actor: int) -> dict[str, int]:
        return {name: number for number, name in enumerate(env.actors[actor].asset.body_names)}

    def get_actor_rigid_body_handle(self, env: Environment, actor: int, index: int) -> int:
        return env.body_offset(actor) + index

    def find_actor_rigid_body_handle(self, env: Environment, actor: int, name: str) -> int:
        return self.find_actor_rigid_body_index(env, actor, name, _DOMAIN_ENV)

    def find_actor_rigid_body_index(self, env: Environment, actor: int, name: str, domain: int) -> int:
        """-1 where there is none of that name."""
        index = find(env.actors[actor].asset.body_names, name)
        if index < 0 or domain not in (_DOMAIN_ENV, _DOMAIN_SIM):
            return index
        before = env.body_offset(actor) + (domain == _DOMAIN_SIM) * env.number * self.get_env_rigid_body_count(env)
        return before + index

    def get_actor_rigid_body_index(self, env: Environment, actor: int, index: int, domain: int) -> int:
        return self.find_actor_rigid_body_index(env, actor, env.actors[actor].asset.body_names[index], domain)

    def get_actor_dof_count(self, env: Environment, actor: int) -> int:
        return len(env.actors[actor].asset.dof_names)

    def get_actor_dof_names(self, env: Environment, actor: int) -> list[str]:
        return list(env.actors[actor].asset.dof_names)

    def get_actor_dof_dict(self, env: Environment, actor: int) -> dict[str, int]:
        return {name: number for number, name in enumerate(env.actors[actor].asset.dof_names)}

    def find_actor_dof_handle(self, env: Environment, actor: int, name: str) -> int:
        return self.find_actor_dof_index(env, actor, name, _DOMAIN_ENV)

    def find_actor_dof_index(self, env: Environment, actor: int, name: str, domain: int) -> int:
        index = find(env.actors[actor].asset.dof_names, name)
        if index < 0 or domain not in (_DOMAIN_ENV, _DOMAIN_SIM):
            return index
        before = sum(len(other.asset.dof_names) for other in env.actors[:actor])
        return before + index + (domain == _DOMAIN_SIM) * env.number * self.get_env_dof_count(env)

    def get_actor_joint_dict(self, env: Environment, actor: int) -> dict[str, int]:
        return self.get_actor_dof_dict(env, actor)

    def get_actor_rigid_shape_count(self, env: Environment, actor: int) -> int:
        return len(env.actors[actor].asset.shapes)

    def get_rigid_transform(self, env: Environment, body: int) -> Transform:
        """Pose of a body in its environment: now, or before the first step at joint positions of 0."""
        if env.sim.built:
            states = env.sim.body_states()[env.number, body].tolist()
            return _transform(states[:3], states[3:7])
        return initial_transform(env, body)


def initial_transform(env: Environment, body: int) -> Transform:
    """Pose of a body when its actor is at its own pose and its joints are at 0."""
    slot = max(slot for slot in range(len(env.actors)) if env.body_offset(slot) <= body)
    actor = env.actors[slot]
    data = mujoco.MjData(actor.asset.model)
    mujoco.mj_kinematics(actor.asset.model, data)
    local = _transform(data.xpos[1 + body - env.body_offset(slot)], data.xquat[1 + body - env.body_offset(slot)])
    root = _transform(data.xpos[1], data.xquat[1])
    return actor.pose * root.inverse() * local


def _transform(position: Any, quaternion: Any) -> Transform:
    """A transform from a position and a quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return Transform(Vec3(*position), Quat(x, y, z, w))
