"""Learning curves of dual, high-only and low-only training against measured total cost, in E_high.

    python benchmarks/learning.py --task Ant --cost 300 --seeds 1 2 3

Each run is `python train.py task=… seed=… max_cost=…` with default settings, in turn, so that each has the machine to
itself; high-only and low-only add `allocation=…`. Then checkpoints of each run are evaluated: deterministic return in
the default high simulator, 64 complete episodes. The deployed policy is evaluated: the adapted one, and low-only's base
policy, which never saw the high simulator. Finished runs are kept under runs/ and not repeated.

Writes docs/learning_<task>.json and docs/learning_<task>.png and prints the table of docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dualfid_robot.policies.actor_critic import PolicyName
from dualfid_robot.runners.checkpoint import load_checkpoint
from dualfid_robot.runners.entry import ROOT
from dualfid_robot.runners.evaluation import Evaluation, evaluate
from dualfid_robot.runners.launch import load_policy

METHODS: dict[str, tuple[list[str], PolicyName]] = {
    "dual": ([], "adapted"),
    "high_only": (["allocation=high_only"], "adapted"),
    "low_only": (["allocation=low_only"], "base"),
}
THRESHOLD = {"Ant": 3000.0, "Cartpole": 450.0}
POINTS = 8
EPISODES = 64
COLOURS = {"dual": "tab:blue", "high_only": "tab:orange", "low_only": "tab:green"}


def train(name: str, overrides: list[str]) -> Path:
    """Run train.py and return the run's folder; a finished run of the same name is used as it is."""
    finished = [folder for folder in Path("runs").glob(f"{name}_*") if (folder / "finished").is_file()]
    if finished:
        return finished[0]
    started = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "train.py"), f"experiment={name}", *overrides], check=True)
    (folder,) = (folder for folder in Path("runs").glob(f"{name}_*"))
    (folder / "finished").write_text(f"{time.monotonic() - started:.1f} s of wall time, start-up included\n")
    return folder


def evaluation(path: Path, policy_name: PolicyName) -> Evaluation:
    """A checkpoint's policy in its own E_high."""
    experiment, policy = load_policy(path)
    pool = experiment.make_pool(experiment.settings["simulator"]["high"], EPISODES, seed=10_000)
    result = evaluate(policy, pool, policy_name)
    pool.simulator.close()
    return result


def final_return(folder: Path) -> float:
    """Deterministic return in E_high of a run's last adapted policy."""
    return evaluation(folder / "nn" / "last.pth", "adapted").mean


def curve(folder: Path, policy_name: PolicyName) -> list[dict[str, float]]:
    """Deterministic return in E_high of evenly spaced checkpoints, and of the last one."""
    saved = sorted((folder / "nn").glob("iteration_*.pth"))
    chosen = [saved[len(saved) * k // POINTS] for k in range(POINTS)] if len(saved) > POINTS else saved
    points = []
    for path in [*dict.fromkeys(chosen), folder / "nn" / "last.pth"]:
        state = load_checkpoint(path)
        result = evaluation(path, policy_name)
        low, high = result.interval
        point = {"cost_seconds": state["cost_seconds"], "samples": state["samples"], "return": result.mean}
        points.append(point | {"low": low, "high": high, "episode_length": float(result.lengths.mean())})
    return points


def cost_to_reach(points: list[dict[str, float]], threshold: float) -> float | None:
    """Cost at which the curve first crosses the threshold, linear between its points."""
    previous = {"cost_seconds": 0.0, "return": 0.0}
    for point in points:
        if point["return"] >= threshold:
            rise = point["return"] - previous["return"]
            share = (threshold - previous["return"]) / rise if rise > 0 else 1.0
            return previous["cost_seconds"] + max(share, 0.0) * (point["cost_seconds"] - previous["cost_seconds"])
        previous = point
    return None


def plot(curves: dict[str, dict[str, list[dict[str, float]]]], task: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for method, seeds in curves.items():
        for k, points in enumerate(seeds.values()):
            cost, returns = [p["cost_seconds"] for p in points], [p["return"] for p in points]
            label = method.replace("_", "-") if k == 0 else None
            axes.plot(cost, returns, color=COLOURS[method], marker=".", alpha=0.8, label=label)
    axes.axhline(THRESHOLD[task], color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("measured cost: simulators and learner, s on 2 cores")
    axes.set_ylabel("deterministic return in E_high")
    axes.set_title(f"{task}: one line per seed")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=sorted(THRESHOLD), default="Ant")
    parser.add_argument("--cost", type=float, default=300.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    curves: dict[str, dict[str, Any]] = {method: {} for method in arguments.methods}
    folders = {}
    for seed in arguments.seeds:
        for method in arguments.methods:
            name = f"learning_{arguments.task}_{method}_seed{seed}_{arguments.cost:.0f}s"
            bounds = [f"max_cost={arguments.cost}", "max_iterations=100000"]
            overrides = [f"task={arguments.task}", f"seed={seed}", *bounds, *METHODS[method][0]]
            folders[method, seed] = train(name, overrides)
    for (method, seed), folder in folders.items():
        curves[method][str(seed)] = curve(folder, METHODS[method][1])
    stem = ROOT / "docs" / f"learning_{arguments.task.lower()}"
    stem.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")
    plot(curves, arguments.task, stem.with_suffix(".png"))
    threshold = THRESHOLD[arguments.task]
    print(f"\n{arguments.task}, {arguments.cost:.0f} s of measured cost, seeds {arguments.seeds}")
    print(f"| method | return in E_high, per seed | median | cost to {threshold:.0f}, per seed | M samples |")
    print("|---|---|---|---|---|")
    for method, seeds in curves.items():
        finals = [points[-1]["return"] for points in seeds.values()]
        reached = [cost_to_reach(points, threshold) for points in seeds.values()]
        samples = statistics.median(points[-1]["samples"] for points in seeds.values()) / 1e6
        returns = ", ".join(f"{value:.0f}" for value in finals)
        costs = ", ".join("not reached" if value is None else f"{value:.0f} s" for value in reached)
        print(f"| {method} | {returns} | {statistics.median(finals):.0f} | {costs} | {samples:.2f} |")


if __name__ == "__main__":
    main()
