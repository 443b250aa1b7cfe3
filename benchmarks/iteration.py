"""Where an iteration's time goes, and what the allocation costs: reallocation and divergence ≤ 2% of an iteration.

    python benchmarks/iteration.py [--rounds 20] [task=Ant num_envs=4096 sim_device=cuda:0 …]

Default settings but for the overrides given; medians over the iterations of one run, after five that do not count. On a
GPU, also the memory that torch, Warp and everything else took on it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.train.trainer import Trainer

WARMUP = 5


def measure(overrides: Sequence[str], rounds: int) -> dict[str, float]:
    """Medians of an iteration's seconds by phase, of seconds per environment step, and of the allocation's share.

    Args:
        overrides: settings of train.py.
        rounds: timed iterations.
    """
    import torch  # not at the top: dualfid_robot, imported first, sets how torch's threads wait

    with hydra_apart():
        # beyond the warm-up, so that the boundary really moves
        experiment = Experiment(compose_config(["allocation.warmup_iterations=2", *overrides]))
    trainer = Trainer(experiment)
    rows = [trainer.iterate() for _ in range(WARMUP + rounds)][WARMUP:]
    figures = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("seconds/")}
    for side in ("low", "high"):
        key = f"seconds_per_env_step/{side}"
        figures[key] = statistics.median(row.get(key, float("nan")) for row in rows)
    figures["share of allocation"] = statistics.median(
        row["seconds/allocation"] / row["seconds/iteration"] for row in rows
    )
    steps = experiment.num_envs * experiment.ppo.horizon_length
    figures["env steps per second"] = steps / figures["seconds/iteration"]
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        figures["GiB of GPU memory"] = (whole - free) / 2**30
    trainer.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20, help="timed iterations")
    parser.add_argument("overrides", nargs="*", help="settings of train.py")
    arguments = parser.parse_args()
    figures = measure(arguments.overrides, arguments.rounds)
    for key, value in figures.items():
        if key.startswith("seconds/"):
            print(f"{key:20} {value:8.4f} s  {value / figures['seconds/iteration']:7.2%}")
    print(f"env steps per second, update included: {figures['env steps per second']:,.0f}")
    for side in ("low", "high"):
        per_step = figures[f"seconds_per_env_step/{side}"]
        print(f"{side:5} {per_step * 1e6:6.2f} µs per env step ({1 / per_step:,.0f} env steps/s)")
    print(
        f"allocation (reallocate, divergence, rule): {figures['share of allocation']:.2%} of an iteration (target 2%)"
    )
    if "GiB of GPU memory" in figures:
        print(f"GPU memory in use: {figures['GiB of GPU memory']:.2f} GiB")


if __name__ == "__main__":
    main()
