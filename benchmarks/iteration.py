"""Where an iteration's time goes, and what the allocation costs: reallocation and divergence ≤ 2% of an iteration.

    python benchmarks/iteration.py

Default Ant settings; medians over the iterations of one run, after five that do not count.
"""

from __future__ import annotations

import statistics

from hydra import compose, initialize_config_dir
from timing import rounds_argument

from dualfid_robot.runners.entry import CONFIG_DIR, register_simulators
from dualfid_robot.runners.experiment import Experiment
from dualfid_robot.runners.trainer import Trainer

WARMUP = 5


def main() -> None:
    register_simulators()
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        # beyond the warm-up, so that the boundary really moves
        experiment = Experiment(compose("config", ["task=Ant", "allocation.warmup_iterations=2"]))
    trainer = Trainer(experiment)
    rows = [trainer.iterate() for _ in range(WARMUP + rounds_argument(20))][WARMUP:]
    trainer.close()
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key.startswith("seconds/")}
    total = medians["seconds/iteration"]
    for key, seconds in medians.items():
        print(f"{key:20} {seconds:8.4f} s  {seconds / total:7.2%}")
    steps = experiment.num_envs * experiment.ppo.horizon_length
    print(f"env steps per second, update included: {steps / total:,.0f}")
    for side in ("low", "high"):
        per_step = statistics.median(row[f"seconds_per_env_step/{side}"] for row in rows)
        print(f"{side:5} {per_step * 1e6:6.2f} µs per env step ({1 / per_step:,.0f} env steps/s)")
    share = statistics.median(row["seconds/allocation"] / row["seconds/iteration"] for row in rows)
    print(f"allocation (reallocate, divergence, rule): {share:.2%} of an iteration (target 2%)")


if __name__ == "__main__":
    main()
