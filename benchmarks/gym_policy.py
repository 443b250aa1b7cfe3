"""A policy of somebody else's code, in every engine: how it tracks a velocity, and how often it falls.

    python benchmarks/gym_policy.py …/unitree_rl_gym …/rsl_rl --robot g1
    python benchmarks/gym_policy.py …/humanoid-gym --robot xbot --engines mujoco
    python benchmarks/gym_policy.py …/legged_gym …/rsl_rl --robot anymal_c_flat --trained …/model_500.pt

g1, h1, h1_2 and xbot are those whose repositories have a trained policy. `--trained` names a checkpoint of rsl_rl in
place of it. The task class runs unmodified, without noise, pushes and random friction. Nothing of the repository is
kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.config.engines import compose_config, hydra_apart, simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.isaacgym.pool import GymPool


@dataclass(frozen=True)
class Robot:
    """Where a repository has a robot's task.

    Attributes:
        task: its class, as module:class.
        config: its configuration, likewise.
        feet: a part of the names of its feet. Only they are made of spheres, and PyBullet and PhysX take no meshes.
        policy: a trained policy's file in the repository, or nothing.
        settings: of its configuration that others lack.
    """

    task: str
    config: str
    feet: str
    policy: str = ""
    settings: tuple[str, ...] = ()


_LEGGED = "legged_gym.envs"
ROBOTS = {
    "anymal_c_flat": Robot(
        f"{_LEGGED}.anymal_c.anymal:Anymal", f"{_LEGGED}.anymal_c.flat.anymal_c_flat_config:AnymalCFlatCfg", "foot"
    ),
    "g1": Robot(
        f"{_LEGGED}.g1.g1_env:G1Robot",
        f"{_LEGGED}.g1.g1_config:G1RoughCfg",
        "ankle_roll",
        "deploy/pre_train/g1/motion.pt",
    ),
    "go2": Robot(f"{_LEGGED}.base.legged_robot:LeggedRobot", f"{_LEGGED}.go2.go2_config:GO2RoughCfg", "foot"),
    "h1": Robot(
        f"{_LEGGED}.h1.h1_env:H1Robot", f"{_LEGGED}.h1.h1_config:H1RoughCfg", "ankle", "deploy/pre_train/h1/motion.pt"
    ),
    "h1_2": Robot(
        f"{_LEGGED}.h1_2.h1_2_env:H1_2Robot",
        f"{_LEGGED}.h1_2.h1_2_config:H1_2RoughCfg",
        "ankle_roll",
        "deploy/pre_train/h1_2/motion.pt",
    ),
    "xbot": Robot(
        "humanoid.envs.custom.humanoid_env:XBotLFreeEnv",
        "humanoid.envs.custom.humanoid_config:XBotLCfg",
        "ankle_roll",
        "logs/XBot_ppo/exported/policies/policy_example.pt",
        ("domain_rand.action_delay=0.0", "domain_rand.action_noise=0.0"),
    ),
}
SPEED = 0.5  # m/s, that is asked for
SETTLED = 2.0  # s after which the speed counts


def main() -> None:
    options = _options()
    with hydra_apart():
        experiment = Experiment(compose_config(_overrides(options)))
    shipped = options.repository / ROBOTS[options.robot].policy
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
        policy = trained_policy(options.trained) if options.trained else shipped_policy(shipped, options.num_envs)
        speeds, falls = walk(pool, policy, steps, round(SETTLED / experiment.task.sim.dt))
        ahead = speeds[:, :, 0].mean(0)
        print(
            f"| {name} | {ahead.mean():.3f} | {ahead.min():.3f} to {ahead.max():.3f} | {speeds[:, :, 1].mean():+.3f} "
            f"| {falls} of {options.num_envs} |",
            flush=True,
        )
        pool.simulator.close()


def walk(pool: GymPool, policy: Callable[[Tensor], Tensor], steps: int, settled: int) -> tuple[np.ndarray, int]:
    """Speeds (steps, environments, 2) after so many steps, m/s in the base's frame, and environments that ever fell."""
    columns = pool.task.num_observations - pool.task.num_privileged
    pool.reset_all()
    speeds = []
    fallen = torch.zeros(pool.num_envs, dtype=torch.bool)
    with torch.no_grad():
        for step in range(steps):
            pool.step(policy(pool.observations[:, :columns]))
            fallen |= pool.terminated
            if step >= settled:
                speeds.append(pool.env.base_lin_vel[:, :2].numpy().copy())
    return np.stack(speeds), int(fallen.sum())


def shipped_policy(file: Path, num_envs: int) -> Callable[[Tensor], Tensor]:
    """A TorchScript module that remembers its past for one environment, so every environment has a copy."""
    policies = [torch.jit.load(str(file)) for _ in range(num_envs)]
    return lambda rows: torch.cat([policy(row) for policy, row in zip(policies, rows.split(1), strict=True)])


def trained_policy(file: Path) -> Callable[[Tensor], Tensor]:
    """The actor of a checkpoint of rsl_rl 1.0: linear layers with ELUs between, behind an LSTM where it has one."""
    weights = torch.load(file, map_location="cpu", weights_only=True)["model_state_dict"]
    layers = sorted({int(key.split(".")[1]) for key in weights if key.startswith("actor.")})
    memory, state = None, None
    if "memory_a.rnn.weight_ih_l0" in weights:
        columns, hidden = weights["memory_a.rnn.weight_ih_l0"].shape[1], weights["memory_a.rnn.weight_hh_l0"].shape[1]
        memory = torch.nn.LSTM(columns, hidden)
        memory.load_state_dict({key: weights[f"memory_a.rnn.{key}"] for key in memory.state_dict()})

    def act(rows: Tensor) -> Tensor:
        nonlocal state
        if memory is not None:
            output, state = memory(rows.unsqueeze(0), state)
            rows = output.squeeze(0)
        for layer in layers:
            rows = torch.nn.functional.linear(rows, weights[f"actor.{layer}.weight"], weights[f"actor.{layer}.bias"])
            rows = rows if layer == layers[-1] else torch.nn.functional.elu(rows)
        return rows

    return act


def _overrides(options: argparse.Namespace) -> list[str]:
    robot = ROBOTS[options.robot]
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
        f"task.env.feet=[{robot.feet}]",
        f"task.env.taskClass={robot.task}",
        f"task.env.taskConfig={robot.config}",
        *(f"+task.env.settings.{key}={value}" for key, value in settings.items()),
        *(f"+task.env.settings.{setting}" for setting in robot.settings),
    ]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help="unitree_rl_gym, legged_gym or humanoid-gym")
    parser.add_argument("folders", type=Path, nargs="*", help="of other packages that it imports, such as rsl_rl")
    parser.add_argument("--robot", choices=sorted(ROBOTS), default="g1")
    parser.add_argument("--trained", type=Path, help="a checkpoint of rsl_rl in place of the shipped policy")
    parser.add_argument("--engines", default="mujoco,mujoco_reduced,physx,pybullet", help="files of cfg/simulator")
    parser.add_argument("--physx-contacts", choices=("full", "feet"), default="feet")
    parser.add_argument("--num-envs", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
