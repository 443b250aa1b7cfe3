"""PyBullet in worker processes: the coarse simulator. Feet touch the ground, and nothing else touches anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.features import COMPUTING
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import require_integer, require_number
from dualfid_robot.simulators.base import STATE_BOUND
from dualfid_robot.simulators.pybullet.protocol import IN_BULLET, PARAMETERS, Spec
from dualfid_robot.simulators.pybullet.urdf import Urdf, make_urdf
from dualfid_robot.simulators.workers.process import STATE
from dualfid_robot.simulators.workers.process_simulator import ProcessSimulator
from dualfid_robot.threads import usable_cpus


class PybulletSimulator(ProcessSimulator):
    """Worlds in PyBullet clients in worker processes."""

    WORKER: ClassVar[str] = f"{__package__}.worker"
    PACKAGES: ClassVar[tuple[str, ...]] = ("pybullet",)
    INSTALL: ClassVar[str] = (
        'pip install "dualfid_robot[pybullet]" (PyPI has no wheel for Python >= 3.12), or choose '
        "simulator/low=mujoco_reduced"
    )
    HONOURS: ClassVar[frozenset[str]] = COMPUTING | {
        *("flag contact", "flag filterparent", "flag gravity", "delayed sensor"),
    }
    SUPPORTED_PARAMETERS: ClassVar[tuple[str, ...]] = PARAMETERS
    """Not gravity, which the robots of a client share, nor com: a link's frame is its inertial one."""
    SNAPSHOT: ClassVar[tuple[str, ...]] = (*ProcessSimulator.SNAPSHOT, *PARAMETERS)

    @dataclass(frozen=True)
    class Config:
        """Settings of the engine.

        Attributes:
            substeps: physics steps in a control period.
            solver_iterations: of Bullet's constraint solver.
            friction: factor on the asset's friction.
            contact_stiffness, contact_damping: of the feet, N/m and N s/m.
            joint_damping: factor on the asset's joint damping.
            child_armature, parent_armature: factors on the asset's armature, which Bullet lacks. It becomes inertia of
                the link below the joint and of the link above (see `pybullet.links`).
            limit_inertia: factor on a joint's inertia at `qpos0`, in the bound on torques that keeps joints within
                their limits. The inertia is never taken as more than the least in random poses.
            robots_per_client: robots that share a Bullet world. A client costs about 30 MB of memory, and its step a
                little more than in proportion to its robots.
            workers: processes; 0 takes all CPUs.
        """

        substeps: int = 2
        solver_iterations: int = 5
        friction: float = 1.0
        contact_stiffness: float = 1000.0
        contact_damping: float = 30.0
        joint_damping: float = 1.0
        child_armature: float = 1.0
        parent_armature: float = 1.0
        limit_inertia: float = 0.5
        robots_per_client: int = 16
        workers: int = 0

        def __post_init__(self) -> None:
            for key, least in (("substeps", 1), ("solver_iterations", 1), ("robots_per_client", 1), ("workers", 0)):
                require_integer(key, getattr(self, key), least)
            for key in ("friction", "contact_damping", "joint_damping", "child_armature", "parent_armature"):
                require_number(key, getattr(self, key), 0.0, math.inf)
            for key in ("contact_stiffness", "limit_inertia"):
                require_number(key, getattr(self, key), 0.0, math.inf, open_low=True)

    config: Config

    def _build(self) -> None:
        config, num_worlds = self.config, self.num_worlds
        workers = min(config.workers or usable_cpus(), num_worlds)
        self._urdf = make_urdf(self.robot, config.child_armature, config.parent_armature)
        self._spec = self._make_spec(workers, min(config.robots_per_client, -(-num_worlds // workers)))
        clients = -(-num_worlds // self._spec.robots_per_client)
        self._launch([replace(self._spec, worker=number) for number in range(min(workers, clients))])

    @classmethod
    def check_robot(cls, robot: RobotModel, contact_bodies: Sequence[str] = ()) -> None:
        super().check_robot(robot, contact_bodies)
        _check_contacts(make_urdf(robot), contact_bodies)

    @classmethod
    def touching(cls, robot: RobotModel, config: Config) -> frozenset[tuple[str, str]]:
        return frozenset(pair for pair in robot.touching("feet") if "world" in pair)

    def _make_spec(self, workers: int, robots_per_client: int) -> Spec:
        robot, config, n = self.robot, self.config, self.num_worlds
        model, urdf = robot.model, self._urdf
        joints = [model.joint(name).id for name in robot.joint_names]
        _check_contacts(urdf, self.contact_bodies)
        drives = self._drives(model, config.substeps, config.joint_damping)
        return Spec(
            urdf=urdf.text,
            planes=tuple((plane.normal, plane.offset) for plane in urdf.planes),
            gravity=tuple(robot.gravity.tolist()),
            floating=robot.floating_base,
            mass=urdf.mass,
            inertia=urdf.inertia,
            rotor_inertia={name: tuple(np.diag(rotors).tolist()) for name, rotors in urdf.rotor_inertia.items()},
            root_offset=urdf.root_offset,
            root_rotation=urdf.root_rotation,
            joint_names=robot.joint_names,
            joint_zero=model.qpos0[model.jnt_qposadr[joints]],
            joint_limits=robot.joint_limits,
            joint_inertia=np.minimum(config.limit_inertia * urdf.joint_inertia, drives.inertia),
            drives=drives,
            foot_links=urdf.foot_links,
            friction=tuple(friction * config.friction for friction in urdf.friction),
            contact_links=tuple(urdf.contact_links[body] for body in self.contact_bodies),
            initial=(model.qpos0.copy(), np.zeros(model.nv)),
            bound=STATE_BOUND,
            control_dt=self.control_dt,
            substeps=config.substeps,
            solver_iterations=config.solver_iterations,
            contact_stiffness=config.contact_stiffness,
            contact_damping=config.contact_damping,
            num_worlds=n,
            robots_per_client=robots_per_client,
            workers=workers,
            worker=0,
            layout=self._layout("f8", drives) | {"mass": ((n, len(urdf.mass)), "f4")},
        )

    def _worlds_of(self, worker: int) -> np.ndarray:
        worlds = np.arange(self.num_worlds)
        return worlds[worlds // self._spec.robots_per_client % self._spec.workers == worker]

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Set a parameter, which the worker takes up at the world's next step.

        The bound on torques at joint limits keeps the nominal inertia, whatever the mass.
        """
        if name == "mass":
            values = self._link_factors(values)
        self._tensors[name][ids] = values
        if name in IN_BULLET:
            self._tensors["changed"][ids] = True

    def _link_factors(self, values: Tensor) -> Tensor:
        """Factors (k, links) of factors (k, bodies).

        Raises:
            ConfigError: masses whose link would have other axes: Bullet's links keep their frames.
        """
        names, urdf = list(self.robot.body_names), self._urdf
        columns = []
        for link, bodies in urdf.bodies.items():
            if not bodies:
                columns.append(torch.ones(len(values)))
                continue
            factors = values[:, [names.index(body) for body in bodies]]
            if (factors != factors[:, :1]).any():
                raise ConfigError(
                    f"parameter=mass: bodies {list(bodies)} are one link in engine pybullet: factors must be equal"
                )
            if (factors != 1.0).any() and not _is_diagonal(urdf.rotor_inertia[link]):
                raise ConfigError(
                    f"parameter=mass: body {link} cannot be set in engine pybullet: it carries a rotor that is "
                    "aligned with none of its principal axes of inertia, so these would turn"
                )
            columns.append(factors[:, 0])
        return torch.stack(columns, 1)

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that the engine needs to go on from here.

        Exact, because a step of Bullet depends on the state alone: contacts are found anew, nothing is warm-started.
        But Bullet's own state cannot be read to the last bit. So this simulator goes on from what was read, to the bit
        as one that is restored from it.
        """
        return super().snapshot() | {"robots_per_client": np.array(self._spec.robots_per_client)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        super().restore(snapshot)
        self._arrays["changed"][:] = True
        if snapshot["robots_per_client"] != self._spec.robots_per_client:
            self._arrays["dirty"][:] = STATE  # the robots stand elsewhere in their clients: raw states do not fit

    def _reload(self, worlds: slice | np.ndarray = slice(None)) -> None:
        super()._reload(worlds)
        self._arrays["changed"][worlds] = True  # a worker that was started again has robots with nominal parameters


def _check_contacts(urdf: Urdf, bodies: Sequence[str]) -> None:
    unmeasurable = sorted(set(bodies) - set(urdf.contact_links))
    if unmeasurable:
        raise ConfigError(f"contact_bodies={unmeasurable}: only feet have contacts: {sorted(urdf.contact_links)}")
    links = [urdf.contact_links[body] for body in bodies]
    if len(set(links)) < len(links):
        raise ConfigError(f"contact_bodies={list(bodies)}: two of them are one link in engine pybullet: {links}")


def _is_diagonal(matrix: np.ndarray) -> bool:
    return bool(np.allclose(matrix, np.diag(np.diag(matrix)), rtol=0, atol=1e-9 + 1e-6 * np.abs(matrix).max()))


ENGINE = PybulletSimulator
