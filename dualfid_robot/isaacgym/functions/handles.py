"""What the gym hands out for a simulation."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dualfid_robot.isaacgym.cameras import Cameras
from dualfid_robot.isaacgym.parameters import SimParams
from dualfid_robot.isaacgym.simulation import Simulation
from dualfid_robot.isaacgym.tensors import Tensors


class Sim(Simulation):
    """The handle of a simulation: what is simulated, and its tensors."""

    def __init__(self, params: SimParams, device: torch.device) -> None:
        super().__init__(params, device)
        self.tensors = Tensors(self)
        self.cameras = Cameras(self)


def find(names: Sequence[str], name: str) -> int:
    """Place of a name, or -1 (INVALID_HANDLE)."""
    return list(names).index(name) if name in names else -1
