"""A task with the interface of legged_gym: its base class's constructor, step, buffers and configuration."""

from collections import deque

import isaacgym  # noqa: F401  (before torch, as Isaac Gym demands)
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import quat_rotate_inverse, torch_rand_float

import numpy as np  # isort: skip
import torch  # isort: skip


class WalkerCfg:
    seed = 1

    class env:
        num_envs = 4096
        num_observations = 18
        num_privileged_obs = 2
        num_actions = 4
        episode_length_s = 1.0

    class control:
        stiffness = 40.0
        damping = 1.0
        action_scale = 0.5
        decimation = 4

    class asset:
        file = ""

    class domain_rand:
        friction_range = [0.5, 1.25]

    class normalization:
        clip_observations = 100.0
        clip_actions = 10.0

    class sim:
        dt = 0.005
        substeps = 1
        gravity = [0.0, 0.0, -9.81]
        up_axis = 1

        class physx:
            solver_type = 1
            num_position_iterations = 4


class Walker:
    """Stand still on four legs that are told where to be."""

    def __init__(self, cfg, sim_params, physics_engine, sim_device, headless):
        self.cfg, self.device = cfg, sim_device
        self.num_envs, self.num_obs = cfg.env.num_envs, cfg.env.num_observations
        self.num_privileged_obs, self.num_actions = cfg.env.num_privileged_obs, cfg.env.num_actions
        self.dt = cfg.control.decimation * sim_params.dt
        self.max_episode_length = np.ceil(cfg.env.episode_length_s / self.dt)
        self.gym = gymapi.acquire_gym()
        self.sim = self.gym.create_sim(0, -1, physics_engine, sim_params)
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
        self.gym.add_ground(self.sim, plane)
        self._create_envs()
        self.gym.prepare_sim(self.sim)
        self._init_buffers()

    def _create_envs(self):
        options = gymapi.AssetOptions()
        options.default_dof_drive_mode = 3
        options.collapse_fixed_joints = options.replace_cylinder_with_capsule = True
        folder, _, name = self.cfg.asset.file.rpartition("/")
        asset = self.gym.load_asset(self.sim, folder, name, options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        shapes = self.gym.get_asset_rigid_shape_properties(asset)
        pose = gymapi.Transform()
        pose.p = gymapi.Vec3(0.0, 0.0, 0.29)
        self.envs = []
        for number in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(), gymapi.Vec3(), int(np.sqrt(self.num_envs)))
            friction = np.random.uniform(*self.cfg.domain_rand.friction_range)
            for shape in shapes:
                shape.friction = friction
            self.gym.set_asset_rigid_shape_properties(asset, shapes)
            self.gym.create_actor(env, asset, pose, "walker", number, 0, 0)
            self.envs.append(env)
        self.base_init_state = torch.tensor([0.0, 0.0, 0.29, 0.0, 0.0, 0.0, 1.0, *[0.0] * 6])

    def _init_buffers(self):
        self.root_states = gymtorch.wrap_tensor(self.gym.acquire_actor_root_state_tensor(self.sim))
        self.dof_state = gymtorch.wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))
        contacts = gymtorch.wrap_tensor(self.gym.acquire_net_contact_force_tensor(self.sim))
        self._refresh()
        self.dof_pos = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 0]
        self.dof_vel = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 1]
        self.contact_forces = contacts.view(self.num_envs, -1, 3)
        self.obs_buf = torch.zeros(self.num_envs, self.num_obs)
        self.privileged_obs_buf = torch.zeros(self.num_envs, self.num_privileged_obs)
        self.rew_buf = torch.zeros(self.num_envs)
        self.reset_buf = torch.ones(self.num_envs, dtype=torch.long)
        self.time_out_buf = torch.zeros(self.num_envs, dtype=torch.bool)
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.commands = torch.zeros(self.num_envs, 1)
        self.last_actions = torch.zeros(self.num_envs, self.num_actions)
        self.episode_sums = {"standing": torch.zeros(self.num_envs)}
        self.gravity_vec = torch.tensor([0.0, 0.0, -1.0]).repeat(self.num_envs, 1)
        self.common_step_counter = 0
        self.extras = {}
        self.history = deque([torch.zeros(self.num_envs, 1)] * 3, maxlen=3)

    def _refresh(self):
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_actor_root_state_tensor(self.sim)
        self.gym.refresh_net_contact_force_tensor(self.sim)

    def reset(self):
        self.reset_idx(torch.arange(self.num_envs))
        return self.step(torch.zeros(self.num_envs, self.num_actions))[:2]

    def step(self, actions):
        clip, control = self.cfg.normalization.clip_actions, self.cfg.control
        self.actions = torch.clip(actions, -clip, clip)
        for _ in range(control.decimation):
            targets = control.action_scale * self.actions + self.commands
            self.torques = torch.clip(
                control.stiffness * (targets - self.dof_pos) - control.damping * self.dof_vel, -30.0, 30.0
            )
            self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(self.torques))
            self.gym.simulate(self.sim)
            self.gym.refresh_dof_state_tensor(self.sim)
        self._refresh()
        self.post_physics_step()
        return self.obs_buf, self.privileged_obs_buf, self.rew_buf, self.reset_buf, self.extras

    def post_physics_step(self):
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.projected_gravity = quat_rotate_inverse(self.root_states[:, 3:7], self.gravity_vec)
        self.time_out_buf = self.episode_length_buf > self.max_episode_length
        self.reset_buf = (self.projected_gravity[:, 2] > -0.5) | self.time_out_buf
        standing = self._reward_standing()
        self.rew_buf[:] = standing - 0.01 * (self.actions - self.last_actions).square().sum(1)
        self.episode_sums["standing"] += standing
        self.reset_idx(self.reset_buf.nonzero().flatten())
        self.compute_observations()
        self.last_actions[:] = self.actions[:]

    def _reward_standing(self):
        return torch.exp(-10.0 * self.dof_pos.square().sum(1))

    def reset_idx(self, env_ids):
        if len(env_ids) == 0:
            return
        ids = gymtorch.unwrap_tensor(env_ids.to(torch.int32))
        self.dof_pos[env_ids] = torch_rand_float(-0.2, 0.2, (len(env_ids), self.num_dof), "cpu")
        self.dof_vel[env_ids] = 0.0
        self.gym.set_dof_state_tensor_indexed(self.sim, gymtorch.unwrap_tensor(self.dof_state), ids, len(env_ids))
        self.root_states[env_ids] = self.base_init_state
        self.gym.set_actor_root_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.root_states), ids, len(env_ids)
        )
        self.commands[env_ids] = torch_rand_float(-0.1, 0.1, (len(env_ids), 1), "cpu")
        self.extras["episode"] = {"standing": self.episode_sums["standing"][env_ids].mean()}
        self.episode_sums["standing"][env_ids] = 0.0
        self.last_actions[env_ids] = 0.0
        self.episode_length_buf[env_ids] = 0
        self.reset_buf[env_ids] = 1

    def compute_observations(self):
        self.history.append(self.root_states[:, 7:8].clone())
        self.privileged_obs_buf = torch.cat([self.history[-1], self.history[0]], 1)
        self.extras["observed"] = self.common_step_counter
        self.obs_buf = torch.cat(
            (
                self.root_states[:, 10:13],
                quat_rotate_inverse(self.root_states[:, 3:7], self.gravity_vec)[:, :2],
                self.commands,
                self.dof_pos,
                self.dof_vel,
                self.actions,
            ),
            dim=-1,
        )
        self.obs_buf += 0.01 * (2 * torch.rand_like(self.obs_buf) - 1)
