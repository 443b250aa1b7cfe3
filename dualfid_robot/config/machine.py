"""Where files are, and which simulators this machine has. Imports neither torch nor an engine."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONFIG_DIR, ASSETS = PACKAGE / "cfg", PACKAGE / "assets"
RUNS = Path("runs")  # in the present working directory
DEFAULT_LOW, FALLBACK_LOW = "pybullet", "mujoco_reduced"
DEFAULT_HIGH, DEFAULT_HIGH_ON_GPU = "mujoco", "mujoco_warp"


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
