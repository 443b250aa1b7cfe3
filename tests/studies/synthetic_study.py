"""Writes a study's folder as study.py does, with runs whose true scores are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNTRAINED, REFERENCE = 10.0, 110.0  # returns: a score s is 10 + 100 s
MACHINE = {"platform": "Linux-x86_64", "processor": "toy", "cpus": 2, "versions": {"torch": "2.13"}}
LOW_FREE = ("high_only",)


def write_study(
    folder: Path,
    finals: Mapping[str, float],
    tasks: Sequence[str] = ("Ant", "Cartpole"),
    gaps: Sequence[tuple[str, str]] = (("reduced", "low"), ("friction_half", "high")),
    budget: float = 100.0,
    seeds: int = 5,
    noise: float = 0.05,
    references: int = 2,
    contrasts: Sequence[tuple[str, str]] = (),
    points: int = 11,
) -> None:
    """Runs whose score rises linearly from 0 at cost 0 to `finals[method]` (plus noise of each run) at the budget.

    Args:
        finals: true final score of each method.
        references: runs per task and target; 0 for none.
    """
    generator = np.random.default_rng(0)
    runs: list[dict[str, Any]] = []
    for task in tasks:
        for gap, changes in gaps:
            for method in finals:
                place = "-" if method in LOW_FREE and changes == "low" else gap
                runs += [_described(task, method, place, budget, seed) for seed in range(seeds)]
            place = "-" if changes == "low" else gap
            runs += [_described(task, "high_only", place, 4 * budget, seed, True) for seed in range(references)]
    runs = list({run["id"]: run for run in runs}.values())
    plan = {
        "name": "synthetic",
        "tasks": {task: {"gaps": [gap for gap, _ in gaps], "budgets": [budget], "overrides": []} for task in tasks},
        "methods": list(finals),
        "gaps": [{"name": gap, "changes": changes} for gap, changes in gaps],
        "budgets": [budget],
        "seeds": list(range(seeds)),
        "reference": {"method": "high_only", "factor": 4, "seeds": list(range(references))} if references else None,
        "evaluation": {"points": points, "episodes": 4},
        "contrasts": [list(pair) for pair in contrasts],
        "runs": runs,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    for run in runs:
        final = 1.0 if run["reference"] else finals[run["method"]] + noise * generator.normal()
        write_run(folder, run, final, points)


def write_run(folder: Path, run: dict[str, Any], final: float, points: int = 11) -> None:
    """A finished run, with its log of ρ."""
    own = folder / "runs" / run["id"]
    own.mkdir(parents=True, exist_ok=True)
    (own / "run.json").write_text(json.dumps({key: value for key, value in run.items() if key != "id"}))
    rho = 0.0 if run["method"] in LOW_FREE else 1.0 if run["method"] == "low_only" else 0.75
    curve = [
        {
            "cost_seconds": run["budget"] * share,
            "high_samples": int(1000 * run["budget"] * share * (1 - rho)),
            "low_samples": int(1000 * run["budget"] * share * rho),
            "iteration": int(100 * share),
            "return": UNTRAINED + (REFERENCE - UNTRAINED) * final * share,
            "returns": [],
            "episode_length": 100.0,
            "figure": {},
        }
        for share in np.linspace(0, 1, points).tolist()
    ]
    means = {
        **{"rho": rho, "divergence": 0.2, "cost_low": 1e-5, "cost_high": 1e-4, "cost_learner": 4e-5 * (1 + rho)},
        **{"seconds_low": 10.0 * rho, "seconds_high": 60.0 * (1 - rho), "seconds_learner": 30.0},
    }
    result = {
        **{"status": "finished", "error": None, "wall_seconds": 1.25 * run["budget"], "curve": curve, "means": means},
        "machine": MACHINE,
    }
    (own / "result.json").write_text(json.dumps(result))
    log = [{"iteration": i, "cost_seconds": run["budget"] * i / 20, "allocation/rho": rho} for i in range(1, 21)]
    (own / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def fail(folder: Path, run_id: str, error: str) -> None:
    """Turn a run into one that failed."""
    result = {"status": "failed", "error": error, "wall_seconds": 7.0, "curve": [], "means": {}, "machine": MACHINE}
    (folder / "runs" / run_id / "result.json").write_text(json.dumps(result))


def _described(task: str, method: str, gap: str, budget: float, seed: int, reference: bool = False) -> dict[str, Any]:
    name = f"{task}_{method}_{gap}_{budget:g}_{seed}" + ("_reference" if reference else "")
    return {
        **{"id": name, "task": task, "method": method, "gap": gap, "budget": budget, "seed": seed},
        **{"reference": reference, "overrides": []},
    }
