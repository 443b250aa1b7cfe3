"""PhysX 5 through SAPIEN 3, on the CPU in worker processes: the physics family of Isaac Gym."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor

from dualfid_robot.robots.features import COMPUTING
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require, require_integer, require_number
from dualfid_robot.simulators.base import PARAMETERS, STATE_BOUND
from dualfid_robot.simulators.physx.model import make_articulation, make_contact_table
from dualfid_robot.simulators.physx.protocol import Spec
from dualfid_robot.simulators.workers.process import STATE
from dualfid_robot.simulators.workers.process_simulator import ProcessSimulator
from dualfid_robot.threads import usable_cpus

_LACKING = ("geom_friction",)  # PhysX takes the mean of two frictions where MuJoCo takes the greater
_OF_ACTUATORS = ("motor_strength", "servo_stiffness", "servo_damping")


class PhysxSimulator(ProcessSimulator):
    """Worlds in PhysX scenes in worker processes. Worlds do not depend on each other or on the number of workers."""

    WORKER: ClassVar[str] = f"{__package__}.worker"
    PACKAGES: ClassVar[tuple[str, ...]] = ("sapien",)
    INSTALL: ClassVar[str] = 'pip install "dualfid_robot[physx]"'
    HONOURS: ClassVar[frozenset[str]] = COMPUTING | {
        *("flag contact", "flag gravity", "delayed sensor", "margin of limits", "armature of a slide"),
    }
    SUPPORTED_PARAMETERS: ClassVar[tuple[str, ...]] = tuple(name for name in PARAMETERS if name not in _LACKING)
    SNAPSHOT: ClassVar[tuple[str, ...]] = (*ProcessSimulator.SNAPSHOT, *SUPPORTED_PARAMETERS)

    @dataclass(frozen=True)
    class Config:
        """Settings of the engine. The defaults are those of Isaac Gym's Ant.

        Attributes:
            substeps: physics steps in a control period.
            solver: "tgs" (temporal Gauss-Seidel) or "pgs" (projected Gauss-Seidel).
            position_iterations, velocity_iterations: of that solver, in a physics step.
            contact_offset: distance from each shape at which contacts are made, m; a pair's add up.
            rest_offset: distance that each shape keeps from others, m; a pair's add up, and to the asset's margins.
            max_depenetration_velocity: bound on the velocity by which penetration is undone, m/s.
            friction: factor on the asset's friction.
            contacts: "full", or "feet" for the reduced-contact variant.
            workers: processes; 0 takes all CPUs.
        """

        substeps: int = 2
        solver: Literal["tgs", "pgs"] = "tgs"
        position_iterations: int = 4
        velocity_iterations: int = 0
        contact_offset: float = 0.02
        rest_offset: float = 0.0
        max_depenetration_velocity: float = 10.0
        friction: float = 1.0
        contacts: Literal["full", "feet"] = "full"
        workers: int = 0

        def __post_init__(self) -> None:
            for key, least in (("substeps", 1), ("workers", 0)):
                require_integer(key, getattr(self, key), least)
            for key, least in (("position_iterations", 1), ("velocity_iterations", 0)):
                require_integer(key, getattr(self, key), least, 255)
            for key in ("friction", "rest_offset"):
                require_number(key, getattr(self, key), 0.0, math.inf)
            require_number("max_depenetration_velocity", self.max_depenetration_velocity, 0.0, math.inf, open_low=True)
            above = self.contact_offset > self.rest_offset
            require(above, "contact_offset", self.contact_offset, f"above rest_offset={self.rest_offset}")

    config: Config

    def _build(self) -> None:
        spec = self._spec(min(self.config.workers or usable_cpus(), self.num_worlds))
        self._launch([replace(spec, worker=worker) for worker in range(spec.workers)])

    @classmethod
    def check_robot(cls, robot: RobotModel, contact_bodies: Sequence[str] = ()) -> None:
        super().check_robot(robot, contact_bodies)
        config = cls.Config()
        offsets = config.friction, config.rest_offset, config.contact_offset
        make_contact_table(robot.model, make_articulation(robot.model, robot.path.name, *offsets), contact_bodies)

    def _spec(self, workers: int) -> Spec:
        robot, config = self.robot, self.config
        model = robot.compile(
            self.control_dt / config.substeps, contacts=config.contacts, contact_bodies=self.contact_bodies
        )
        articulation = make_articulation(
            model, robot.path.name, config.friction, config.rest_offset, config.contact_offset
        )
        joints = sum(link.joint is not None for link in articulation.links)
        drives = replace(self._drives(model, config.substeps, 0.0), stiffness=np.zeros(joints))
        table = make_contact_table(model, articulation, self.contact_bodies)
        return Spec(
            articulation=articulation,
            drives=drives,
            joint_zero=model.qpos0[model.nq - joints :].copy(),
            contact_table=table,
            contact_links=tuple(dict.fromkeys(link for link, _ in table)),
            bound=STATE_BOUND,
            initial=(model.qpos0.copy(), np.zeros(model.nv)),
            control_dt=self.control_dt,
            substeps=config.substeps,
            solver=config.solver,
            position_iterations=config.position_iterations,
            velocity_iterations=config.velocity_iterations,
            max_depenetration_velocity=config.max_depenetration_velocity,
            workers=workers,
            worker=0,
            # "changed": a scene must be made anew for its parameters
            layout=self._layout("f4", drives),
        )

    def _initialize(self, arrays: dict[str, np.ndarray]) -> None:
        super()._initialize(arrays)
        arrays["gravity"][:] = self.robot.gravity

    def _worlds_of(self, worker: int) -> np.ndarray:
        return np.arange(worker, self.num_worlds, len(self._workers))

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        self._tensors[name][ids] = values
        if name not in _OF_ACTUATORS:  # it is part of a scene, which is made anew in its state
            self._tensors["changed"][ids] = True
            self._tensors["dirty"][ids] = STATE

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that the engine needs to go on from here.

        Exact, but not free of effect: PhysX's contact caches and warm starts cannot be read. So this simulator goes on
        without them from the state that was read. A simulator restored from that state does the same, to the bit.
        """
        return super().snapshot()

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        super().restore(snapshot)
        self._arrays["changed"][:] = True


ENGINE = PhysxSimulator
