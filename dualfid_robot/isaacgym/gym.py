"""`isaacgym.gymapi.Gym`: every function of the gym that is provided. Others raise an error that names them.

Handles: a simulation is a `Simulation` with its tensors, an environment an `Environment`, an asset an `Asset`. An actor
is its place in its environment, a rigid body its place among all bodies of its environment.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym import assets, ground
from dualfid_robot.isaacgym.actors import (
    Environment,
    body_properties,
    check_shapes,
    make_actor,
    shape_properties,
)
from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.parameters import (
    ActuatorProperties,
    AssetOptions,
    AttractorProperties,
    ForceSensorProperties,
    HeightFieldParams,
    PlaneParams,
    RigidBodyProperties,
    RigidShapeProperties,
    SimParams,
    TriangleMeshParams,
)
from dualfid_robot.isaacgym.session import not_provided, say_once
from dualfid_robot.isaacgym.simulation import Simulation
from dualfid_robot.isaacgym.tensors import Tensors, push
from dualfid_robot.isaacgym.transforms import Transform, Vec3

_LOCAL_SPACE, _DOMAIN_ENV, _DOMAIN_SIM = 2, 0, 1


class Sim(Simulation):
    """The handle of a simulation: what is simulated, and its tensors."""

    def __init__(self, params: SimParams, device: torch.device) -> None:
        super().__init__(params, device)
        self.tensors = Tensors(self)


class Gym:
    """The functions of Isaac Gym."""

    def __getattr__(self, name: str) -> Any:
        raise not_provided(f"gym.{name}")

    # Simulations.

    def create_sim(
        self, compute_device: int = 0, graphics_device: int = 0, type: int = 0, params: SimParams | None = None
    ) -> Sim:
        """A simulation on the engine that the launcher was given.

        Raises:
            ConfigError: tensors on a GPU are asked for on a machine without CUDA.
        """
        params = SimParams() if params is None else params
        if params.use_gpu_pipeline and not torch.cuda.is_available():
            raise ConfigError(
                "use_gpu_pipeline: this machine has no CUDA: run the script with its tensors on the CPU "
                "(--sim_device=cpu --rl_device=cpu, or sim_device=cpu rl_device=cpu pipeline=cpu)"
            )
        device = torch.device(f"cuda:{compute_device}" if params.use_gpu_pipeline else "cpu")
        return Sim(copy.deepcopy(params), device)

    def prepare_sim(self, sim: Sim) -> bool:
        return True

    def destroy_sim(self, sim: Sim) -> None:
        pass

    def simulate(self, sim: Sim) -> None:
        sim.step()

    def fetch_results(self, sim: Sim, wait: bool = True) -> None:
        pass

    def get_sim_params(self, sim: Sim) -> SimParams:
        return copy.deepcopy(sim.params)

    def set_sim_params(self, sim: Sim, params: SimParams) -> None:
        """Only gravity may change once the engine is built."""
        sim.params.gravity = copy.deepcopy(params.gravity)
        sim.properties_changed()

    def get_sim_time(self, sim: Sim) -> float:
        return sim.steps * sim.params.dt

    def get_elapsed_time(self, sim: Sim) -> float:
        return time.monotonic() - sim.started

    def get_frame_count(self, sim: Sim) -> int:
        return sim.steps

    # The ground.

    def add_ground(self, sim: Sim, params: PlaneParams) -> None:
        sim.grounds.append(ground.plane(params))

    def add_heightfield(self, sim: Sim, heightsamples: np.ndarray, params: HeightFieldParams) -> None:
        sim.grounds.append(ground.height_field(heightsamples, params))

    def add_triangle_mesh(
        self, sim: Sim, vertices: np.ndarray, triangles: np.ndarray, params: TriangleMeshParams
    ) -> None:
        sim.grounds.append(ground.mesh(vertices, triangles, params))

    # Assets.

    def load_asset(self, sim: Sim, rootpath: str, filename: str, options: AssetOptions | None = None) -> Asset:
        return assets.load_asset(rootpath, filename, copy.deepcopy(options) if options else AssetOptions())

    def create_box(
        self, sim: Sim, width: float, height: float, depth: float, options: AssetOptions | None = None
    ) -> Asset:
        return assets.box(width, height, depth, options or AssetOptions())

    def create_sphere(self, sim: Sim, radius: float, options: AssetOptions | None = None) -> Asset:
        return assets.sphere(radius, options or AssetOptions())

    def create_capsule(self, sim: Sim, radius: float, length: float, options: AssetOptions | None = None) -> Asset:
        return assets.capsule(radius, length, options or AssetOptions())

    def get_asset_rigid_body_count(self, asset: Asset) -> int:
        return len(asset.body_names)

    def get_asset_rigid_body_names(self, asset: Asset) -> list[str]:
        return list(asset.body_names)

    def get_asset_rigid_body_name(self, asset: Asset, index: int) -> str:
        return asset.body_names[index]

    def find_asset_rigid_body_index(self, asset: Asset, name: str) -> int:
        return _find(asset.body_names, name)

    def get_asset_dof_count(self, asset: Asset) -> int:
        return len(asset.dof_names)

    def get_asset_dof_names(self, asset: Asset) -> list[str]:
        return list(asset.dof_names)

    def get_asset_dof_name(self, asset: Asset, index: int) -> str:
        return asset.dof_names[index]

    def find_asset_dof_index(self, asset: Asset, name: str) -> int:
        return _find(asset.dof_names, name)

    def get_asset_dof_dict(self, asset: Asset) -> dict[str, int]:
        return {name: number for number, name in enumerate(asset.dof_names)}

    def get_asset_rigid_body_dict(self, asset: Asset) -> dict[str, int]:
        return {name: number for number, name in enumerate(asset.body_names)}

    def get_asset_joint_count(self, asset: Asset) -> int:
        """Joints between bodies, those that do not move among them."""
        return len(asset.body_names) - 1

    def get_asset_rigid_shape_count(self, asset: Asset) -> int:
        return len(asset.shapes)

    def get_asset_dof_properties(self, asset: Asset) -> np.ndarray:
        return asset.dof_properties.copy()

    def get_asset_rigid_shape_properties(self, asset: Asset) -> list[RigidShapeProperties]:
        return copy.deepcopy(asset.shapes)

    def set_asset_rigid_shape_properties(self, asset: Asset, properties: list[RigidShapeProperties]) -> bool:
        check_shapes(properties)
        asset.shapes = copy.deepcopy(properties)
        return True

    def get_asset_actuator_count(self, asset: Asset) -> int:
        return len(asset.actuators)

    def get_asset_actuator_properties(self, asset: Asset) -> list[ActuatorProperties]:
        return [copy.deepcopy(properties) for _, properties in asset.actuators]

    def get_asset_actuator_joint_name(self, asset: Asset, index: int) -> str:
        return asset.actuators[index][0]

    def get_asset_tendon_count(self, asset: Asset) -> int:
        return 0

    def create_asset_force_sensor(
        self, asset: Asset, body: int, pose: Transform, properties: ForceSensorProperties | None = None
    ) -> int:
        """A sensor of the contacts' wrench on a body; a joint's reactions are not in it."""
        say_once("force sensors measure contacts alone, not the reactions of joints")
        if properties is not None and properties.use_world_frame:
            raise not_provided("ForceSensorProperties.use_world_frame")
        asset.sensors.append((body, copy.deepcopy(pose)))
        return len(asset.sensors) - 1

    # Environments and actors.

    def create_env(self, sim: Sim, lower: Vec3, upper: Vec3, num_per_row: int) -> Environment:
        """An environment. It is a world of its own; its origin is where it would stand in a grid."""
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
        """An actor. Environments never touch each other, whatever their collision groups."""
        env.actors.append(make_actor(asset, pose, name, filter))
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
        return _find([actor.name for actor in env.actors], name)

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
        return self.get_asset_rigid_body_dict(env.actors[actor].asset)

    def get_actor_rigid_body_handle(self, env: Environment, actor: int, index: int) -> int:
        return env.body_offset(actor) + index

    def find_actor_rigid_body_handle(self, env: Environment, actor: int, name: str) -> int:
        return self.find_actor_rigid_body_index(env, actor, name, _DOMAIN_ENV)

    def find_actor_rigid_body_index(self, env: Environment, actor: int, name: str, domain: int) -> int:
        """-1 where there is none of that name."""
        index = _find(env.actors[actor].asset.body_names, name)
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
        return self.get_asset_dof_dict(env.actors[actor].asset)

    def find_actor_dof_handle(self, env: Environment, actor: int, name: str) -> int:
        return self.find_actor_dof_index(env, actor, name, _DOMAIN_ENV)

    def find_actor_dof_index(self, env: Environment, actor: int, name: str, domain: int) -> int:
        index = _find(env.actors[actor].asset.dof_names, name)
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
            states = env.sim.simulator.body_states()[env.number, body].tolist()
            return _transform(states[:3], states[3:7])
        return initial_transform(env, body)

    # Properties of actors.

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

    # Tensors.

    def acquire_actor_root_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("root")

    def acquire_dof_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("dof")

    def acquire_rigid_body_state_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("body")

    def acquire_net_contact_force_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("contact")

    def acquire_dof_force_tensor(self, sim: Sim) -> Tensor:
        say_once("DOF forces are those of the joints' drives and efforts")
        return sim.tensors.acquire("dof_force")

    def acquire_force_sensor_tensor(self, sim: Sim) -> Tensor:
        return sim.tensors.acquire("sensor")

    def refresh_actor_root_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("root")

    def refresh_dof_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("dof")

    def refresh_rigid_body_state_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("body")

    def refresh_net_contact_force_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("contact")

    def refresh_dof_force_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("dof_force")

    def refresh_force_sensor_tensor(self, sim: Sim) -> bool:
        return sim.tensors.refresh("sensor")

    def set_actor_root_state_tensor(self, sim: Sim, states: Tensor) -> bool:
        return sim.tensors.set_roots(states)

    def set_actor_root_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_roots(states, actors[:count])

    def set_dof_state_tensor(self, sim: Sim, states: Tensor) -> bool:
        return sim.tensors.set_dofs(states)

    def set_dof_state_tensor_indexed(self, sim: Sim, states: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_dofs(states, actors[:count])

    def set_dof_actuation_force_tensor(self, sim: Sim, forces: Tensor) -> bool:
        return sim.tensors.set_targets("efforts", forces)

    def set_dof_actuation_force_tensor_indexed(self, sim: Sim, forces: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("efforts", forces, actors[:count])

    def set_dof_position_target_tensor(self, sim: Sim, targets: Tensor) -> bool:
        return sim.tensors.set_targets("position_targets", targets)

    def set_dof_position_target_tensor_indexed(self, sim: Sim, targets: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("position_targets", targets, actors[:count])

    def set_dof_velocity_target_tensor(self, sim: Sim, targets: Tensor) -> bool:
        return sim.tensors.set_targets("velocity_targets", targets)

    def set_dof_velocity_target_tensor_indexed(self, sim: Sim, targets: Tensor, actors: Tensor, count: int) -> bool:
        return sim.tensors.set_targets("velocity_targets", targets, actors[:count])

    def apply_rigid_body_force_tensors(
        self, sim: Sim, forces: Tensor | None = None, torques: Tensor | None = None, space: int = _DOMAIN_ENV
    ) -> bool:
        """Push bodies at their centres of mass in the next step; their axes are those at its beginning."""
        return push(sim, forces, torques, space == _LOCAL_SPACE)

    # Drawing, of which there is none.

    def create_viewer(self, sim: Sim, properties: Any) -> None:
        say_once("there is no viewer: the script runs as if headless")

    def viewer_camera_look_at(self, viewer: Any, env: Any, position: Vec3, target: Vec3) -> None:
        pass

    def subscribe_viewer_keyboard_event(self, viewer: Any, key: int, action: str) -> None:
        pass

    def subscribe_viewer_mouse_event(self, viewer: Any, button: int, action: str) -> None:
        pass

    def query_viewer_has_closed(self, viewer: Any) -> bool:
        return False

    def query_viewer_action_events(self, viewer: Any) -> list[Any]:
        return []

    def step_graphics(self, sim: Sim) -> None:
        pass

    def draw_viewer(self, viewer: Any, sim: Sim, render_collision: bool = False) -> None:
        pass

    def sync_frame_time(self, sim: Sim) -> None:
        pass

    def poll_viewer_events(self, viewer: Any) -> None:
        pass

    def destroy_viewer(self, viewer: Any) -> None:
        pass

    def clear_lines(self, viewer: Any) -> None:
        pass

    def add_lines(self, viewer: Any, env: Any, count: int, vertices: Any, colors: Any) -> None:
        say_once("debug lines are not drawn")


def initial_transform(env: Environment, body: int) -> Transform:
    """Pose of a body when its actor is at its own pose and its joints are at 0."""
    import mujoco

    slot = max(slot for slot in range(len(env.actors)) if env.body_offset(slot) <= body)
    actor = env.actors[slot]
    data = mujoco.MjData(actor.asset.model)
    mujoco.mj_kinematics(actor.asset.model, data)
    local = _transform(data.xpos[1 + body - env.body_offset(slot)], data.xquat[1 + body - env.body_offset(slot)])
    root = _transform(data.xpos[1], data.xquat[1])
    return actor.pose * root.inverse() * local


def _transform(position: Any, quaternion: Any) -> Transform:
    """From a position and a quaternion (w, x, y, z)."""
    from dualfid_robot.isaacgym.transforms import Quat

    w, x, y, z = quaternion
    return Transform(Vec3(*position), Quat(x, y, z, w))


def _find(names: Any, name: str) -> int:
    """Place of a name, or -1 (INVALID_HANDLE)."""
    return list(names).index(name) if name in names else -1


GYM = Gym()
