"""Where files are, what torch and MuJoCo read from the environment, and which simulators this machine has.

Imports neither torch nor an engine.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONFIG_DIR, ASSETS = PACKAGE / "cfg", PACKAGE / "assets"
RUNS = Path("runs")  # in the present working directory
DEFAULT_HIGH, DEFAULT_HIGH_ON_GPU = "mujoco", "mujoco_warp"
TWINS = {"mujoco_warp": "mujoco_warp_reduced"}  # cheap twin of E_high's engine
TWIN = "mujoco_reduced"  # of any other
OTHER_ENGINE = "pybullet"
OF_OTHER_ENGINE = {"share": 0.2}  # of E_low's rows: docs/performance.md


def set_environment() -> None:
    """Set what torch and MuJoCo read when they are imported. What the user has set stays."""
    # Between operations torch's threads spin for some ten microseconds and then sleep. The simulators need the same
    # cores: a learner that spins for long is ten times slower beside another process, one that sleeps at once takes
    # half as long again on a free machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    # Without a display only EGL can draw, and videos are all that is drawn.
    if sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def pybullet_is_installed() -> bool:
    return importlib.util.find_spec("pybullet") is not None


def gpu_is_usable() -> bool:
    """Whether the GPU's engine is installed and finds a GPU. The driver is asked: to import torch takes seconds."""
    if importlib.util.find_spec("mujoco_warp") is None or importlib.metadata.version("torch").endswith("+cpu"):
        return False
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
