"""Robot policies trained in two simulators at once."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualfid_robot.adapters.make import make_vec as make_vec

__version__ = "0.1.0"

# Set before torch is loaded. Between operations its threads shall spin for some ten microseconds and then sleep: the
# simulators' threads and workers need the same cores, and when another process takes one, a learner that spins for long
# slows down tenfold; one that sleeps at once takes half as long again on a free machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

# MuJoCo picks its OpenGL when it is imported. Without a display only EGL can draw, and videos are all that we draw.
if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")


def __getattr__(name: str) -> Any:
    """`make_vec` is loaded when it is first asked for: it needs torch, an engine and Gymnasium, this module none."""
    if name == "make_vec":
        from dualfid_robot.adapters.make import make_vec

        return make_vec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
