"""Everything that only a GPU can check, within ten minutes, without a network: `python benchmarks/gpu_check.py`.

    python benchmarks/gpu_check.py                     # on a machine with an NVIDIA GPU
    python benchmarks/gpu_check.py --rehearse          # the same code, small, on Warp's CPU device
    python benchmarks/gpu_check.py --parts stepping

Each part is a process of its own with a time limit. When one fails or runs out of time, the next one begins, and what
it had measured stays. After every part, figures go to gpu_check.json, and to gpu_check.md as tables for
docs/performance.md. It ends with status 1 if any part failed. Needs the extras `gpu`, `pybullet` and `test`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
IN_ALL = 590.0  # s


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        device: of the engine and the learner.
        worlds: numbers of worlds that are stepped.
        rounds: timed rounds of stepping, and timed iterations.
        settings: train.py's, of whole iterations.
        target: return in E_high that the Ant shall reach.
    """

    device: str
    worlds: tuple[int, ...]
    rounds: int
    settings: tuple[str, ...]
    target: float


FULL = Size(
    "cuda:0", (1024, 4096, 8192, 16384), 10, ("num_envs=8192", "train.params.config.minibatch_size=32768"), 3000.0
)
REHEARSAL = Size(
    *("cpu", (16, 32), 2),
    ("num_envs=32", "train.params.config.minibatch_size=256", "train.params.config.horizon_length=8"),
    -1000.0,
)

Figures = dict[str, Any]
Part = Callable[[Size], Iterator[Figures]]
"""Yields the figures so far, again whenever there are more."""


def tests(size: Size) -> Iterator[Figures]:
    """The suite's tests that need CUDA, last: what the other parts compile they need not."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "--no-header", "-p", "no:cacheprovider"]
    figures: Figures = {"passed": 0, "skipped": 0, "failed": []}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, _, outcome = line.partition(" ")
            if outcome.startswith(("FAILED", "ERROR")):
                figures["failed"].append(name)
            elif outcome.startswith(("PASSED", "SKIPPED")):
                figures[outcome.split()[0].lower()] += 1
            else:
                continue
            yield figures
    if process.returncode != 0:
        raise RuntimeError(f"pytest ended with status {process.returncode}: {figures['failed']}")


def stepping(size: Size) -> Iterator[Figures]:
    """Bare MuJoCo Warp and our pool, at several numbers of worlds, with the memory that they take."""
    import gpu_pool

    figures: Figures = {}
    for worlds in size.worlds:
        figures[str(worlds)] = gpu_pool.measure(gpu_pool.ant(), worlds, torch.device(size.device), size.rounds)
        yield figures


def iterations(size: Size) -> Iterator[Figures]:
    """Whole iterations by phase, with E_low on the same device and with PyBullet beside it."""
    import iteration

    figures: Figures = {}
    for low in ("mujoco_warp_reduced", "pybullet"):
        figures[low] = iteration.measure([*engines(size, low), *size.settings], size.rounds)
        yield figures


def learning(size: Size) -> Iterator[Figures]:
    """Train the Ant until its return in E_high is the target."""
    from dualfid_robot.config.engines import compose_config, hydra_apart
    from dualfid_robot.config.experiment import Experiment
    from dualfid_robot.train.trainer import Trainer

    with hydra_apart():
        experiment = Experiment(compose_config([*engines(size, "mujoco_warp_reduced"), *size.settings, "seed=1"]))
    trainer, started = Trainer(experiment), time.monotonic()
    curve: list[tuple[float, float]] = []
    while not curve or curve[-1][1] < size.target:
        metrics = trainer.iterate()
        if "return/high" in metrics:
            curve.append((round(time.monotonic() - started, 2), metrics["return/high"]))
            yield {"target": size.target, "iterations": metrics["iteration"], "seconds and returns": curve}
    trainer.close()


PARTS: dict[str, tuple[Part, float]] = {  # with limits in seconds; the last one may take what is left
    "stepping": (stepping, 150.0),
    "iterations": (iterations, 120.0),
    "learning": (learning, 170.0),
    "tests": (tests, IN_ALL),
}


def engines(size: Size, low: str) -> list[str]:
    """The Ant with MuJoCo Warp as E_high."""
    where = [f"sim_device={size.device}", f"rl_device={size.device}"]
    return ["task=Ant", "simulator/high=mujoco_warp", f"simulator/low={low}", *where]


def run_part(name: str, size: Size, path: Path) -> None:
    """Do one part in this process. The figures so far are in the file at any moment."""
    for figures in PARTS[name][0](size):
        beside = path.with_suffix(".partial")
        beside.write_text(json.dumps(figures))
        beside.replace(path)


def start_part(name: str, limit: float, rehearse: bool) -> Figures:
    """Do one part in a process of its own; its figures, with `seconds` and, where it failed, `error`."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "figures.json", Path(folder) / "log.txt"
        command = [sys.executable, __file__, "--part", name, "--json", str(path), *["--rehearse"] * rehearse]
        started = time.monotonic()
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, start_new_session=True)
            try:
                status = process.wait(limit)
                error = "" if status == 0 else f"status {status}: {log.read_text().strip()[-1500:]}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that it has started
                process.wait()
                error = f"not done within {limit:.0f} s"
        found: Figures = {"figures": json.loads(path.read_text()) if path.is_file() else {}}
        return found | {"seconds": round(time.monotonic() - started, 1)} | ({"error": error} if error else {})


def tables(results: Figures) -> str:
    """What docs/performance.md shows, in Markdown."""
    lines = [f"On {results['machine']}:", ""]
    parts = results["parts"]
    if found := parts.get("tests", {}).get("figures"):
        counts = f"{found['passed']} passed, {found['skipped']} skipped, {len(found['failed'])} failed"
        lines += [f"`pytest -m gpu`: {counts} {' '.join(found['failed'])}", ""]
    if found := parts.get("stepping", {}).get("figures"):
        lines += ["| Ants | bare physics steps/s | pool / bare | MB on the device |", "|---|---|---|---|"]
        for worlds, row in found.items():
            bare, ratio, memory = (row[key] for key in ("bare physics steps/s", "pool / bare", "MB of device memory"))
            lines.append(f"| {worlds} | {bare:,.0f} | {ratio:.3f} | {'' if memory is None else f'{memory:,.0f}'} |")
        lines.append("")
    if found := parts.get("iterations", {}).get("figures"):
        lines += [f"| seconds of an iteration | {' | '.join(found)} |", "|---|" + "---|" * len(found)]
        for key in next(iter(found.values())):
            row = [f"{column[key]:,.4f}" if key in column else "" for column in found.values()]
            lines.append(f"| {key} | {' | '.join(row)} |")
        lines.append("")
    if found := parts.get("learning", {}).get("figures"):
        seconds, value = found["seconds and returns"][-1]
        reached = "reached" if value >= found["target"] else "not reached"
        lines += [f"A return of {found['target']:g} was {reached}: {value:.0f} after {seconds:.0f} s.", ""]
    lines += [f"- {name}: {part['error'].splitlines()[-1]}" for name, part in parts.items() if "error" in part]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="small, on Warp's CPU device")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="file for the figures")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # how this program calls itself
    arguments = parser.parse_args()
    size = REHEARSAL if arguments.rehearse else FULL
    if arguments.part:
        return run_part(arguments.part, size, arguments.json)
    if not arguments.rehearse and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device; --rehearse does the same on Warp's CPU device")
    name = "Warp's CPU device" if arguments.rehearse else torch.cuda.get_device_name()
    results: Figures = {"machine": name, "torch": torch.__version__, "parts": {}}
    deadline = time.monotonic() + IN_ALL
    for part in arguments.parts:
        limit = min(PARTS[part][1], deadline - time.monotonic())
        results["parts"][part] = start_part(part, limit, arguments.rehearse)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
        arguments.json.with_suffix(".md").write_text(tables(results))
        done = results["parts"][part]
        print(f"{part}: {done['seconds']} s{': ' + done['error'] if 'error' in done else ''}", flush=True)
    print(tables(results))
    sys.exit(1 if any("error" in part for part in results["parts"].values()) else 0)


if __name__ == "__main__":
    main()
