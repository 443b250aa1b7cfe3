"""A task in the style of legged_gym: a URDF, torques at every physics step, random friction and masses, terrain."""

import isaacgym  # noqa: F401  (before torch, as Isaac Gym demands)
from isaacgym import gymapi, gymtorch, gymutil, terrain_utils
from isaacgym.torch_utils import get_axis_params, quat_rotate_inverse, to_torch, torch_rand_float

import numpy as np  # isort: skip
import torch  # isort: skip


class LeggedRobot:
    """The walker stands up under a PD controller."""

    decimation = 4

    def __init__(self, args, num_envs, device="cpu"):
        self.gym = gymapi.acquire_gym()
        self.num_envs, self.device = num_envs, device
        params = gymapi.SimParams()
        settings = {
            "dt": 0.005,
            "substeps": 1,
            "gravity": [0.0, 0.0, -9.81],
            "up_axis": 1,
            "physx": {"rest_offset": 0.0},
        }
        gymutil.parse_sim_config(settings, params)
        params.use_gpu_pipeline = args.use_gpu_pipeline
        self.sim = self.gym.create_sim(args.compute_device_id, -1, args.physics_engine, params)
        if args.terrain == "plane":
            plane = gymapi.PlaneParams()
            plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
            self.gym.add_ground(self.sim, plane)
        else:
            self.create_terrain(args.terrain)
        self.create_envs(args.asset)
        self.gym.prepare_sim(self.sim)
        self.init_buffers()

    def create_terrain(self, kind):
        """A flat tile of 8 m, 0.1 m high, around the origin."""
        tile = terrain_utils.SubTerrain(width=80, length=80, vertical_scale=0.005, horizontal_scale=0.1)
        tile.height_field_raw[:] = 20
        if kind == "heightfield":
            params = gymapi.HeightFieldParams()
            params.column_scale = params.row_scale = 0.1
            params.vertical_scale, params.nbRows, params.nbColumns = 0.005, 80, 80
            params.transform.p.x = params.transform.p.y = -4.0
            self.gym.add_heightfield(self.sim, tile.height_field_raw.flatten(order="C"), params)
        else:
            vertices, triangles = terrain_utils.convert_heightfield_to_trimesh(tile.height_field_raw, 0.1, 0.005, 0.75)
            params = gymapi.TriangleMeshParams()
            params.nb_vertices, params.nb_triangles = vertices.shape[0], triangles.shape[0]
            params.transform.p.x = params.transform.p.y = -4.0
            self.gym.add_triangle_mesh(self.sim, vertices.flatten(order="C"), triangles.flatten(order="C"), params)

    def create_envs(self, path):
        options = gymapi.AssetOptions()
        options.default_dof_drive_mode = 3
        options.collapse_fixed_joints = True
        options.replace_cylinder_with_capsule = True
        options.density, options.angular_damping, options.armature = 0.001, 0.0, 0.0
        folder, _, name = path.rpartition("/")
        asset = self.gym.load_asset(self.sim, folder, name, options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        dof_props, shape_props = (
            self.gym.get_asset_dof_properties(asset),
            self.gym.get_asset_rigid_shape_properties(asset),
        )
        self.limits = to_torch([[props["lower"], props["upper"]] for props in dof_props], device=self.device)
        body_names = self.gym.get_asset_rigid_body_names(asset)
        feet = [name for name in body_names if "foot" in name]
        pose = gymapi.Transform()
        self.envs = []
        for number in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(0, 0, 0), gymapi.Vec3(0, 0, 0), 4)
            pose.p = gymapi.Vec3(*torch.tensor([0.0, 0.0, 0.45]))
            for shape in shape_props:
                shape.friction = torch_rand_float(0.5, 1.25, (1, 1), "cpu").squeeze()
            self.gym.set_asset_rigid_shape_properties(asset, shape_props)
            actor = self.gym.create_actor(env, asset, pose, "walker", number, 0, 0)
            self.gym.set_actor_dof_properties(env, actor, dof_props)
            body_props = self.gym.get_actor_rigid_body_properties(env, actor)
            body_props[0].mass += np.random.uniform(-1.0, 1.0)
            self.gym.set_actor_rigid_body_properties(env, actor, body_props, recomputeInertia=True)
            self.envs.append(env)
        handles = [self.gym.find_actor_rigid_body_handle(self.envs[0], 0, name) for name in feet]
        self.feet_indices = torch.tensor(handles)

    def init_buffers(self):
        root = self.gym.acquire_actor_root_state_tensor(self.sim)
        dof = self.gym.acquire_dof_state_tensor(self.sim)
        contact = self.gym.acquire_net_contact_force_tensor(self.sim)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_net_contact_force_tensor(self.sim)
        self.root_states, self.dof_state = gymtorch.wrap_tensor(root), gymtorch.wrap_tensor(dof)
        self.dof_pos = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 0]
        self.dof_vel = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 1]
        self.contact_forces = gymtorch.wrap_tensor(contact).view(self.num_envs, -1, 3)
        self.gravity_vec = to_torch(get_axis_params(-1.0, 2), device=self.device).repeat((self.num_envs, 1))
        self.gravity_vec.requires_grad_(False)

    def step(self, targets):
        for _ in range(self.decimation):
            torques = torch.clip(80.0 * (targets - self.dof_pos) - 2.0 * self.dof_vel, -30.0, 30.0)
            self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(torques))
            self.gym.simulate(self.sim)
            self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_net_contact_force_tensor(self.sim)

    def projected_gravity(self):
        return quat_rotate_inverse(self.root_states[:, 3:7], self.gravity_vec)


parameters = [
    {"name": "--asset", "type": str, "help": "the URDF"},
    {"name": "--terrain", "type": str, "default": "plane", "help": "plane, heightfield or trimesh"},
    {"name": "--rl_device", "type": str, "default": "cuda:0", "help": "of the learner"},
]
args = gymutil.parse_arguments(description="walker", headless=True, custom_parameters=parameters)
torch.manual_seed(0)
np.random.seed(0)
robot = LeggedRobot(args, 6)
for _ in range(60):
    robot.step(torch.zeros(6, robot.num_dof))
height = float(robot.root_states[:, 2].mean())
upright = float(-robot.projected_gravity()[:, 2].min())
load = float(robot.contact_forces[:, robot.feet_indices, 2].sum(1).mean())
print(f"device {args.rl_device} height {height:.3f} upright {upright:.3f} load {load:.1f}")
