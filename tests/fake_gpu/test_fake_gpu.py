"""What a GPU computes stays on it: the tests of `cases.py`, in a process that has a GPU which does not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

CASES = Path(__file__).with_name("cases.py")


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot have a device that is written in Python",
)
@pytest.mark.slow
def test_an_iteration_waits_for_nothing_on_the_gpu() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--assert=plain",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        str(CASES),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:]
