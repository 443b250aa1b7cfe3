"""Nothing is lost: runs and workers that are killed, disks that fill, clocks that jump, and a long run's memory.

    python benchmarks/endurance.py                       # 200 kills, 50 workers, a soak of one hour: an hour in all
    python benchmarks/endurance.py --kills 20 --workers 6 --soak 300

1. Runs of each engine are killed with SIGKILL. Every fourth one is killed inside the replacement of a file, the others
   at random moments. After each kill every file must be whole. Each run is resumed until it ends. Its policies must
   then be those of an undisturbed run, to the bit. Its log must have every iteration once.
2. Worker processes of PyBullet and PhysX are killed. The run must go on to its end with every iteration.
3. A run meets a full disk. It is a small tmpfs where root can mount one, else a limit on the size of files. The run
   must end with one line and status 2, and leave no part of a file. Once there is space, it must end as an undisturbed
   run.
4. A run whose time of day jumps by up to a year must end as an undisturbed run.
5. A long run goes on beside all this. Its processes must need as much memory at its end as once it had started
   (Linux: resident set size).

It prints how many of each and what was lost, and ends with status 1 if that is anything.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import faulty_train
import forked
import torch
import yaml

from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.metrics import METRICS, read_metrics

ENGINES = {"mujoco_reduced": "mujoco", "mujoco_warp_reduced": "mujoco_warp", "physx": "sapien", "pybullet": "pybullet"}
SMALL = (
    *("task=Cartpole", "num_envs=16", "train.params.config.horizon_length=8", "train.params.config.minibatch_size=128"),
    *("train.params.network.mlp.units=[32,32]", "experiment=endurance"),
)
EVERY = 4  # one kill in so many is inside the replacement of a file
ITERATIONS, SAVE_EVERY = 12, 3
REPLACEMENTS = 2 + 2 * ITERATIONS // SAVE_EVERY  # of files in a run, at least
TIMEOUT = 600.0  # s
GROWTH = 1.1  # largest resident set size at the end of the soak, relative to that at its start
FULL = 2**20  # bytes of the disk that fills


@dataclass
class Tally:
    """What was done in one part, and what was lost.

    Attributes:
        counts: how many of each.
        losses: one line each.
        killed: processes that SIGKILL has ended.
    """

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    killed: int = 0

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def expect(self, condition: bool, loss: str) -> None:
        """Note a loss unless the condition holds."""
        if not condition:
            self.losses.append(loss)

    def line(self) -> str:
        counts = ", ".join(f"{number} {what}" for what, number in self.counts.items())
        return f"{self.name}: {counts}; lost: {'; '.join(self.losses) or 'nothing'}"


class Run:
    """One training run in a folder of its own, started and resumed as often as needed.

    Attributes:
        place: the present folder of its processes.
    """

    def __init__(self, place: Path, *settings: str) -> None:
        """Take a folder and the settings besides `SMALL`."""
        self.place, self.settings = place, settings
        place.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path | None:
        """The folder of the run that has a checkpoint. It is None before there is one."""
        found = sorted(self.place.glob("runs/*/nn/last.pth"))
        return found[0].parents[1] if found else None

    def start(self, fault: str = "") -> ForkServerProcess:
        """Start a process that begins the run, or goes on with it where there is a checkpoint."""
        resume = ["resume=True"] if self.folder else []
        settings = [*SMALL, *self.settings, *resume]
        return forked.start(faulty_train.train, (fault, settings), self.place, self.place / "log.txt")

    def end(self) -> int:
        """Let the run go to its end; the exit status."""
        return status_of(self.start())

    def last_words(self) -> str:
        """What its processes said last."""
        log = self.place / "log.txt"
        lines = log.read_text().splitlines() if log.is_file() else []
        return lines[-1] if lines else ""

    def check_whole(self, tally: Tally, when: str) -> None:
        """Every file that is there can be read."""
        for path in self.place.glob("runs/*/nn/[!.]*.pth"):
            try:
                load_checkpoint(path)
            except ValueError as error:
                tally.losses.append(f"{when}: {error}")
        for path in self.place.glob("runs/*/config*.yaml"):
            tally.expect(isinstance(yaml.safe_load(path.read_text()), dict), f"{when}: {path} is damaged")

    def check_ended_as(self, reference: Run, tally: Tally, when: str) -> None:
        """Every iteration is logged once, no part of a file is left, and the policy has the reference's bits."""
        folder, whole = self.folder, reference.folder
        assert folder is not None and whole is not None
        iterations = [row["iteration"] for row in read_metrics(folder / METRICS)]
        tally.expect(iterations == list(range(1, ITERATIONS + 1)), f"{when}: logged are iterations {iterations}")
        partial = [path.name for path in folder.rglob(".*.partial.*")]
        tally.expect(not partial, f"{when}: {partial} were left")
        expected, found = (load_checkpoint(path / "nn" / "last.pth")["policy"] for path in (whole, folder))
        same = all(torch.equal(value, found[name]) for name, value in expected.items())
        tally.expect(same, f"{when}: the policy differs from that of an undisturbed run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="runs to kill, in all engines together")
    parser.add_argument("--workers", type=int, default=50, help="worker processes to kill")
    parser.add_argument("--soak", type=float, default=3600.0, help="s; 0: none")
    parser.add_argument("--engines", nargs="+", default=usable_engines(), help="low simulators; the last one's soaks")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="endurance") as name, ThreadPoolExecutor(1) as beside:
        place = Path(name)
        soaked = beside.submit(soak, place, arguments.engines[-1], arguments.soak) if arguments.soak else None
        tallies = [*kill_runs(place, arguments.engines, arguments.kills, generator)]
        tallies += kill_workers(place, arguments.engines, arguments.workers, generator)
        reference = Run(place / "mujoco_reduced" / "whole", *settings_of("mujoco_reduced"))
        if reference.folder is None:
            reference.end()
        tallies += [fill_disk(place, reference), jump_clock(place, reference)]
        if soaked is not None:
            tallies.append(soaked.result())
    print("\nIn all:")
    for tally in tallies:
        print(tally.line())
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(tally) for tally in tallies], indent=1) + "\n")
    sys.exit(1 if any(tally.losses for tally in tallies) else 0)


def status_of(process: ForkServerProcess) -> int:
    """The exit status of a process once it has ended, -9 after SIGKILL.

    Raises:
        TimeoutError: it goes on.
    """
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"a run went on for {TIMEOUT:.0f} s")
    return process.exitcode


def usable_engines() -> list[str]:
    """Those whose packages are installed here."""
    return [engine for engine, package in ENGINES.items() if importlib.util.find_spec(package)]


def settings_of(engine: str) -> tuple[str, ...]:
    """Settings of a short run that saves often."""
    return (
        f"simulator/low={engine}",
        f"max_iterations={ITERATIONS}",
        f"train.params.config.save_frequency={SAVE_EVERY}",
        "train.params.config.save_best_after=3",
    )


# --- 1: runs that are killed -----------------------------------------------------------------------------------------


def kill_runs(place: Path, engines: Sequence[str], kills: int, generator: random.Random) -> list[Tally]:
    """As many runs in each engine as it takes for its share of the kills."""
    tallies = []
    for number, engine in enumerate(engines):
        share = kills // len(engines) + (number < kills % len(engines))
        tally, whole = Tally(f"runs with {engine}"), Run(place / engine / "whole", *settings_of(engine))
        tally.expect(whole.end() == 0, f"the undisturbed run failed: {whole.last_words()}")
        runs = 0
        while tally.killed < share and not tally.losses:
            run = Run(place / engine / f"run{runs}", *settings_of(engine))
            for _ in range(min(generator.randint(1, 3), share - tally.killed)):
                kill_once(run, tally, generator)
            status = run.end()
            tally.expect(status == 0, f"run {runs}: status {status}: {run.last_words()}")
            if status == 0:
                run.check_ended_as(whole, tally, f"run {runs}")
            tally.count("resumed and ended as if undisturbed")
            runs += 1
        print(tally.line(), flush=True)
        tallies.append(tally)
    return tallies


def kill_once(run: Run, tally: Tally, generator: random.Random) -> None:
    """Start the run or go on with it. Kill it inside a replacement, or after a random number of iterations."""
    if tally.killed % EVERY == 0:
        stage = generator.randrange(3)
        process = run.start(f"kill:{generator.randint(1, REPLACEMENTS)}:{stage}")
        status = status_of(process)
        what = ("killed with half a file", "killed with a whole file", "killed once the file was in its place")[stage]
    else:
        before = logged(run)
        process, lines = run.start(), generator.randint(min(before, ITERATIONS), ITERATIONS)
        if lines > before:
            wait_for_log(run, process, lines)
        time.sleep(generator.uniform(0.0, 0.1 if lines > before else 3.0))
        workers = children_of(process.pid)
        process.kill()
        status, what = status_of(process), "killed at a random moment"
        tally.expect(all_end(workers), "workers went on without their run")
    tally.expect(status in (-signal.SIGKILL, 0), f"status {status}: {run.last_words()}")
    tally.count(what if status else "had ended before")
    tally.killed += status != 0
    run.check_whole(tally, what)


def children_of(pid: int | None) -> list[int]:
    """Ids of the processes that a process has started (Linux)."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(text) for text in path.read_text().split()] if path.is_file() else []


def all_end(pids: Sequence[int]) -> bool:
    """Whether processes end by themselves within ten seconds."""
    deadline = time.monotonic() + 10.0
    while any(Path(f"/proc/{pid}/cmdline").is_file() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# --- 2: workers that are killed --------------------------------------------------------------------------------------


def kill_workers(place: Path, engines: Sequence[str], kills: int, generator: random.Random) -> list[Tally]:
    """Kill workers of runs, one at a time, about a second apart."""
    tallies = []
    affected = [engine for engine in engines if engine in ("pybullet", "physx")]
    for number, engine in enumerate(affected):
        share = kills // len(affected) + (number < kills % len(affected))
        tally = Tally(f"workers of {engine}")
        settings = (f"simulator/low={engine}", "max_iterations=100000", "train.params.config.save_frequency=1000")
        run = Run(place / f"{engine}_workers", *settings)
        process = run.start()
        wait_for_log(run, process, 2)
        for _ in range(share):
            workers = children_of(process.pid)
            if process.exitcode is not None or not workers:
                break
            os.kill(generator.choice(workers), signal.SIGKILL)
            tally.count("killed")
            tally.killed += 1
            wait_for_log(run, process, logged(run) + 2)
            time.sleep(generator.uniform(0.0, 1.0))
        process.terminate()
        status = status_of(process)
        tally.expect(status == 0, f"the run ended with status {status}: {run.last_words()}")
        iterations = [row["iteration"] for path in run.place.glob(f"runs/*/{METRICS}") for row in read_metrics(path)]
        complete = bool(iterations) and iterations == list(range(1, len(iterations) + 1))
        tally.expect(complete, f"iterations are missing among the {len(iterations)} that are logged")
        restarts = (run.place / "log.txt").read_text().count("it is started again")
        tally.expect(restarts == share, f"{restarts} workers were started again after {share} kills")
        print(tally.line(), flush=True)
        tallies.append(tally)
    return tallies


def wait_for_log(run: Run, process: ForkServerProcess, lines: int) -> None:
    """Wait until the run has logged so many iterations or has ended."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.exitcode is None and logged(run) < lines:
        time.sleep(0.02)


def logged(run: Run) -> int:
    """How many iterations the run's log has."""
    return sum(path.read_bytes().count(b"\n") for path in run.place.glob(f"runs/*/{METRICS}"))


# --- 3, 4: a disk that fills, a clock that jumps ----------------------------------------------------------------------


def fill_disk(place: Path, reference: Run) -> Tally:
    """Let a run end on a full disk, and go on once there is space."""
    tally, disk = Tally("a full disk"), place / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={FULL}", "tmpfs", str(disk)]
    mounted = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
    try:
        run = Run(disk / "run" if mounted else place / "limited", *reference.settings)
        log = run.place / "log.txt"
        if mounted:
            log.symlink_to(place / "disk.log")  # what the process says needs space elsewhere
        status = status_of(run.start("" if mounted else f"full:{FULL // 16}"))
        tally.count("run on a tmpfs of 1 MiB" if mounted else "run with a limit on its files")
        errors = [line for line in log.read_text().splitlines() if not line.startswith(("INFO", "WARNING"))]
        tally.expect(status == 2, f"status {status} instead of 2")
        tally.expect(len(errors) == 1 and errors[0].startswith("error: "), f"it said {errors}")
        tally.expect(not list(run.place.rglob(".*.partial.*")), "parts of files were left")
        run.check_whole(tally, "on the full disk")
        if mounted:
            subprocess.run(["mount", "-o", f"remount,size={64 * FULL}", str(disk)], check=True)
        tally.expect(run.end() == 0, f"it did not go on: {run.last_words()}")
        if not tally.losses:
            run.check_ended_as(reference, tally, "after the full disk")
            tally.count("resumed and ended")
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)
    print(tally.line(), flush=True)
    return tally


def jump_clock(place: Path, reference: Run) -> Tally:
    """Let a run see another time of day whenever it looks."""
    tally, run = Tally("a clock that jumps"), Run(place / "clock", *reference.settings)
    status = status_of(run.start("clock"))
    tally.count("run")
    tally.expect(status == 0, f"status {status}: {run.last_words()}")
    if status == 0:
        run.check_ended_as(reference, tally, "with a clock that jumps")
    print(tally.line(), flush=True)
    return tally


# --- 5: a soak -------------------------------------------------------------------------------------------------------


def soak(place: Path, engine: str, seconds: float) -> Tally:
    """Train for long; the resident memory of every process a tenth after its start and at the end."""
    tally = Tally(f"a soak of {seconds:.0f} s with {engine}")
    run = Run(place / "soak", f"simulator/low={engine}", "max_iterations=100000000")
    process = run.start()
    wait_for_log(run, process, 2)
    time.sleep(0.1 * seconds)
    before = megabytes_of(process)
    time.sleep(0.9 * seconds)
    after = megabytes_of(process)
    process.terminate()
    status = status_of(process)
    tally.expect(status == 0, f"status {status}: {run.last_words()}")
    tally.expect(before.keys() == after.keys(), "processes were replaced")
    folder = run.folder
    tally.counts["iterations"] = len(read_metrics(folder / METRICS)) if folder else 0
    for number, pid in enumerate(before.keys() & after.keys()):
        name = "main process" if pid == process.pid else f"worker {number}"
        print(f"  {name}: {before[pid]:.1f} MB, at the end {after[pid]:.1f} MB")
        tally.counts[f"MB at the start, {name}"] = round(before[pid])
        tally.counts[f"MB at the end, {name}"] = round(after[pid])
        tally.expect(after[pid] <= GROWTH * before[pid], f"{name} grew from {before[pid]:.1f} to {after[pid]:.1f} MB")
    print(tally.line(), flush=True)
    return tally


def megabytes_of(process: ForkServerProcess) -> dict[int, float]:
    """Resident set size of a process and of its workers, MB, by process id."""
    page = os.sysconf("SC_PAGE_SIZE") / 1e6
    pids = [pid for pid in (process.pid, *children_of(process.pid)) if pid is not None]
    return {pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids}


if __name__ == "__main__":
    main()
