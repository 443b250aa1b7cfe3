"""What a step costs in a pool of a foreign Isaac Gym class, beside this project's own pool.

    python benchmarks/gym_cost.py …/unitree_rl_gym …/rsl_rl

Both are split into the engine's part and the rest: observations, rewards, resets, copies. The engine's part depends on
the robot and on what it does. So it is taken from the class's pool, and this project's own pool is charged with it too,
less what its one call of the engine saves over the class's call for each physics step. The rest of the own pool is
measured with Anymal, which has as many joints. CPU seconds, with one thread of the engine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.isaacgym.pool import GymPool
from dualfid_robot.isaacgym.simulation import engine_settings
from dualfid_robot.simulators.registry import make_simulator

STEPS = 24  # of a round
WARM_UP = 10


def main() -> None:
    options = _options()
    folders = ",".join(str(folder.absolute()) for folder in options.folders)
    theirs = [
        *("task=isaacgym.LeggedRobot", f"task.env.folders=[{folders}]"),
        *(f"task.env.taskClass={options.task_class}", f"task.env.taskConfig={options.task_config}"),
    ]
    pools = [_pool(overrides, options.num_envs) for overrides in (theirs, ["task=Anymal"])]
    rounds: list[list[tuple[float, float]]] = [[], []]
    for _ in range(options.rounds):
        for pool, found in zip(pools, rounds, strict=True):
            found.append(_seconds(pool, STEPS))
    (engine, rest), (_, own_rest) = (min(found, key=sum) for found in rounds)
    own_engine = engine * _one_call(pools[0], options.rounds)
    print(f"{options.num_envs} environments, ms of a step: engine {1e3 * engine:.1f}, class {1e3 * rest:.1f}")
    print(f"the project's own pool: engine {1e3 * own_engine:.1f}, pool and task {1e3 * own_rest:.1f}")
    print(f"ratio {(engine + rest) / (own_engine + own_rest):.3f}")


def _pool(overrides: list[str], num_envs: int) -> EnvironmentPool:
    with hydra_apart():
        experiment = Experiment(compose_config([*overrides, "simulator.high.threads=1"]))
    pool = experiment.make_pool(experiment.high_engine, num_envs, seed=0)
    _seconds(pool, WARM_UP)
    return pool


def _seconds(pool: EnvironmentPool, steps: int) -> tuple[float, float]:
    """CPU seconds of a step with small random actions: the engine's, and those of everything else."""
    simulator, step, finish = pool.simulator, pool.simulator.start_step, pool.simulator.finish_step
    engine = 0.0

    def timed_start(*arguments: object) -> None:
        nonlocal engine
        begin = time.process_time()
        step(*arguments)  # type: ignore[arg-type]
        engine += time.process_time() - begin

    def timed_finish() -> None:
        nonlocal engine
        begin = time.process_time()
        finish()
        engine += time.process_time() - begin

    simulator.start_step, simulator.finish_step = timed_start, timed_finish  # type: ignore[method-assign]
    generator = torch.Generator().manual_seed(0)
    begin = time.process_time()
    for _ in range(steps):
        pool.step(0.3 * torch.randn(pool.num_envs, pool.task.num_actions, generator=generator))
    total = time.process_time() - begin
    simulator.start_step, simulator.finish_step = step, finish  # type: ignore[method-assign]
    return engine / steps, (total - engine) / steps


def _one_call(pool: EnvironmentPool, rounds: int) -> float:
    """CPU seconds of a control period as one call of the engine, over those of a call for each of its physics steps."""
    assert isinstance(pool, GymPool)
    apart, worlds, calls = pool.simulator, pool.num_envs, pool.task.substeps
    settings = engine_settings(pool.env.sim._session) | {"substeps": calls}
    together = make_simulator(settings, apart.robot, worlds, pool.task.control_dt, apart.contact_bodies)
    state, controls = apart.snapshot(), torch.zeros(worlds, apart.robot.model.nu)
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        seconds = []
        for simulator, times in ((together, 1), (apart, calls)):
            simulator.restore(state)
            begin = time.process_time()
            for _ in range(times):
                simulator.step(controls, worlds)
            seconds.append(time.process_time() - begin)
        found.append((seconds[0], seconds[1]))
    together.close()
    one, several = (min(times) for times in zip(*found, strict=True))
    return one / several


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="of the class's package and those that it imports")
    parser.add_argument("--task-class", default="legged_gym.envs:LeggedRobot")
    parser.add_argument("--task-config", default="legged_gym.envs.go2.go2_config:GO2RoughCfg")
    parser.add_argument("--num-envs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
