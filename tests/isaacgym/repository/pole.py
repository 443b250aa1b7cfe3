"""A task in the style of IsaacGymEnvs: a cart that is pushed, and a pole that must not fall."""

import isaacgym  # noqa: F401  (before torch, as Isaac Gym demands)
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import *  # noqa: F403
from vec_task import VecTask


class Pole(VecTask):
    def __init__(self, cfg, rl_device, sim_device, graphics_device_id, headless, virtual_screen_capture, force_render):
        self.cfg = cfg
        self.max_episode_length = cfg["env"]["episodeLength"]
        cfg["env"]["numObservations"], cfg["env"]["numActions"] = 4, 1
        super().__init__(cfg, rl_device, sim_device, graphics_device_id, headless, virtual_screen_capture, force_render)
        self.dof_state = gymtorch.wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))
        self.dof_pos = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 0]
        self.dof_vel = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 1]

    def create_sim(self):
        super().create_sim()
        options = gymapi.AssetOptions()
        options.fix_base_link = True
        folder, _, name = self.cfg["env"]["asset"].rpartition("/")
        asset = self.gym.load_asset(self.sim, folder, name, options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        pose = gymapi.Transform()
        pose.p.z = 2.0
        for number in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(), gymapi.Vec3(), 4)
            self.gym.create_actor(env, asset, pose, "pole", number, 1, 0)

    def reset_idx(self, env_ids):
        self.dof_pos[env_ids] = torch_rand_float(-0.1, 0.1, (len(env_ids), self.num_dof), "cpu")  # noqa: F405
        self.dof_vel[env_ids] = 0.0
        ids = gymtorch.unwrap_tensor(env_ids.to(torch.int32))  # noqa: F405
        self.gym.set_dof_state_tensor_indexed(self.sim, gymtorch.unwrap_tensor(self.dof_state), ids, len(env_ids))
        self.reset_buf[env_ids] = 0
        self.progress_buf[env_ids] = 0

    def pre_physics_step(self, actions):
        forces = torch.zeros(self.num_envs, self.num_dof)  # noqa: F405
        forces[:, 0] = self.cfg["env"]["maxEffort"] * actions[:, 0]
        self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(forces))

    def post_physics_step(self):
        self.progress_buf += 1
        env_ids = self.reset_buf.nonzero(as_tuple=False).squeeze(-1)
        if len(env_ids) > 0:
            self.reset_idx(env_ids)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.obs_buf[:, 0::2], self.obs_buf[:, 1::2] = self.dof_pos, self.dof_vel
        angle = self.dof_pos[:, 1]
        self.rew_buf[:] = 1.0 - angle**2 - 0.01 * self.dof_vel[:, 0].abs()
        fallen = angle.abs() > 0.7
        self.reset_buf = (fallen | (self.progress_buf >= self.max_episode_length - 1)).long()
