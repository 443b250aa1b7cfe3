"""A policy that somebody else ships, in every engine: how it tracks a velocity, and how often it falls.

    python benchmarks/gym_policy.py …/unitree_rl_gym …/rsl_rl --robot g1

The robots are those of Unitree's unitree_rl_gym with a policy in its `deploy/pre_train`: g1, h1, h1_2. Their task class
runs unmodified, without noise, pushes and random friction. Nothing of the repository is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfid_robot.config.engines import compose_config, hydra_apart, simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.pool import GymPool

# Only what lies under an ankle is made of spheres; the engines of PyBullet and PhysX take no collision meshes.
FEET = {"g1": "ankle_roll", "h1": "ankle", "h1_2": "ankle_roll"}
CLASSES = {"g1": ("G1Robot", "G1RoughCfg"), "h1": ("H1Robot", "H1RoughCfg"), "h1_2": ("H1_2Robot", "H1_2RoughCfg")}
SPEED = 0.5  # m/s, that is asked for
SETTLED = 2.0  # s after which the speed counts


def main() -> None:
    options = _options()
    with hydra_apart():
        experiment = Experiment(compose_config(_overrides(options)))
    file = options.repository / "deploy" / "pre_train" / options.robot / "motion.pt"
    steps = round(options.seconds / experiment.task.sim.dt)
    print("| engine | m/s of 0.5 | least to greatest | sideways | falls |\n|---|---|---|---|---|")
    for name in options.engines.split(","):
        settings = simulator_settings(name, experiment.settings["task"])
        if name == "physx":
            settings["contacts"] = options.physx_contacts
        try:
            pool = experiment.make_pool(settings, options.num_envs, seed=1)
        except ConfigError as error:
            print(f"| {name} | refused: {error} |", flush=True)
            continue
        assert isinstance(pool, GymPool)
        speeds, falls = walk(pool, file, steps, round(SETTLED / experiment.task.sim.dt))
        ahead = speeds[:, :, 0].mean(0)
        print(
            f"| {name} | {ahead.mean():.3f} | {ahead.min():.3f} to {ahead.max():.3f} | {speeds[:, :, 1].mean():+.3f} "
            f"| {falls} of {options.num_envs} |",
            flush=True,
        )
        pool.simulator.close()


def walk(pool: GymPool, file: Path, steps: int, settled: int) -> tuple[np.ndarray, int]:
    """Speeds (steps, environments, 2) after so many steps, m/s in the base's frame, and environments that ever fell.

    The policies remember their past, one environment each, so every environment has a copy.
    """
    policies = [torch.jit.load(str(file)) for _ in range(pool.num_envs)]
    columns = pool.task.num_observations - pool.task.num_privileged
    pool.reset_all()
    speeds = []
    fallen = torch.zeros(pool.num_envs, dtype=torch.bool)
    with torch.no_grad():
        for step in range(steps):
            rows = pool.observations[:, :columns].split(1)
            pool.step(torch.cat([policy(row) for policy, row in zip(policies, rows, strict=True)]))
            fallen |= pool.terminated
            if step >= settled:
                speeds.append(pool.env.base_lin_vel[:, :2].numpy().copy())
    return np.stack(speeds), int(fallen.sum())


def _overrides(options: argparse.Namespace) -> list[str]:
    task, config = CLASSES[options.robot]
    package = f"legged_gym.envs.{options.robot}"
    settings: dict[str, Any] = {
        "noise.add_noise": False,
        "domain_rand.randomize_friction": False,
        "domain_rand.push_robots": False,
        "domain_rand.randomize_base_mass": False,
        "commands.heading_command": False,
        "commands.ranges.lin_vel_x": [SPEED, SPEED],
        "commands.ranges.lin_vel_y": [0.0, 0.0],
        "commands.ranges.ang_vel_yaw": [0.0, 0.0],
        "commands.ranges.heading": [0.0, 0.0],
    }
    folders = ",".join(str(folder.absolute()) for folder in (options.repository, *options.folders))
    return [
        "task=isaacgym.LeggedRobot",
        f"task.env.folders=[{folders}]",
        f"task.env.feet=[{FEET[options.robot]}]",
        f"task.env.taskClass={package}.{options.robot}_env:{task}",
        f"task.env.taskConfig={package}.{options.robot}_config:{config}",
        *(f"+task.env.settings.{key}={value}" for key, value in settings.items()),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help="unitree_rl_gym")
    parser.add_argument("folders", type=Path, nargs="*", help="of other packages that it imports, such as rsl_rl")
    parser.add_argument("--robot", choices=sorted(CLASSES), default="g1")
    parser.add_argument("--engines", default="mujoco,mujoco_reduced,physx,pybullet", help="files of cfg/simulator")
    parser.add_argument("--physx-contacts", choices=("full", "feet"), default="feet")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
