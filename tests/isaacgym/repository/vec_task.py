"""A base class with the interface of IsaacGymEnvs', which keeps one simulation for a whole process as that does."""

from isaacgym import gymapi

import torch  # isort: skip

EXISTING_SIM = None


class VecTask:
    def __init__(
        self, config, rl_device, sim_device, graphics_device_id, headless, virtual_screen_capture, force_render
    ):
        env, sim = config["env"], config["sim"]
        self.num_envs, self.num_obs, self.num_actions = env["numEnvs"], env["numObservations"], env["numActions"]
        self.num_states, self.device = env.get("numStates", 0), "cpu"
        self.clip_obs, self.clip_actions = env["clipObservations"], env["clipActions"]
        self.control_freq_inv, self.dt = env["controlFrequencyInv"], sim["dt"]
        self.gym = gymapi.acquire_gym()
        self.sim_params = gymapi.SimParams()
        self.sim_params.dt, self.sim_params.substeps = sim["dt"], sim["substeps"]
        self.sim_params.up_axis, self.sim_params.gravity = gymapi.UP_AXIS_Z, gymapi.Vec3(*sim["gravity"])
        assert not sim["use_gpu_pipeline"]
        self.create_sim()
        self.gym.prepare_sim(self.sim)
        self.obs_buf = torch.zeros(self.num_envs, self.num_obs)
        self.rew_buf = torch.zeros(self.num_envs)
        self.reset_buf = torch.ones(self.num_envs, dtype=torch.long)
        self.progress_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.extras, self.obs_dict = {}, {}

    def create_sim(self):
        global EXISTING_SIM
        if EXISTING_SIM is None:
            EXISTING_SIM = self.gym.create_sim(0, -1, gymapi.SIM_PHYSX, self.sim_params)
        self.sim = EXISTING_SIM

    def step(self, actions):
        self.pre_physics_step(torch.clamp(actions, -self.clip_actions, self.clip_actions))
        for _ in range(self.control_freq_inv):
            self.gym.simulate(self.sim)
        self.post_physics_step()
        time_outs = (self.progress_buf >= self.max_episode_length - 1) & (self.reset_buf != 0)
        self.extras["time_outs"] = time_outs
        self.obs_dict["obs"] = torch.clamp(self.obs_buf, -self.clip_obs, self.clip_obs)
        return self.obs_dict, self.rew_buf, self.reset_buf, self.extras
