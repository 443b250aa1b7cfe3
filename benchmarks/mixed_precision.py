"""Whether learning suffers from bfloat16 products: Ant in E_high alone, with them and without, on equally many samples.

    python benchmarks/mixed_precision.py --iterations 120 --seeds 1 2 3

Each run is `python train.py task=Ant allocation=high_only`, with `mixed_precision` True and False. Two returns are
compared. One is the last policy's deterministic return over 64 complete episodes. The other is the mean return of the
last episodes of training, with the actions' noise. Finished runs are kept under runs/ and not repeated. Time does not
matter here (benchmarks/ppo_update.py measures it), so other work may run beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics

from learning import final_return, train

SETTINGS = {"bfloat16": True, "float32": False}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    returns: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
    for seed in arguments.seeds:
        for name, value in SETTINGS.items():
            overrides = ["task=Ant", f"seed={seed}", f"max_iterations={arguments.iterations}", "allocation=high_only"]
            run = f"precision_Ant_{name}_seed{seed}_{arguments.iterations}"
            folder = train(run, [*overrides, f"train.params.config.mixed_precision={value}"])
            last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
            returns[name].append((final_return(folder), last["return/high"]))
    print(f"\nAnt, E_high alone, {arguments.iterations} iterations, seeds {arguments.seeds}")
    for name, pairs in returns.items():
        for kind, values in zip(("deterministic", "with noise"), zip(*pairs, strict=True), strict=True):
            print(f"{name}, {kind}: {', '.join(f'{v:.0f}' for v in values)}; mean {statistics.mean(values):.0f}")


if __name__ == "__main__":
    main()
