"""What differs between environments besides their states, as the parameters of the engine's worlds.

All worlds share one model, which has the greatest value of all environments for every property. A world's parameter is
the factor from there to its own value.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from dualfid_robot.isaacgym.actors import Environment
from dualfid_robot.isaacgym.ground import Ground
from dualfid_robot.isaacgym.layout import Layout
from dualfid_robot.isaacgym.parameters import DofDriveMode
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.simulators.base import Simulator, nominal_value

_SHARED = ["driveMode", "hasLimits", "effort", "friction", "armature"]
_SERVOS = (DofDriveMode.DOF_MODE_POS, DofDriveMode.DOF_MODE_VEL)


@dataclass(frozen=True)
class WorldProperties:
    """Properties of N environments with D DOFs, S shapes and B bodies.

    Attributes:
        shared: (D,) of DOF properties that all environments share.
        limits: (N, D, 2) of joints, rad or m; 0 where there are none.
        gains: (N, D) stiffness of drives and springs; 0 of velocity drives, which have none.
        rates: (N, D) damping, with a physics step of stiffness added. That makes it the implicit spring of PhysX. Its
            force refers to the end of a step h: k (q* - q - h v) - d v.
        friction: (N, S) of each shape with the ground: the mean of both, as PhysX combines them. Actors' shapes have
            the higher priority in MuJoCo, which then takes theirs; of two actors', it takes the greater.
        masses, offsets: (N, B) factors, and (N, B, 3) of centres of mass, m.
    """

    shared: np.ndarray
    limits: np.ndarray
    gains: np.ndarray
    rates: np.ndarray
    friction: np.ndarray
    masses: np.ndarray
    offsets: np.ndarray

    @property
    def modes(self) -> np.ndarray:
        """(D,) of `DofDriveMode`."""
        return self.shared["driveMode"].astype(np.int64)

    @classmethod
    def of(
        cls, environments: list[Environment], grounds: list[Ground], physics_dt: float, layout: Layout
    ) -> WorldProperties:
        """Collect them from the actors.

        Raises:
            NotProvided: a property differs between environments that the engine has once for all.
        """
        table = np.stack([np.concatenate([actor.dof_properties for actor in each.actors]) for each in environments])
        for key in _SHARED:
            if (table[key] != table[key][:1]).any():
                raise not_provided(f"DOF property {key} that differs between environments", "all share one")
        shared = table[_SHARED][0]
        limits = np.sort(np.stack([table["lower"], table["upper"]], -1).astype(np.float64), -1)
        limits[:, ~shared["hasLimits"]] = 0.0
        gains = np.where(shared["driveMode"] == DofDriveMode.DOF_MODE_VEL, 0.0, table["stiffness"].astype(np.float64))
        rates = table["damping"] + gains * physics_dt
        own = np.stack([np.concatenate([actor.friction for actor in each.actors]) for each in environments])
        friction = (own + grounds[0].friction) / 2 if grounds else own
        return cls(shared, limits, gains, rates, friction, *_inertial(environments, layout))

    def greatest(self) -> WorldProperties:
        """One environment with the greatest value of each property, and the first one's limits: the shared model's."""
        gains, rates, friction = (values.max(0, keepdims=True) for values in (self.gains, self.rates, self.friction))
        nominal = np.ones_like(self.masses[:1]), np.zeros_like(self.offsets[:1])
        return WorldProperties(self.shared, self.limits[:1], gains, rates, friction, *nominal)

    def within(self, nominal: WorldProperties) -> bool:
        """Whether parameters lead here from a model: what all share is the same, and what is 0 in it is 0 here."""
        return bool(
            (self.shared == nominal.shared).all()
            and all(
                not (getattr(self, name) * (getattr(nominal, name) == 0)).any()
                for name in ("gains", "rates", "friction")
            )
        )

    def parameters(self, nominal: WorldProperties, model: mujoco.MjModel, layout: Layout) -> dict[str, np.ndarray]:
        """Values for all worlds, by the names of `simulators.base.PARAMETERS`."""
        worlds = len(self.gains)
        servo = np.isin(self.modes, _SERVOS)
        gains, rates = _factors(self.gains, nominal.gains), _factors(self.rates, nominal.rates)
        springs, dampers = np.ones((worlds, model.njnt)), np.ones((worlds, model.nv))
        ranges = np.zeros((worlds, model.njnt, 2))
        joints = np.flatnonzero(model.jnt_type != mujoco.mjtJoint.mjJNT_FREE)
        springs[:, joints] = np.where(servo, 1.0, gains)
        ranges[:, joints] = self.limits - nominal.limits
        dampers[:, layout.dof_qvel] = np.where(servo, 1.0, rates)
        # Where all shapes of a world have one factor, engines can take it that have none of single geoms.
        each, common, geoms = _factors(self.friction, nominal.friction), np.ones(worlds), np.ones((worlds, model.ngeom))
        if each.size and (each == each[:, :1]).all():
            common = each[:, 0]
        else:
            geoms[:, model.ngeom - each.shape[1] :] = each
        return {
            "friction": common,
            "geom_friction": geoms,
            "mass": self.masses,
            "com": self.offsets,
            "joint_stiffness": springs,
            "joint_range": ranges,
            "dof_damping": dampers,
            "servo_stiffness": np.where(servo, gains, 1.0),
            "servo_damping": np.where(servo, rates, 1.0),
        }


def set_parameters(simulator: Simulator, values: dict[str, np.ndarray], given: set[str]) -> None:
    """Give the engine's worlds those values that are not nominal, or were not before.

    Args:
        given: names of parameters that were given before; more are added.
    """
    everyone = torch.arange(simulator.num_worlds)
    for name, value in values.items():
        if name in given or (value != nominal_value(name)).any():
            simulator.set_parameters(everyone, {name: torch.from_numpy(value).float()})
            given.add(name)


def _factors(values: np.ndarray, nominal: np.ndarray) -> np.ndarray:
    """values / nominal, 1 where both are 0."""
    return np.divide(values, nominal, out=np.ones_like(values), where=nominal != 0)


def _inertial(environments: list[Environment], layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    masses = np.ones((len(environments), layout.bodies))
    offsets = np.zeros((len(environments), layout.bodies, 3))
    for number, environment in enumerate(environments):
        for actor, rows in zip(environment.actors, layout.body_slots, strict=True):
            if actor.bodies is not None:
                model = actor.asset.model
                masses[number, rows] = _factors(np.array([body.mass for body in actor.bodies]), model.body_mass[1:])
                offsets[number, rows] = np.array([tuple(body.com) for body in actor.bodies]) - model.body_ipos[1:]
    offsets[np.abs(offsets) < 1e-7] = 0.0  # a property is read as float64 and may be written back as float32
    return masses, offsets
