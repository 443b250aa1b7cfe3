"""Whether the adapter's learning rate drives the allocation: the course of ρ at a tenth, once and ten times that rate.

    python benchmarks/adapter_rate.py --task BallBalance --iterations 100 --seeds 1 2 3

Each run is `python train.py` with its defaults but for `adapter_speed`. Printed are ρ at tenths of a run, mean over the
seeds, and the divergence D at the end. D grows with the square of the rate. G, which the rule reads, should not. Below
stands how far two courses are apart: the mean of |Δρ| over a run between two rates of one seed, and between two seeds
of one rate, which is chance. Finished runs are kept under runs/ and not repeated. Time does not matter here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics

import numpy as np
from learning import FIGURES, train

SPEEDS = (0.01, 0.1, 1.0)
TENTHS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(FIGURES), default="BallBalance")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()

    courses: dict[tuple[float, int], np.ndarray] = {}
    divergences: dict[float, list[float]] = {speed: [] for speed in SPEEDS}
    for seed, speed in itertools.product(arguments.seeds, SPEEDS):
        overrides = [f"task={arguments.task}", f"seed={seed}", f"max_iterations={arguments.iterations}"]
        run = f"rate_{arguments.task}_{speed:g}_seed{seed}_{arguments.iterations}"
        folder = train(run, [*overrides, f"train.params.config.adapter_speed={speed}"])
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        courses[speed, seed] = np.array([line["allocation/rho"] for line in log])
        divergences[speed].append(log[-1]["allocation/divergence_smoothed"])

    print(f"\n{arguments.task}, {arguments.iterations} iterations, seeds {arguments.seeds}: ρ at tenths of the run")
    for speed in SPEEDS:
        mean = np.mean([courses[speed, seed] for seed in arguments.seeds], 0)
        tenths = ", ".join(f"{part.mean():.2f}" for part in np.array_split(mean, TENTHS))
        print(f"adapter_speed {speed:<4g}: {tenths}; D {statistics.mean(divergences[speed]):.2g}")
    pairs = list(itertools.combinations(courses, 2))
    for name, chosen in {
        "two rates of one seed": [pair for pair in pairs if pair[0][1] == pair[1][1]],
        "two seeds of one rate": [pair for pair in pairs if pair[0][0] == pair[1][0]],
    }.items():
        if chosen:
            apart = statistics.median(float(np.abs(courses[a] - courses[b]).mean()) for a, b in chosen)
            print(f"mean |Δρ| between {name}: {apart:.3f}, median of {len(chosen)} pairs")


if __name__ == "__main__":
    main()
