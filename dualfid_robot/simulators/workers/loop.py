"""What every engine's worker process does besides physics. It imports neither torch nor MuJoCo."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from dualfid_robot.simulators.workers import shared_memory


class Worker(Protocol):
    """A share of an engine's worlds."""

    def step(self, n: int) -> None:
        """Advance those of its worlds that are among the first n of all by one control period."""


def serve(make: Callable[[Any, dict[str, np.ndarray]], Worker], memory: int, answer: int) -> None:
    """Serve until standard input is closed, or nobody reads the answers any more.

    Args:
        make: builds the worker from its spec, which has a `layout`, and the shared arrays.
        memory: descriptor of the shared arrays, of which `cpu_seconds` gets the CPU time of the worker's steps.
        answer: descriptor to which one byte is written when the worker is ready, and after each step.
    """
    gc.disable()  # nothing here makes cycles, and a collection in the step loop costs as much as a robot's step
    spec = pickle.load(sys.stdin.buffer)
    arrays = shared_memory.attach(memory, spec.layout)
    worker, cpu_seconds = make(spec, arrays), arrays["cpu_seconds"]
    built = time.process_time()
    with contextlib.suppress(BrokenPipeError):  # the run was killed
        os.write(answer, b"r")
        while request := os.read(0, 4):
            worker.step(int.from_bytes(request, "little"))
            cpu_seconds[spec.worker] = time.process_time() - built
            os.write(answer, b"s")


def of_joints(values: np.ndarray, joints: int) -> np.ndarray:
    """The joints' part of a parameter, float64 (n, joints, …), whose values (n, …) begin with those of a free root."""
    return values[:, values.shape[1] - joints :].astype(np.float64)


def rotation_matrices(quat: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4), (w, x, y, z)."""
    w, x, y, z = quat.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
