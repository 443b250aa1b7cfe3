"""What the gym hands out for a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dualfid_robot.isaacgym.assets import Asset
from dualfid_robot.isaacgym.cameras import Cameras
from dualfid_robot.isaacgym.parameters import SimParams
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.simulation import Simulation
from dualfid_robot.isaacgym.tensors import Tensors


class Sim(Simulation):
    """The handle of a simulation: what is simulated, and its tensors."""

    def __init__(self, params: SimParams, device: torch.device) -> None:
        super().__init__(params, device)
        self.tensors = Tensors(self)
        self.cameras = Cameras(self)


def check_unbuilt(sim: Simulation, what: str) -> None:
    """Raise NotProvided once the engine is built: it knows its environments, actors and ground for good."""
    if sim.built:
        raise not_provided(f"{what} after the first step or refresh")


def no_tendons(asset: Asset, name: str) -> list[Any]:
    """Properties of an asset's tendons, if it has none: those who randomise whatever there is ask every actor.

    Raises:
        NotProvided: it has some.
    """
    if asset.model.ntendon:
        raise not_provided(name)
    return []


def find(names: Sequence[str], name: str) -> int:
    """Place of a name, or -1 (INVALID_HANDLE)."""
    return list(names).index(name) if name in names else -1
