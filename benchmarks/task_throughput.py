"""What each task costs with default settings: both pools, the learner, and whole iterations.

    python benchmarks/task_throughput.py [--tasks Ant Humanoid] [--iterations 6]

Each task in turn gets a run of train.py's default settings, but the split stays at half and half. So both pools and the
learner work in every iteration. Figures are medians over the iterations after the first two. The benchmark prints the
table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import statistics

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.registry import task_names
from dualfid_robot.train.trainer import Trainer

WARMUP = 2
SIDES = ("low", "high")


def measure(task: str, iterations: int) -> str:
    """A task's row."""
    with hydra_apart():
        experiment = Experiment(compose_config([f"task={task}", "allocation=fixed", "allocation.rule.rho=0.5"]))
    trainer = Trainer(experiment)
    assert trainer.env.high is not None
    rows = [trainer.iterate() for _ in range(WARMUP + iterations)][WARMUP:]
    split = f"{trainer.env.n_low} + {trainer.env.num_envs - trainer.env.n_low}"
    trainer.close()
    samples = experiment.num_envs * experiment.ppo.horizon_length
    pools = [1.0 / statistics.median(row[f"seconds_per_env_step/{side}"] for row in rows) for side in SIDES]
    learner = samples / statistics.median(row["seconds/learner"] for row in rows)
    iteration = statistics.median(row["seconds/iteration"] for row in rows)
    simulators = experiment.low_engines[0]["name"], experiment.high_engine["name"]
    figures = " | ".join(f"{steps:,.0f} ({name})" for steps, name in zip(pools, simulators, strict=True))
    return f"| {task} | {split} | {figures} | {learner:,.0f} | {iteration:.2f} s | {samples / iteration:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", nargs="+", choices=task_names(), default=task_names())
    parser.add_argument("--iterations", type=int, default=6, help="timed iterations of each task")
    arguments = parser.parse_args()
    columns = "environments low + high | low, env steps/s | high, env steps/s | learner, samples/s | iteration"
    print(f"| task | {columns} | samples/s |")
    print("|---|---|---|---|---|---|---|")
    for task in arguments.tasks:
        print(measure(task, arguments.iterations), flush=True)


if __name__ == "__main__":
    main()
