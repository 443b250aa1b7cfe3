"""train.py with a fault put into it, for endurance.py.

A fault is one of

    kill:NUMBER:STAGE   SIGKILL to itself inside the NUMBER-th replacement of a file. STAGE 0: half of the new file is
                        written; 1: all of it; 2: it has just taken the old one's place
    clock               the time of day jumps by up to a year, to and fro, at every look at it
    full:BYTES          no file may grow beyond so many bytes, as on a disk that is full
"""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Sequence

import forked

_YEAR = 365 * 86400.0


def train(fault: str, settings: Sequence[str]) -> None:
    """Put a fault in, if any, and train as `python train.py` does."""
    kind, _, details = fault.partition(":")
    if kind == "kill":
        number, _, stage = details.partition(":")
        kill_inside_replacement(int(number), int(stage))
    elif kind == "clock":
        jump(random.Random(0))
    elif kind == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(details), int(details)))
    forked.run_script("train.py", settings)


def kill_inside_replacement(number: int, stage: int) -> None:
    """Count `atomic.replaced` by what it calls: fsync once the new file is written, then replace."""
    fsync, replace, counted = os.fsync, os.replace, 0

    def counting_fsync(file: int) -> None:
        nonlocal counted
        counted += 1
        if counted == number and stage < 2:
            if stage == 0:
                path = f"/proc/self/fd/{file}"
                os.truncate(path, os.stat(path).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    def killing_replace(source: str, target: str) -> None:
        replace(source, target)
        if counted == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync, os.replace = counting_fsync, killing_replace  # type: ignore[assignment]


def jump(generator: random.Random) -> None:
    """Let `time.time` be anywhere within a year of the truth."""
    truth = time.time
    time.time = lambda: truth() + generator.uniform(-_YEAR, _YEAR)
