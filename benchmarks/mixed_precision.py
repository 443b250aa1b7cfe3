"""Whether learning suffers from bfloat16 products: Ant in E_high alone, with them and without, on equally many samples.

    python benchmarks/mixed_precision.py --iterations 120 --seeds 1 2 3

Each run is `python train.py task=Ant allocation=high_only`, with `mixed_precision` True and False; then the last
policy's deterministic return over 64 complete episodes. Finished runs are kept under runs/ and not repeated. Time does
not matter here (benchmarks/ppo_update.py measures it), so other work may run beside it.
"""

from __future__ import annotations

import argparse
import statistics

from learning import final_return, train

SETTINGS = {"bfloat16": True, "float32": False}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    returns: dict[str, list[float]] = {name: [] for name in SETTINGS}
    for seed in arguments.seeds:
        for name, value in SETTINGS.items():
            overrides = ["task=Ant", f"seed={seed}", f"max_iterations={arguments.iterations}", "allocation=high_only"]
            run = f"precision_Ant_{name}_seed{seed}_{arguments.iterations}"
            folder = train(run, [*overrides, f"train.params.config.mixed_precision={value}"])
            returns[name].append(final_return(folder))
            print(f"{name}, seed {seed}: {returns[name][-1]:.0f}", flush=True)
    print(f"\nAnt, E_high alone, {arguments.iterations} iterations, seeds {arguments.seeds}")
    for name, values in returns.items():
        print(f"{name}: {', '.join(f'{value:.0f}' for value in values)}; mean {statistics.mean(values):.0f}")


if __name__ == "__main__":
    main()
