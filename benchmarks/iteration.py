"""Where an iteration's time goes, and what the allocation costs: reallocation and divergence ≤ 2% of an iteration.

    python benchmarks/iteration.py [--rounds 20] [task=Ant num_envs=4096 sim_device=cuda:0 …]

Default settings but for the overrides given; medians over the iterations of one run, after five that do not count. On a
GPU, also the memory that torch, Warp and everything else took on it.
"""

from __future__ import annotations

import argparse
import statistics

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.train.trainer import Trainer

WARMUP = 5


def report_gpu_memory() -> None:
    import torch  # not at the top: dualfid_robot, imported first, sets how torch's threads wait

    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        print(f"GPU memory in use: {(whole - free) / 2**30:.2f} GiB on {torch.cuda.get_device_name()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20, help="timed iterations")
    parser.add_argument("overrides", nargs="*", help="settings of train.py")
    arguments = parser.parse_args()
    with hydra_apart():
        # beyond the warm-up, so that the boundary really moves
        experiment = Experiment(compose_config(["allocation.warmup_iterations=2", *arguments.overrides]))
    trainer = Trainer(experiment)
    rows = [trainer.iterate() for _ in range(WARMUP + arguments.rounds)][WARMUP:]
    report_gpu_memory()
    trainer.close()
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("seconds/")}
    total = medians["seconds/iteration"]
    for key, seconds in medians.items():
        print(f"{key:20} {seconds:8.4f} s  {seconds / total:7.2%}")
    steps = experiment.num_envs * experiment.ppo.horizon_length
    print(f"env steps per second, update included: {steps / total:,.0f}")
    for side in ("low", "high"):
        per_step = statistics.median(row.get(f"seconds_per_env_step/{side}", float("nan")) for row in rows)
        print(f"{side:5} {per_step * 1e6:6.2f} µs per env step ({1 / per_step:,.0f} env steps/s)")
    share = statistics.median(row["seconds/allocation"] / row["seconds/iteration"] for row in rows)
    print(f"allocation (reallocate, divergence, rule): {share:.2%} of an iteration (target 2%)")


if __name__ == "__main__":
    main()
