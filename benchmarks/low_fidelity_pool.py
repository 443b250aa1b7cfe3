"""What the low simulator costs: beside bare PyBullet, beside the high simulator, and in memory.

    python benchmarks/low_fidelity_pool.py

1024 Ants have the calibrated settings of cfg/, and states and controls of random walking. All that is compared goes
through the same eight control periods in turn.

1. Our engine's step against a bare loop of PyBullet calls for the same robots, in as many processes. The calls are for
   torques, step, base, joints and contacts. Target: at least 0.85 of the bare loop's throughput.
2. Cost of a step relative to full MuJoCo on all CPUs. Target: at most 0.5.
3. Memory of the worker processes per robot (proportional set size; Linux). Target: at most 3 MB.
"""

from __future__ import annotations

import dualfid_robot  # first: it tells torch's threads to sleep when idle  # isort: skip  # noqa: F401

import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pybullet as bullet
import torch
from timing import measure_in_turn, rounds_argument
from torch import Tensor

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import plain
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.pybullet.protocol import Spec
from dualfid_robot.simulators.pybullet.simulator import PybulletSimulator
from dualfid_robot.simulators.registry import make_simulator

WORLDS = 1024
PERIODS = 8


def build(spec: Spec, count: int) -> tuple[int, int, list[int], list[int]]:
    """A client with its ground, robots and joints, by PyBullet's Python functions; the same physics as our engine's."""
    client = bullet.connect(bullet.DIRECT)
    bullet.setGravity(*spec.gravity, physicsClientId=client)
    bullet.setPhysicsEngineParameter(
        fixedTimeStep=spec.control_dt,
        numSubSteps=spec.substeps,
        numSolverIterations=spec.solver_iterations,
        solverResidualThreshold=0.0,
        physicsClientId=client,
    )
    shape = bullet.createCollisionShape(bullet.GEOM_PLANE, planeNormal=[0, 0, 1], physicsClientId=client)
    ground = bullet.createMultiBody(0.0, shape, physicsClientId=client)
    bullet.setCollisionFilterGroupMask(ground, -1, 1, 2, physicsClientId=client)
    bullet.changeDynamics(ground, -1, lateralFriction=1.0, physicsClientId=client)
    robots, joints = [], []
    with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
        file.write(spec.urdf)
        file.flush()
        for index in range(count):
            side = int(np.ceil(np.sqrt(count)))
            position = [4.0 * (index // side), 4.0 * (index % side), 0.0]
            robot = bullet.loadURDF(
                file.name, position, flags=bullet.URDF_USE_INERTIA_FROM_FILE, physicsClientId=client
            )
            infos = [bullet.getJointInfo(robot, i, client) for i in range(bullet.getNumJoints(robot, client))]
            links = {info[12].decode(): info[0] for info in infos} | {"torso": -1}
            joints = [info[0] for info in infos]
            for link in links.values():
                bullet.setCollisionFilterGroupMask(robot, link, 2, 1, physicsClientId=client)
                bullet.changeDynamics(
                    robot, link, linearDamping=0.0, angularDamping=0.0, jointDamping=0.1, physicsClientId=client
                )
            for name, moments in spec.inertia.items():
                bullet.changeDynamics(robot, links[name], localInertiaDiagonal=moments, physicsClientId=client)
            for name, friction in zip(spec.foot_links, spec.friction, strict=True):
                bullet.changeDynamics(
                    robot,
                    links[name],
                    lateralFriction=friction,
                    contactStiffness=spec.contact_stiffness,
                    contactDamping=spec.contact_damping,
                    physicsClientId=client,
                )
            bullet.setJointMotorControlArray(
                robot, joints, bullet.VELOCITY_CONTROL, forces=[0.0] * len(joints), physicsClientId=client
            )
            robots.append(robot)
    return client, ground, robots, joints


def bare_loop(spec: Spec, pipe: Connection) -> None:
    """A process of the comparison: the same robots, driven and read by PyBullet's Python functions and nothing else."""
    size = spec.robots_per_client
    firsts = list(range(spec.worker * size, spec.num_worlds, spec.workers * size))
    clients = [build(spec, min(size, spec.num_worlds - first)) for first in firsts]
    raw, torques = pipe.recv()
    half = 7 + len(clients[0][3])
    forces = [[t[first : first + size].tolist() for first in firsts] for t in torques]
    pipe.send("ready")
    while (period := pipe.recv()) is not None:
        for index, (client, ground, robots, joints) in enumerate(clients):
            if period < 0:
                states = raw[firsts[index] : firsts[index] + len(robots)]
                for robot, q, u in zip(robots, states[:, :half].tolist(), states[:, half:].tolist(), strict=True):
                    bullet.resetBasePositionAndOrientation(robot, q[:3], q[3:7], client)
                    bullet.resetBaseVelocity(robot, u[:3], u[3:6], client)
                    for joint in joints:
                        bullet.resetJointState(robot, joint, q[7 + joint], u[6 + joint], client)
                continue
            for robot, force in zip(robots, forces[period][index], strict=True):
                bullet.setJointMotorControlArray(
                    robot, joints, bullet.TORQUE_CONTROL, forces=force, physicsClientId=client
                )
            bullet.stepSimulation(client)
            for robot in robots:
                bullet.getBasePositionAndOrientation(robot, client)
                bullet.getBaseVelocity(robot, client)
                bullet.getJointStates(robot, joints, client)
            bullet.getContactPoints(ground, physicsClientId=client)
        pipe.send("done")


class BareLoop:
    """As many processes as the engine has."""

    def __init__(self, simulator: PybulletSimulator, raw: np.ndarray, torques: np.ndarray) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for worker in simulator._workers:
            here, there = context.Pipe()
            process = context.Process(target=bare_loop, args=(worker.spec, there), daemon=True)
            process.start()
            here.send((raw, torques))
            self.pipes.append(here)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def do(self, period: int) -> None:
        """Step with the torques of a period; -1 goes back to the first state."""
        for pipe in self.pipes:
            pipe.send(period)
        for pipe in self.pipes:
            pipe.recv()


def configurations() -> tuple[dict[str, object], dict[str, object]]:
    """The Ant's low and high simulator, as train.py configures them."""
    with hydra_apart():
        cfg = compose_config(["task=Ant", "simulator/low=pybullet", "simulator/high=mujoco"])
    return plain(cfg.simulator.low.pybullet), plain(cfg.simulator.high)


def walk(simulator: Simulator, controls: list[Tensor]) -> None:
    """Bring the worlds to a mix of states: random controls, fallen Ants are put back on their feet."""
    for turn in range(40):
        fallen = (simulator.qpos[:, 2] < 0.31).nonzero().squeeze(1)
        if turn == 0:
            fallen = torch.arange(WORLDS)
        qpos = torch.from_numpy(simulator.robot.model.qpos0).float().repeat(len(fallen), 1)
        limits = torch.from_numpy(simulator.robot.joint_limits).float()
        qpos[:, 7:] = qpos[:, 7:].clamp(limits[:, 0], limits[:, 1])
        simulator.set_state(fallen, qpos, torch.zeros(len(fallen), simulator.robot.model.nv))
        simulator.step(controls[turn % len(controls)], WORLDS)


def memory(simulator: PybulletSimulator) -> float:
    """MB of the worker processes per robot."""
    total = 0
    for worker in simulator._workers:
        lines = Path(f"/proc/{worker._process.pid}/smaps_rollup").read_text().splitlines()
        total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1024 / WORLDS


def main(rounds: int) -> None:
    """Print the three comparisons."""
    low, high = configurations()
    robot = RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
    generator = torch.Generator().manual_seed(0)
    controls = [torch.rand(WORLDS, 8, generator=generator) * 2 - 1 for _ in range(PERIODS)]
    ours = make_simulator(low, robot, WORLDS, 1 / 60, robot.feet)
    full = make_simulator(high, robot, WORLDS, 1 / 60, robot.feet)
    assert isinstance(ours, PybulletSimulator)
    walk(ours, controls)
    start = ours.snapshot()
    qpos, qvel = ours.qpos.clone(), ours.qvel.clone()
    gear = torch.from_numpy(robot.model.actuator_gear[:, 0])
    bare = BareLoop(ours, start["raw"], torch.stack([control * gear for control in controls]).numpy())
    worlds = torch.arange(WORLDS)

    def back() -> None:
        ours.restore(start)
        full.set_state(worlds, qpos, qvel)
        bare.do(-1)

    actions = {"back": back}
    for period, control in enumerate(controls):
        actions[f"ours {period}"] = lambda control=control: ours.step(control, WORLDS)
        actions[f"bare {period}"] = lambda period=period: bare.do(period)
        actions[f"full {period}"] = lambda control=control: full.step(control, WORLDS)
    medians = measure_in_turn(actions, rounds)
    cost = {
        name: sum(medians[f"{name} {period}"] for period in range(1, PERIODS)) / (PERIODS - 1) / WORLDS * 1e6
        for name in ("ours", "bare", "full")
    }
    settings = {
        key: value for key, value in low.items() if key in ("substeps", "solver_iterations", "robots_per_client")
    }
    print(f"{WORLDS} Ants, {len(ours._workers)} processes, {settings}")
    print(f"  bare PyBullet  {cost['bare']:7.2f} µs per env step")
    print(f"  our engine     {cost['ours']:7.2f} µs per env step")
    print(f"  full MuJoCo    {cost['full']:7.2f} µs per env step")
    print(f"  ours / bare throughput: {cost['bare'] / cost['ours']:.3f} (target 0.85)")
    print(f"  cost relative to full MuJoCo: {cost['ours'] / cost['full']:.3f} (target at most 0.5)")
    print(f"  memory: {memory(ours):.2f} MB per robot (target at most 3)")
    for pipe in bare.pipes:
        pipe.send(None)
    ours.close()
    full.close()


if __name__ == "__main__":
    main(rounds_argument(10))
