"""A task in the style of IsaacGymEnvs: force sensors, an MJCF, tensors kept from the start; prints what it measured."""

import sys

import isaacgym  # noqa: F401  (before torch, as Isaac Gym demands)
from isaacgym import gymapi, gymtorch
from isaacgym.torch_utils import *  # noqa: F403

import torch  # isort: skip


class VecTask:
    """What the base class of that style does."""

    def __init__(self, num_envs):
        self.gym = gymapi.acquire_gym()
        self.num_envs, self.device = num_envs, "cpu"
        params = gymapi.SimParams()
        params.dt, params.substeps, params.up_axis = 1 / 60, 2, gymapi.UP_AXIS_Z
        params.gravity = gymapi.Vec3(0.0, 0.0, -9.81)
        params.physx.solver_type = 1
        self.sim = self.gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
        self.create_envs()
        self.gym.prepare_sim(self.sim)
        self.reset_buf = torch.ones(num_envs, dtype=torch.long)
        self.progress_buf = torch.zeros(num_envs, dtype=torch.long)

    def step(self, actions):
        self.pre_physics_step(actions.clamp(-1, 1))
        self.gym.simulate(self.sim)
        self.gym.fetch_results(self.sim, True)
        self.post_physics_step()


class Pole(VecTask):
    """A cart under a force, with a pole."""

    def create_envs(self):
        plane = gymapi.PlaneParams()
        plane.normal = gymapi.Vec3(0.0, 0.0, 1.0)
        self.gym.add_ground(self.sim, plane)
        options = gymapi.AssetOptions()
        options.fix_base_link = True
        folder, _, name = sys.argv[1].rpartition("/")
        asset = self.gym.load_asset(self.sim, folder, name, options)
        self.num_dof = self.gym.get_asset_dof_count(asset)
        efforts = [actuator.motor_effort for actuator in self.gym.get_asset_actuator_properties(asset)]
        self.gear = to_torch(efforts, device=self.device)  # noqa: F405
        self.gym.create_asset_force_sensor(asset, 1, gymapi.Transform())
        pose = gymapi.Transform()
        pose.p.z = 2.0
        for number in range(self.num_envs):
            env = self.gym.create_env(self.sim, gymapi.Vec3(-1, -1, 0), gymapi.Vec3(1, 1, 1), 2)
            self.gym.create_actor(env, asset, pose, "pole", number, 1, 0)

    def acquire(self):
        self.dof_state = gymtorch.wrap_tensor(self.gym.acquire_dof_state_tensor(self.sim))
        self.sensors = gymtorch.wrap_tensor(self.gym.acquire_force_sensor_tensor(self.sim))
        self.dof_pos = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 0]
        self.dof_vel = self.dof_state.view(self.num_envs, self.num_dof, 2)[..., 1]

    def reset_idx(self, env_ids):
        self.dof_pos[env_ids] = torch_rand_float(-0.1, 0.1, (len(env_ids), self.num_dof), self.device)  # noqa: F405
        self.dof_vel[env_ids] = 0.0
        ids = env_ids.to(torch.int32)
        self.gym.set_dof_state_tensor_indexed(
            self.sim, gymtorch.unwrap_tensor(self.dof_state), gymtorch.unwrap_tensor(ids), len(ids)
        )
        self.reset_buf[env_ids] = 0
        self.progress_buf[env_ids] = 0

    def pre_physics_step(self, actions):
        forces = torch.zeros(self.num_envs * self.num_dof)
        forces[:: self.num_dof] = actions * self.gear
        self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(forces))

    def post_physics_step(self):
        self.progress_buf += 1
        ids = self.reset_buf.nonzero(as_tuple=False).flatten()
        if len(ids) > 0:
            self.reset_idx(ids)
        self.gym.refresh_dof_state_tensor(self.sim)
        self.gym.refresh_force_sensor_tensor(self.sim)
        self.reset_buf = (self.dof_pos[:, 1].abs() > 1.5).long() | (self.progress_buf > 30).long()


torch.manual_seed(0)
task = Pole(8)
task.acquire()
assert np.Inf > 0  # noqa: F405  (a name that NumPy 2 no longer has)
resets = 0
for _ in range(60):
    task.step(torch.ones(8))
    resets += int(task.reset_buf.sum())
assert torch.isfinite(task.dof_state).all() and not task.sensors.any()
print(f"resets {resets} cart {float(task.dof_pos[:, 0].mean()):.3f}")
