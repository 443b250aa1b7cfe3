"""What a sample costs the learner, here and in another checkout of this program.

    python benchmarks/learner.py [--against PATH] [--rounds 7] [train.params.network.separate=false …]

One core, Ant's policy and learner as each checkout makes them by default (observation 60, action 8, layers of 256, 128,
64, ELU), 16 steps. 95 % of the rows are low, as when a run begins. The update and the rollout's `act`, medians of
CPU time. Each checkout runs in a process of its own, and they take turns. Settings are given to the one here alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SHAPES = (512, 1024)  # environments; as many mini-batches in each
LOW = 0.95  # share of the rows
NUM_OBS, NUM_ACTIONS, HORIZON = 60, 8, 16


def actions_of_checkout(overrides: Sequence[str]) -> list[Callable[[], object]]:
    """The update and sixteen times `act` of each shape, of the dualfid_robot that this process finds."""
    import torch

    from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
    from dualfid_robot.config.engines import compose_config, hydra_apart
    from dualfid_robot.config.experiment import Experiment
    from dualfid_robot.policies.actor_critic import DualActorCritic

    torch.set_num_threads(1)
    with hydra_apart():
        experiment = Experiment(compose_config(["task=Ant", *overrides]))
    found: list[Callable[[], object]] = []
    for num_envs in SHAPES:
        minibatch_size = experiment.ppo.minibatch_size * num_envs // experiment.num_envs
        config = dataclasses.replace(experiment.ppo, minibatch_size=minibatch_size)
        n_low = round(LOW * num_envs)
        algorithm = DualPPO(experiment.make_policy(), config)
        generator = torch.Generator().manual_seed(0)
        storage = algorithm.make_storage(num_envs)
        storage.begin(n_low)
        never = torch.zeros(num_envs, dtype=torch.bool)
        for _ in range(HORIZON):
            obs = torch.randn(num_envs, NUM_OBS, generator=generator)
            drawn = algorithm.policy.act(obs, n_low, generator)
            rewards = -(drawn[0] - obs[:, :NUM_ACTIONS]).square().mean(1)
            storage.add(obs, *drawn, rewards, never, never, obs)
        algorithm.compute_returns(storage, obs)

        def update(algorithm: DualPPO = algorithm, storage: object = storage) -> None:
            read_back(algorithm.update(storage, 0.0))  # type: ignore[arg-type]

        def act(policy: DualActorCritic = algorithm.policy, obs: torch.Tensor = obs, n_low: int = n_low) -> None:
            with policy.frozen_weights():
                for _ in range(HORIZON):
                    policy.act(obs, n_low)

        found += [update, act]
    return found


def serve(overrides: Sequence[str]) -> None:
    """Do the action whose number each line of standard input has, and print its CPU seconds."""
    actions = actions_of_checkout(overrides)
    for line in sys.stdin:
        started = time.process_time()
        actions[int(line)]()
        print(time.process_time() - started, flush=True)


def start(checkout: Path, overrides: Sequence[str]) -> subprocess.Popen[str]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(checkout), os.environ.get("PYTHONPATH", ""))),
    }
    command = [sys.executable, __file__, "--serve", *overrides]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=checkout
    )


def measure(process: subprocess.Popen[str], action: int) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{action}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of each thing, after two that do not count")
    parser.add_argument("overrides", nargs="*", help="settings of train.py for the learner here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.overrides)
        return
    processes = [start(HERE, arguments.overrides)]
    if arguments.against is not None:
        processes.append(start(arguments.against.resolve(), []))
    names = [f"{kind}, {envs} environments" for envs in SHAPES for kind in ("update", "act")]
    for action, name in enumerate(names):
        samples = SHAPES[action // 2] * HORIZON
        rounds = [[measure(process, action) for process in processes] for _ in range(arguments.rounds + 2)][2:]
        medians = [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]
        text = f"{name:26s} {1e6 * medians[0] / samples:6.2f} µs a sample"
        if len(medians) == 2:
            text += f"   there {1e6 * medians[1] / samples:6.2f}   ratio {medians[0] / medians[1]:.3f}"
        print(text)
    for process in processes:
        process.communicate()


if __name__ == "__main__":
    main()
