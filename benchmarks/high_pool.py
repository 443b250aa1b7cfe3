"""What a whole environment step costs beyond the bare engine, and beside EnvPool.

    python benchmarks/high_pool.py

1. Our Ant in full MuJoCo with 4096 worlds. The pool's step has observation, reward, ends and resets. It is compared
   with `Batch.step` of MuJoCo on a twin batch, under the same actions. Target: pool ≥ 0.9 of bare stepping.
2. Gymnasium's Ant-v4 (its own MJCF, RK4, 5 frames of 0.01 s) with 4096 environments. Our pool, with its observation,
   reward and ends, is compared with EnvPool's. Target: ≥ 1.1×. Needs the extra `benchmark`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco.batch
import numpy as np
import torch
from timing import measure_in_turn, rounds_argument
from torch import Tensor

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.simulators.registry import make_simulator

WORLDS = 4096
DT = 1 / 60


class GymnasiumAnt(Task):
    """Observation (27), reward and ends of Gymnasium's Ant-v4 without contact forces."""

    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float) -> None:
        super().__init__(config, robot, control_dt, "cpu")
        self.terms = (Term("position", 13), Term("velocity", 14))
        self.action_mapping = ActionMapping("torque")
        self.initial = torch.from_numpy(robot.model.qpos0).float()

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        qpos = self.initial + uniform(n, 15, 0.1, generator)
        qpos[:, 3:7] /= qpos[:, 3:7].norm(dim=1, keepdim=True)
        return qpos, 0.1 * torch.randn(n, 14, generator=generator)

    def observe(self, state: State) -> dict[str, Tensor]:
        return {"position": state.qpos[:, 2:], "velocity": state.qvel}

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return (state.qpos[:, 2] < 0.2) | (state.qpos[:, 2] > 1.0)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        forward = (state.qpos[:, 0] - previous_qpos[:, 0]) / self.control_dt
        return {"forward": forward, "alive": (~terminated).float(), "action": -0.5 * state.action.square().sum(1)}


def random_actions() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(WORLDS, 8, generator=generator) * 2 - 1 for _ in range(8)]


def pool_against_bare_engine(rounds: int) -> None:
    robot = RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
    task = make_task("Ant", {"numEnvs": WORLDS, "episodeLength": 1000}, robot, DT)
    simulator = make_simulator({"engine": "mujoco"}, robot, WORLDS, DT, task.contact_bodies)
    assert isinstance(simulator, MujocoSimulator)
    pool = EnvironmentPool(simulator, task, seed=0)
    bare = mujoco.batch.Batch(simulator.model, WORLDS)
    state, ctrl = {name: bare.bind(name) for name in ("qpos", "qvel", "qacc_warmstart")}, bare.bind("ctrl")
    actions = random_actions()
    for action in actions * 4:  # away from the synchronous start
        pool.step(action)
    turn = 0

    def step_pool() -> None:
        pool.step(actions[turn % len(actions)])

    def step_bare() -> None:
        nonlocal turn
        ctrl[:] = actions[turn % len(actions)].numpy()
        bare.step(nstep=8)
        turn += 1

    def same_states() -> None:
        snapshot = simulator.snapshot()
        for name, view in state.items():
            view[:] = snapshot[name]

    same_states()
    medians = measure_in_turn({"copy": same_states, "pool": step_pool, "bare": step_bare}, rounds)
    ratio = medians["bare"] / medians["pool"]
    print(f"Ant, {WORLDS} worlds, 8 substeps of 1/480 s, elliptic cones, implicitfast")
    print(f"  bare engine  {medians['bare'] / WORLDS * 1e6:7.2f} µs per env step")
    print(f"  pool         {medians['pool'] / WORLDS * 1e6:7.2f} µs per env step")
    print(f"  pool / bare throughput: {ratio:.3f} (target 0.9)")


def pool_against_envpool(rounds: int) -> None:
    import envpool
    import gymnasium.envs.mujoco as gymnasium_mujoco

    asset = Path(gymnasium_mujoco.__file__).parent / "assets" / "ant.xml"
    robot = RobotModel(asset)
    config = MujocoSimulator.Config(substeps=5, integrator="RK4", cone="pyramidal")
    simulator = MujocoSimulator(config, robot, WORLDS, control_dt=0.05)
    pool = EnvironmentPool(simulator, GymnasiumAnt(TaskConfig(WORLDS, 1000, clipObservations=1e9), robot, 0.05), seed=0)
    other = envpool.make_gymnasium("Ant-v4", num_envs=WORLDS, num_threads=torch.get_num_threads(), seed=0)
    other.reset()
    actions = random_actions()
    arrays = [action.numpy().astype(np.float64) for action in actions]
    turn = 0

    def step_pool() -> None:
        pool.step(actions[turn % len(actions)])

    def step_envpool() -> None:
        nonlocal turn
        other.step(arrays[turn % len(arrays)])
        turn += 1

    for _ in range(20):
        step_pool()
        step_envpool()
    medians = measure_in_turn({"pool": step_pool, "EnvPool": step_envpool}, rounds)
    print(f"Gymnasium's Ant-v4, {WORLDS} environments, RK4, 5 frames of 0.01 s")
    for name, seconds in medians.items():
        print(f"  {name:8} {seconds / WORLDS * 1e6:7.2f} µs per env step")
    print(f"  pool / EnvPool throughput: {medians['EnvPool'] / medians['pool']:.3f} (target 1.1)")
    other.close()


if __name__ == "__main__":
    rounds = rounds_argument(40)
    pool_against_bare_engine(rounds)
    pool_against_envpool(max(5, rounds // 2))
