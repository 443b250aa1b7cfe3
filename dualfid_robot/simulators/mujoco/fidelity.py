"""The settings of fidelity that every engine with a MuJoCo model has, and the model that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require_integer


@dataclass(frozen=True)
class MujocoFidelity:
    """Settings of an engine that steps a MuJoCo model.

    Attributes:
        substeps: physics steps in a control period.
        integrator, cone: MuJoCo's names.
        iterations: bound on the constraint solver's iterations; None keeps the asset's.
        contacts: "full", or "feet" for the reduced-contact variant.
    """

    substeps: int = 8
    integrator: Literal["Euler", "RK4", "implicit", "implicitfast"] = "implicitfast"
    cone: Literal["pyramidal", "elliptic"] = "elliptic"
    iterations: int | None = None
    contacts: Literal["full", "feet"] = "full"

    def __post_init__(self) -> None:
        require_integer("substeps", self.substeps, 1)
        if self.iterations is not None:
            require_integer("iterations", self.iterations, 1)

    def compile(self, robot: RobotModel, control_dt: float, contact_bodies: Sequence[str]) -> mujoco.MjModel:
        """The robot's model at this fidelity. See `RobotModel.compile`."""
        return robot.compile(
            control_dt / self.substeps, self.integrator, self.cone, self.iterations, self.contacts, contact_bodies
        )
