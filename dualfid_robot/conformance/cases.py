"""The engines that are measured, and what is particular to each: bounds of its residuals, and what it refuses."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from dualfid_robot.conformance.robots import DT
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import make_simulator

BITWISE = "to the bit"

BOUNDS: dict[str, float] = {
    # A float32 near 3 m or 3 m/s has steps of 2.4e-7; a turn of the base moves velocities by a few of them.
    "state round trip": 5e-6,
    # A first-order integrator at 480 Hz is off by g h / 2 = 1.02 cm after a second, and by a little for the tumbling.
    "free fall": 0.0115,
    # First order too: 6 rad/s at 480 Hz are 0.0125 rad a step.
    "angular momentum": 0.015,
    "pendulum period": 2e-3,
    "pendulum amplitude": 0.01,
    "actuator gear and sign": 1e-4,
    "position actuator": 0.02,
    "stiff servo": 1e-3,
    # First order in the physics step: kv h / 2m = 0.42%, times 1/e.
    "velocity actuator": 5e-3,
    "actuator limits": 5e-3,
    "DC motor": 5e-3,
    "actuator delay": 1e-5,
    "thrust on sites": 1e-5,
    # MuJoCo's limits are soft; its default constraint gives way by some hundredths of a radian under full torque.
    "joint limits": 0.1,
    "joint limits, impact": 0.35,
    "resting height": 0.002,
    "penetration": 0.006,
    "contact force": 0.02,
    "contact impulse": 0.02,
    "friction": 0.03,
    "order in the file": 1e-4,
    "states of bodies": 2e-5,
    "Jacobians": 1e-6,
    "mass matrices": 1e-6,
    "external forces": 1e-5,
    "forces of actuators": 1e-6,
    "parameter: friction": 0.03,
    "parameter: mass": 1e-4,
    "parameter: com": 1e-4,
    "parameter: com, free fall": 0.0115,
    "parameter: damping": 2e-3,
    "parameter: damping of each joint": 2e-3,
    # First order at 1 kHz: half of the step times the fastest frequency, 9 rad/s.
    "parameter: stiffness of each joint": 5e-3,
    "parameter: limits of each joint": 0.1,
    "parameter: friction of each geom": 0.03,
    "parameter: motor strength": 1e-4,
    "parameter: servo stiffness": 0.03,
    "parameter: servo damping": 0.03,
    "parameter: gravity": 1e-4,
    # To the bit, where an engine's notes below say nothing else.
    "parameters stay in their worlds": 0.0,
    "subset stepping": 0.0,
    "waiting worlds go on": 0.0,
    "reset of a subset": 0.0,
    "non-finite isolation": 0.0,
    "snapshot": 0.0,
    "determinism": 0.0,
}
"""Largest residual of each property, for an engine that says nothing else."""


@dataclass(frozen=True)
class Engine:
    """An engine at one fidelity.

    Attributes:
        settings: as `make_simulator` takes them.
        package: what must be installed.
        device: where its tensors are.
        determinism: how exactly a run repeats itself.
        bounds: where its residuals may be larger than `BOUNDS` says.
        refuses: properties and robots of others that it refuses, and what its error names.
    """

    settings: Mapping[str, Any]
    package: str
    device: str = "cpu"
    determinism: str = BITWISE
    bounds: Mapping[str, float] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why it cannot run here, if it cannot."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            return "PyTorch sees no CUDA device"
        return None

    def bound(self, name: str) -> float:
        return self.bounds.get(name, BOUNDS[name])

    def build(
        self, robot: RobotModel, n: int, dt: float = DT, bodies: tuple[str, ...] = (), **settings: Any
    ) -> Simulator:
        return make_simulator({**self.settings, **settings}, robot, n, dt, bodies, self.device)


# At 120 Hz instead of 480 Hz, errors of first order are four times as large.
_AT_120_HZ = {
    "free fall": 0.046,
    "angular momentum": 0.06,
    "pendulum period": 8e-3,
    "pendulum amplitude": 0.04,
    "position actuator": 0.03,
    "velocity actuator": 0.02,
    "actuator limits": 0.02,
    "DC motor": 0.02,
    "parameter: com, free fall": 0.046,
    "parameter: servo stiffness": 0.06,
    "parameter: servo damping": 0.06,
    "parameter: damping": 8e-3,
    "parameter: damping of each joint": 8e-3,
    # The shortest stopping distance is 0.25 m, and the sled goes 1.7 cm a step at first.
    "friction": 0.05,
    "parameter: friction": 0.05,
    "parameter: friction of each geom": 0.05,
}

# What only MuJoCo's own batch tells and takes so far.
_NO_READINGS = {
    "states of bodies": "states of bodies: not provided",
    "Jacobians": "Jacobians: not provided",
    "mass matrices": "mass matrices: not provided",
    "external forces": "external forces: not provided",
    "forces of actuators": "forces of actuators: not provided",
}

# On CUDA the order in which threads append contacts changes from run to run, and with it the last digits of sums; some
# hundred physics steps of Ants in contact magnify them. To be measured on a GPU.
_ON_CUDA = dict.fromkeys(
    (
        "parameters stay in their worlds",
        "subset stepping",
        "waiting worlds go on",
        "reset of a subset",
        "non-finite isolation",
        "snapshot",
        "determinism",
    ),
    1e-3,
)

CASES: dict[str, Engine] = {
    "mujoco": Engine({"engine": "mujoco"}, "mujoco"),
    "mujoco_reduced": Engine(
        {"engine": "mujoco", "substeps": 2, "cone": "pyramidal", "iterations": 10, "contacts": "feet"},
        "mujoco",
        bounds=_AT_120_HZ,
    ),
    "mujoco_warp": Engine({"engine": "mujoco_warp"}, "mujoco_warp", refuses=_NO_READINGS),
    "mujoco_warp_cuda": Engine(
        {"engine": "mujoco_warp"},
        "mujoco_warp",
        device="cuda:0",
        determinism="to rounding",
        bounds=_ON_CUDA,
        refuses=_NO_READINGS,
    ),
    "pybullet": Engine(
        {"engine": "pybullet", "workers": 2, "robots_per_client": 4},
        "pybullet",
        bounds=_AT_120_HZ
        | {
            # Feet are springs of 1000 N/m: a quarter of the sled's weight presses each by 4.9 mm.
            "resting height": 0.0055,
            # Bullet's state cannot be read to the last bit, and a world that has waited is put back from what was read.
            "waiting worlds go on": 1e-4,
        },
        refuses=_NO_READINGS
        | {
            "thrust on sites": "actuator left: a transmission to a site",
            "actuators with a state": "actuator inductive: an actuator with a state of its own",
        },
    ),
    "physx": Engine(
        {"engine": "physx", "workers": 2},
        "sapien",
        bounds=_AT_120_HZ
        | {
            # Gauss-Seidel over the joints' limits and drives: their order matters until it has converged. 0.011 at the
            # default of four iterations, 0.0002 at 128.
            "order in the file": 0.02,
        },
        refuses=_NO_READINGS
        | {
            "actuators with a state": "actuator inductive: an actuator with a state of its own",
            "thrust on sites": "actuator left: a transmission to a site",
            "hopper": "geoms floor, torso_geom: their friction",
        },
    ),
}

ENGINES: dict[str, Mapping[str, Any]] = {name: case.settings for name, case in CASES.items()}
"""Settings alone."""
