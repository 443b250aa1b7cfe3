"""Pace and inference time of the robot loops in real time. The simulated robot has a process of its own for each loop.

    python benchmarks/robot_loop.py runs/Ant_…/export --seconds 5

It builds the C++ loop with CMake. Period jitter is the difference of the time between two wake-ups from the control
period. Control jitter is the same between two controls sent, which also wait for the robot's states. A run that ends
early (the robot fell) counts as far as it came.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMES = ("inference_us", "period_jitter_us", "control_jitter_us")
PORT = 47800


def build(policy: Path, folder: Path) -> Path:
    """The C++ loop for a policy."""
    for arguments in (
        ["-S", str(ROOT / "deploy/cpp"), "-B", str(folder), f"-DPOLICY_DIR={policy}"],
        ["--build", str(folder)],
    ):
        subprocess.run(["cmake", *arguments], check=True, stdout=subprocess.DEVNULL)
    return folder / "robot_loop"


def run(loop: list[str], policy: Path, seconds: float, port: int) -> dict[str, Any]:
    """One run's summary."""
    play = [sys.executable, str(ROOT / "play.py"), f"policy={policy}", f"udp_port={port}"]
    with subprocess.Popen(play, stdout=subprocess.DEVNULL) as robot:
        options = ["--port", str(port), "--duration", str(seconds), "--wait", "60", "--max-missed", "1000000"]
        done = subprocess.run([*loop, *options, "--timeout", "5"], stdout=subprocess.PIPE, text=True, check=False)
        robot.wait()
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", type=lambda text: Path(text).resolve(), help="folder that export.py wrote")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loops = {
            "C++": [str(build(args.policy, Path(folder)))],
            "Python": [sys.executable, str(ROOT / "deploy/python/robot_loop.py"), str(args.policy)],
        }
        summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in loops}
        for i in range(args.rounds):
            for j, (name, loop) in enumerate(loops.items()):
                summaries[name].append(run(loop, args.policy, args.seconds, PORT + 2 * i + j))
    for name, found in summaries.items():
        counts = {key: sum(int(s[key]) for s in found) for key in ("steps", "missed_deadlines", "missing_states")}
        print(f"{name}: " + ", ".join(f"{value} {key.replace('_', ' ')}" for key, value in counts.items()))
        for key in TIMES:
            medians = [statistics.median(s[key][p] for s in found) for p in ("p50", "p99", "max")]
            print(f"  {key:18s} p50 {medians[0]:9.1f}  p99 {medians[1]:9.1f}  max {medians[2]:9.1f}")


if __name__ == "__main__":
    main()
