"""`isaacgym.gymapi.Gym`: every function of the gym that is provided. Others raise an error that names them.

Handles: a simulation is a `Sim`, an environment an `Environment`, an asset an `Asset`. An actor is its place in its
environment, a rigid body its place among all bodies of its environment.
"""

from __future__ import annotations

from typing import Any

from dualfid_robot.isaacgym.functions.actors import ActorFunctions
from dualfid_robot.isaacgym.functions.assets import AssetFunctions
from dualfid_robot.isaacgym.functions.drawing import DrawingFunctions
from dualfid_robot.isaacgym.functions.properties import PropertyFunctions
from dualfid_robot.isaacgym.functions.simulations import SimulationFunctions
from dualfid_robot.isaacgym.functions.states import StateFunctions
from dualfid_robot.isaacgym.session import not_provided


class Gym(SimulationFunctions, AssetFunctions, ActorFunctions, PropertyFunctions, StateFunctions, DrawingFunctions):
    """The functions of Isaac Gym."""

    def __getattr__(self, name: str) -> Any:
        raise not_provided(f"gym.{name}")


GYM = Gym()
