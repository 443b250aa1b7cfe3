"""A worker process of an engine that does not run in this one, and the pipes to it."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys

CLEAN, STATE, RAW = 0, 1, 2
"""Values of the shared array `dirty`: the worker has the world's state; takes it from qpos, qvel; takes it from raw."""


class WorkerProcess:
    """A process that steps a share of an engine's worlds.

    It runs `main(memory, answer)` of a module. It reads a pickled spec from its standard input, then four bytes a step,
    the number of active worlds. It answers each with a byte. Everything else is in shared memory.
    """

    def __init__(self, module: str, spec: object, memory: int) -> None:
        """Start the process.

        Args:
            module: full name of the worker's module.
            spec: what the worker must know.
            memory: descriptor of the shared arrays.
        """
        self.spec = spec
        answers, answer = os.pipe()
        self._answers = os.fdopen(answers, "rb", buffering=0)
        # Not multiprocessing: its children import the parent's main module, and torch with it. A session of its own
        # keeps Ctrl-C from the worker; it ends when its standard input closes.
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {module} import main; main({memory}, {answer})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(memory, answer),
            env=os.environ
            | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        os.close(answer)
        assert self._process.stdin is not None
        self._requests = self._process.stdin
        pickle.dump(spec, self._requests)
        self._requests.flush()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def await_ready(self) -> None:
        """Wait until the worker has built its worlds.

        Raises:
            RuntimeError: it has ended instead; its traceback is on standard error.
        """
        if not self._answers.read(1):
            raise RuntimeError(f"an engine's worker process ended at its start, status {self._process.wait()}")

    def start_step(self, n: int) -> None:
        """Let it step its share of the first n worlds."""
        with contextlib.suppress(BrokenPipeError):  # it died between two steps; finish_step finds out
            os.write(self._requests.fileno(), n.to_bytes(4, "little"))

    def finish_step(self) -> bool:
        """Wait for the step's end; whether the worker lives."""
        return bool(self._answers.read(1))

    def close(self) -> int:
        """Let the process end; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        return self._process.wait()
