"""What other work on the machine does to an iteration's cost, and to its time with one thread or all.

    python benchmarks/shared_machine.py [--busy 4] [--rounds 10] [task=Ant num_envs=512 …]

Two trainings have the same seed. One has one thread (learner and engines), the other as many as the process may use.
They take turns, iteration by iteration, first alone and then beside `--busy` processes that do nothing but compute.
There are two targets. With all threads the median iteration takes at most 1.5 of its time with one under the same load.
An iteration's CPU seconds beside the busy processes differ from those alone by less than 15 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence

WARMUP = 2


def serve(threads: int, overrides: Sequence[str]) -> None:
    """Train an iteration for each line of standard input, and print the seconds that it took."""
    from dualfid_robot.config.engines import compose_config, hydra_apart
    from dualfid_robot.config.experiment import Experiment
    from dualfid_robot.envs.stopwatch import CpuClock, WallClock
    from dualfid_robot.threads import set_threads
    from dualfid_robot.train.trainer import Trainer

    settings = ["simulator/low=mujoco_reduced", f"simulator.low.mujoco_reduced.threads={threads}"]
    settings += [f"simulator.high.threads={threads}", *overrides, "sim_device=cpu", "rl_device=cpu"]
    with hydra_apart():
        experiment = Experiment(compose_config(settings))
    set_threads(threads)
    trainer = Trainer(experiment)
    engines = [pool.simulator for pool in trainer.env.pools]
    clocks = {"wall": WallClock(), "cpu": CpuClock(*engines)}
    for _ in sys.stdin:
        started = {name: clock.now() for name, clock in clocks.items()}
        metrics = trainer.iterate()
        seconds = {name: clock.now() - started[name] for name, clock in clocks.items()}
        seconds["learner"], seconds["digest"] = metrics["seconds/learner"], metrics["policy_loss/high"]
        print(json.dumps(seconds), flush=True)


class Training:
    """A training in a process of its own."""

    def __init__(self, threads: int, overrides: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(threads), *overrides],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def iterate(self) -> dict[str, float]:
        """What one more iteration took."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


def medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def main() -> None:
    from dualfid_robot.threads import usable_cpus

    parser = argparse.ArgumentParser()
    parser.add_argument("--busy", type=int, default=4, help="processes that compute beside")
    parser.add_argument("--rounds", type=int, default=10, help="timed iterations of each, alone and beside")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", default=["num_envs=512"], help="settings of train.py")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve, ["train.params.config.minibatch_size=4096", *arguments.overrides])
        return
    counts = [1, usable_cpus()]
    trainings = [Training(count, arguments.overrides) for count in counts]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for load, busy in (("alone", 0), ("beside", arguments.busy)):
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            for current in range(WARMUP + arguments.rounds):
                for index, training in enumerate(trainings):
                    row = training.iterate()
                    if current >= WARMUP:
                        found.setdefault((load, index), []).append(row)
        finally:
            for process in others:
                process.kill()
                process.wait()
    for training in trainings:
        training.close()
    for (load, index), rows in found.items():
        row, slowest = medians(rows), max(row["wall"] for row in rows)
        print(
            f"{load:7s} {counts[index]} thread(s): iteration {row['wall']:7.3f} s (slowest {slowest:7.3f}), "
            f"learner {row['learner']:7.3f} s, CPU {row['cpu']:7.3f} s"
        )
    for load in ("alone", "beside"):
        one, all_threads = (medians(found[load, index]) for index in (0, 1))
        ratios = ", ".join(f"{name} {all_threads[name] / one[name]:.2f}" for name in ("wall", "learner", "cpu"))
        print(f"{load:7s} all threads / one: {ratios}")
    for index, count in enumerate(counts):
        alone, beside = (sum(row["cpu"] for row in found[load, index]) for load in ("alone", "beside"))
        print(f"CPU seconds beside / alone, {count} thread(s): {beside / alone:.3f}")
    same = all(
        a["digest"] == b["digest"]
        for load in ("alone", "beside")
        for a, b in zip(found[load, 0], found[load, 1], strict=True)
    )
    print(f"the same results to the bit with one thread and with all: {same}")


if __name__ == "__main__":
    main()
