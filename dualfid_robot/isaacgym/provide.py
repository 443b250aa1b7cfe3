"""Makes `import isaacgym` mean the modules of `dualfid_robot.isaacgym.api`, in this process alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import numpy as np

from dualfid_robot.errors import ConfigError

MODULES = ("gymapi", "gymtorch", "gymutil", "torch_utils", "terrain_utils")
_API = "dualfid_robot.isaacgym.api"

# Names that NumPy 1 had and that task code of its time uses.
_NUMPY_1 = {"Inf": np.inf, "int": int, "float": float, "object": object}


def provide(replace: bool = False) -> None:
    """Register the modules, and the names that NumPy 2 no longer has.

    Args:
        replace: whether to stand in for NVIDIA's own package where that is installed.

    Raises:
        ConfigError: NVIDIA's package is installed and shall not be replaced.
    """
    if "isaacgym" not in sys.modules and not replace:
        installed = importlib.util.find_spec("isaacgym")
        if installed is not None:
            raise ConfigError(
                f"NVIDIA's isaacgym is installed ({installed.origin}): start the script without this launcher, or "
                "pass --replace to run it on an engine of this project"
            )
    sys.modules["isaacgym"] = importlib.import_module(_API)
    for name in MODULES:
        sys.modules[f"isaacgym.{name}"] = importlib.import_module(f"{_API}.{name}")
    for name, value in _NUMPY_1.items():
        if name not in np.__dict__:
            setattr(np, name, value)
