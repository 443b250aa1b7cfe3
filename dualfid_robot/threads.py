"""How many CPUs this process may use, and the threads that share out blocks of the learner's work.

Work is cut into blocks whose size does not depend on the number of threads. Each block's result has a place of its own.
So results are the same to the bit whatever the number of threads. On a busy machine no thread waits for another at
every step. A thread that gets its core takes the next block. One that does not holds up one block at most. Waiting
threads sleep.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


def usable_cpus(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPUs that this process may use: those of its affinity, at most its cgroups' quota, rounded up.

    Args:
        proc, cgroups: where the system tells.
    """
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(proc, cgroups))))


def _quota(proc: Path, cgroups: Path) -> float:
    """CPUs' worth of time that the process's control groups allow it, infinite without a bound."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    quota = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # a container may see its own group as the root, whatever path the line has: all of the path's parents are asked
        root = cgroups / controllers if controllers else cgroups
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts) + 1):
            quota = min(quota, _quota_of(root.joinpath(*parts[:depth])))
    return quota


def _quota_of(group: Path) -> float:
    """The bound of one control group, of version 2 or 1. It is infinite without one."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        if all((group / name).is_file() for name in names):
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return float(quota) / float(period)
    return math.inf


class _Job(Generic[Item]):
    """Items that several threads take from in turn."""

    def __init__(self, task: Callable[[int, Item], None], items: Sequence[Item]) -> None:
        self._task, self._items = task, items
        self._next = itertools.count()
        self._finished: SimpleQueue[BaseException | None] = SimpleQueue()

    def work(self, worker: int) -> None:
        """Do items until none is left."""
        while (index := next(self._next)) < len(self._items):
            try:
                self._task(worker, self._items[index])
            except BaseException as error:
                self._finished.put(error)
            else:
                self._finished.put(None)

    def wait(self) -> None:
        """Wait until all items are done. Raise what a task has raised."""
        errors = [self._finished.get() for _ in self._items]
        for error in errors:
            if error is not None:
                raise error


class Threads:
    """The calling thread and `count` − 1 others, which sleep until they are needed.

    Args:
        count: threads.
        begin: called by each of the others first.
    """

    def __init__(self, count: int, begin: Callable[[], object] = int) -> None:
        self.count = count
        self._jobs: list[SimpleQueue[_Job | None]] = [SimpleQueue() for _ in range(count - 1)]
        for worker, jobs in enumerate(self._jobs, start=1):
            threading.Thread(target=_serve, args=(worker, jobs, begin), daemon=True).start()

    def map(self, task: Callable[[int, Item], None], items: Sequence[Item]) -> None:
        """Call task(worker, item) once for every item. `worker`, in [0, count), tells threads apart.

        Raises:
            whatever a task has raised.
        """
        job = _Job(task, items)
        for jobs in self._jobs[: len(items) - 1]:
            jobs.put(job)
        job.work(0)
        job.wait()

    def close(self) -> None:
        """Let the other threads end."""
        for jobs in self._jobs:
            jobs.put(None)


def _serve(worker: int, jobs: SimpleQueue[_Job | None], begin: Callable[[], object]) -> None:
    begin()
    while (job := jobs.get()) is not None:
        job.work(worker)


_threads = Threads(1)


def set_threads(count: int) -> int:
    """Share out the learner's work on a CPU between so many threads, 0: as many as there are usable CPUs.

    Torch's own threads, which wait for each other after every operation, are set to one.

    Returns:
        How many there are now.
    """
    import torch  # here, as engines' workers import this module and must start fast

    global _threads
    torch.set_num_threads(1)
    _threads.close()
    _threads = Threads(count or usable_cpus(), lambda: torch.set_num_threads(1))
    return _threads.count


def threads() -> Threads:
    """The threads that `set_threads` made. Before that, they are the calling thread alone."""
    return _threads
