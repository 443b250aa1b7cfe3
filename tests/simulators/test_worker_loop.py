"""What every engine's worker process does besides physics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dualfid_robot.simulators.workers import shared_memory
from dualfid_robot.simulators.workers.process import WorkerProcess

MODULE = """
from dualfid_robot.simulators.workers.loop import serve

class Idle:
    def step(self, n):
        pass

def main(memory, answer):
    serve(lambda spec, arrays: Idle(), memory, answer)
"""
LAYOUT = {"cpu_seconds": ((1,), "float64")}


@pytest.mark.parametrize("steps", [0, 2])
def test_a_worker_whose_run_was_killed_ends_in_silence(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """While it builds its worlds, or in a step."""
    (tmp_path / "idle_worker.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    worker = WorkerProcess("idle_worker", SimpleNamespace(layout=LAYOUT, worker=0), shared_memory.create(LAYOUT))
    for _ in range(steps):
        worker.await_ready()  # the answers to the start and to a step are one byte each
        worker.start_step(1)
    worker._answers.close()
    worker.start_step(1)
    assert worker.close() == 0
    assert capfd.readouterr().err == ""
