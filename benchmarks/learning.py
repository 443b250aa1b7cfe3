"""Learning curves of dual, high-only and low-only training against measured total cost, in E_high, for every task.

    python benchmarks/learning.py --task Ant --cost 300 --seeds 1 2 3
    python benchmarks/learning.py --task Quadcopter --methods dual

Each run is `python train.py task=… seed=…` with default settings. The runs take turns, so each has the machine to
itself. High-only and low-only add `allocation=…`. A cost adds `max_cost=…` and takes away the bound on iterations. Then
checkpoints of each run are evaluated: the deterministic policy in the default high simulator, 64 complete episodes. The
deployed policy is evaluated: the adapted one, and low-only's base policy, which never saw the high simulator. Finished
runs are kept under runs/ and not repeated.

What counts is the task's figure of merit in the table `FIGURES` below. Writes docs/learning_<task>.json and
docs/learning_<task>.png and prints the tables of docs/performance.md and of README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate
from dualfid_robot.policies.actor_critic import PolicyName
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.saved_policy import load_policy

ROOT = Path(__file__).parents[1]

METHODS: dict[str, tuple[list[str], PolicyName]] = {
    "dual": ([], "adapted"),
    "high_only": (["allocation=high_only"], "adapted"),
    "low_only": (["allocation=low_only"], "base"),
}
POINTS = 8
EPISODES = 64
COLOURS = {"dual": "tab:blue", "high_only": "tab:orange", "low_only": "tab:green"}


@dataclass(frozen=True)
class Figure:
    """What a task is judged by.

    Attributes:
        name: "return", or one of `Task.measure`.
        target: bound that a trained policy shall reach.
        sense: whether it shall be at least or at most that.
        when: the mean over whole episodes, or the value in their last step. A curriculum needs many episodes, so what
            training last logged counts there.
        unit: behind the number.
    """

    name: str
    target: float
    sense: Literal["≥", "<"] = "≥"
    when: Literal["episode", "end", "training"] = "episode"
    unit: str = ""

    def reached(self, value: float) -> bool:
        return value >= self.target if self.sense == "≥" else value < self.target

    def of(self, result: Evaluation, metrics: dict[str, float], side: str) -> float:
        """Its value.

        Args:
            result: of a checkpoint's policy.
            metrics: logged when the checkpoint was written.
            side: the simulator whose metrics count.
        """
        if self.name == "return":
            return result.mean
        if self.when == "training":
            return metrics[f"measure_{self.name}/{side}"]
        return float((result.measures if self.when == "episode" else result.final_measures)[self.name].mean())

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')} {self.sense} {self.target:g} {self.unit}".rstrip()


FIGURES = {
    "Cartpole": Figure("return", 480.0),
    "Ant": Figure("return", 5000.0),
    "BallBalance": Figure("return", 400.0),  # 80% of the maximum: 500 steps, 1 at most in each
    "Quadcopter": Figure("position_error", 0.1, "<", "end", "m"),
    "Anymal": Figure("velocity_error", 0.25, "<", "episode", "m/s"),
    "Humanoid": Figure("return", 3000.0),
    "FrankaCabinet": Figure("opened", 0.8, "≥", "end"),
    "AnymalTerrain": Figure("terrain_level", 2.0, "≥", "training"),  # of 0 to 9; every robot begins at 0
}


def train(name: str, overrides: list[str]) -> Path:
    """Run train.py and return the run's folder. A finished run of the same name is used as it is."""
    finished = [folder for folder in Path("runs").glob(f"{name}_*") if (folder / "finished").is_file()]
    if finished:
        return finished[0]
    started = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "train.py"), f"experiment={name}", *overrides], check=True)
    folder = max(Path("runs").glob(f"{name}_*"), key=lambda path: path.stat().st_mtime)
    (folder / "finished").write_text(f"{time.monotonic() - started:.1f} s of wall time, start-up included\n")
    return folder


def evaluation(path: Path, policy_name: PolicyName) -> Evaluation:
    """A checkpoint's policy in its own E_high."""
    experiment, policy = load_policy(path)
    pool = experiment.make_pool(experiment.high_engine, EPISODES, seed=10_000)
    result = evaluate(policy_agent(policy, policy_name), pool)
    pool.simulator.close()
    return result


def final_return(folder: Path) -> float:
    """Deterministic return in E_high of a run's last adapted policy."""
    return evaluation(folder / "nn" / "last.pth", "adapted").mean


def curve(folder: Path, method: str, figure: Figure) -> list[dict[str, float]]:
    """Return and figure of merit in E_high of evenly spaced checkpoints, and of the last one."""
    saved = sorted((folder / "nn").glob("iteration_*.pth"))
    chosen = [saved[len(saved) * k // POINTS] for k in range(POINTS)] if len(saved) > POINTS else saved
    side = "low" if method == "low_only" else "high"
    points = []
    for path in [*dict.fromkeys(chosen), folder / "nn" / "last.pth"]:
        state = load_checkpoint(path)
        result = evaluation(path, METHODS[method][1])
        low, high = result.interval
        point = {"cost_seconds": state["cost_seconds"], "samples": state["samples"], "return": result.mean}
        point |= {"low": low, "high": high, "episode_length": float(result.lengths.mean())}
        points.append(point | {"figure": figure.of(result, state["metrics"], side)})
    return points


def cost_to_reach(points: list[dict[str, float]], figure: Figure) -> float | None:
    """Cost at which the curve first reaches the target, linear between its points. The start counts as worst."""
    previous = {"cost_seconds": 0.0, "figure": 0.0 if figure.sense == "≥" else math.inf}
    for point in points:
        if figure.reached(point["figure"]):
            change = point["figure"] - previous["figure"]
            share = (figure.target - previous["figure"]) / change if math.isfinite(change) and change != 0.0 else 1.0
            return previous["cost_seconds"] + max(share, 0.0) * (point["cost_seconds"] - previous["cost_seconds"])
        previous = point
    return None


def plot(curves: dict[str, dict[str, list[dict[str, float]]]], task: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for method, seeds in curves.items():
        for k, points in enumerate(seeds.values()):
            cost, values = [p["cost_seconds"] for p in points], [p["figure"] for p in points]
            label = method.replace("_", "-") if k == 0 else None
            axes.plot(cost, values, color=COLOURS[method], marker=".", alpha=0.8, label=label)
    axes.axhline(FIGURES[task].target, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xlabel("measured cost: simulators and learner, s")
    axes.set_ylabel(
        f"{FIGURES[task].name.replace('_', ' ')} {FIGURES[task].unit}".rstrip() + ", deterministic, in E_high"
    )
    axes.set_title(f"{task}: one line per seed")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def print_tables(curves: dict[str, dict[str, list[dict[str, float]]]], task: str, command: str) -> None:
    figure = FIGURES[task]
    print(f"\n| method | {figure}, per seed | median | cost to reach it, per seed | cost | M samples |")
    print("|---|---|---|---|---|---|")
    for method, seeds in curves.items():
        finals = [points[-1]["figure"] for points in seeds.values()]
        reached = [cost_to_reach(points, figure) for points in seeds.values()]
        cost, samples = (statistics.median(p[-1][key] for p in seeds.values()) for key in ("cost_seconds", "samples"))
        values = ", ".join(f"{value:.4g}" for value in finals)
        costs = ", ".join("not reached" if value is None else f"{value:.0f} s" for value in reached)
        median = statistics.median(finals)
        print(f"| {method} | {values} | {median:.4g} | {costs} | {cost:.0f} s | {samples / 1e6:.2f} |")
        if method == "dual":
            link = f"[curve](docs/learning_{task.lower()}.png)"
            row = f"| {task} | {figure} | {values} | {cost:.0f} s | {samples / 1e6:.2f} | {link} | `{command}` |"
    if "dual" in curves:
        print("\n| task | target | per seed | measured cost | M samples | | command |\n|---|---|---|---|---|---|---|")
        print(row)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=sorted(FIGURES), default="Ant")
    parser.add_argument("--cost", type=float, help="measured seconds of each run; else the task's own max_epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    bounds = [] if arguments.cost is None else [f"max_cost={arguments.cost}", "max_iterations=100000"]
    length = "default" if arguments.cost is None else f"{arguments.cost:.0f}s"
    folders = {}
    for seed in arguments.seeds:
        for method in arguments.methods:
            name = f"learning_{arguments.task}_{method}_seed{seed}_{length}"
            overrides = [f"task={arguments.task}", f"seed={seed}", *bounds, *METHODS[method][0]]
            folders[method, seed] = train(name, overrides)
    curves: dict[str, dict[str, Any]] = {method: {} for method in arguments.methods}
    for (method, seed), folder in folders.items():
        curves[method][str(seed)] = curve(folder, method, FIGURES[arguments.task])
    stem = ROOT / "docs" / f"learning_{arguments.task.lower()}"
    stem.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")
    plot(curves, arguments.task, stem.with_suffix(".png"))
    print_tables(curves, arguments.task, " ".join(["python", "benchmarks/learning.py", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
