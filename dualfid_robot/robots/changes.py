"""Changes of a robot by factors: the gaps between a source and a target with the same physics.

They are done to the description from which every engine is built. So each engine sees them and none approximates them.
What a robot does not have cannot be changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.contacts import touching_pairs
from dualfid_robot.settings import parse_settings, require_mapping, require_number

_MOST = 1e3
_ROUNDING = 1e-9  # relative, of the compiler's own arithmetic
_SCALAR = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)


@dataclass(frozen=True)
class Changes:
    """Factors on a robot and its scene; 1 leaves a quantity as it is.

    Attributes:
        friction: sliding friction of every geom and contact pair.
        gravity: the vector of gravity.
        mass: mass and inertia of every body; armature stays.
        joint_range: width of the range of every limited hinge and slide joint, about its middle. ODRL (arXiv
            2410.20750) calls this a kinematic shift.
    """

    friction: float = 1.0
    gravity: float = 1.0
    mass: float = 1.0
    joint_range: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            require_number(field.name, getattr(self, field.name), 0.0, _MOST, open_low=True)

    @property
    def factors(self) -> dict[str, float]:
        """The factors that change something, by name."""
        return {name: factor for name, factor in dataclasses.asdict(self).items() if factor != 1.0}

    def apply(self, spec: mujoco.MjSpec) -> None:
        """Change a description that is not compiled yet."""
        factors = self.factors
        if "friction" in factors:
            for geom in spec.geoms:
                geom.friction[0] *= self.friction
            for pair in spec.pairs:
                pair.friction[:2] *= self.friction
        if "gravity" in factors:
            spec.option.gravity *= self.gravity
        if "mass" in factors:
            _scale_mass(spec, self.mass)
        if "joint_range" in factors:
            for joint in spec.joints:
                if joint.type in _SCALAR:  # the file's unit, degrees or radians, does not matter
                    middle = joint.range.mean()
                    joint.range = middle + self.joint_range * (joint.range - middle)

    def check(self, nominal: mujoco.MjModel, changed: mujoco.MjModel, asset: str) -> None:
        """Compare a changed model with the unchanged one.

        Raises:
            ConfigError: the robot does not have what is to be changed, or the compiler made something else of it.
        """
        for name, factor in self.factors.items():
            values, lacking = _QUANTITIES[name]
            before, after = values(nominal), values(changed)
            if not before.any():
                raise ConfigError(f"changes.{name}={factor:g}: {asset} has {lacking}")
            if not np.allclose(after, factor * before, rtol=_ROUNDING, atol=0.0):
                raise ConfigError(f"changes.{name}={factor:g}: cannot be done exactly in {asset}")


UNCHANGED = Changes()


def parse_changes(settings: object, where: str) -> Changes:
    """Changes of their settings.

    Args:
        settings: a mapping of names of `Changes` to factors.
        where: how an error names it.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    changes: Changes = parse_settings(Changes, require_mapping(where, settings), where)
    return changes


def position_bounds(model: mujoco.MjModel) -> np.ndarray:
    """Least and largest value (2, nq) of each coordinate of qpos.

    Limited hinge and slide joints bound theirs. The others are unbounded.
    """
    bounds = np.tile([[-np.inf], [np.inf]], (1, model.nq))
    limited = _limited(model)
    bounds[:, model.jnt_qposadr[limited]] = model.jnt_range[limited].T
    return bounds


def _scale_mass(spec: mujoco.MjSpec, factor: float) -> None:
    """Scale masses and inertias where the file has them.

    That is at bodies, at geoms, or as the total that geoms are scaled to.
    """
    for body in spec.bodies:
        body.mass *= factor
        body.inertia *= factor
        body.fullinertia *= factor
    for geom in spec.geoms:
        geom.mass *= factor
        geom.density *= factor
    if spec.compiler.settotalmass > 0.0:
        spec.compiler.settotalmass *= factor


def _limited(model: mujoco.MjModel) -> np.ndarray:
    off = model.opt.disableflags & (mujoco.mjtDisableBit.mjDSBL_LIMIT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT)
    return np.flatnonzero(model.jnt_limited.astype(bool) & np.isin(model.jnt_type, _SCALAR) & (not off))


def _friction(model: mujoco.MjModel) -> np.ndarray:
    """Friction coefficients of the geoms that can touch something with friction, and of the contact pairs."""
    if model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
        return np.zeros(0)
    pairs = touching_pairs(model)
    rough = np.unique(pairs[model.geom_condim[pairs].max(1, initial=0) > 1])
    return np.concatenate([model.geom_friction[rough, 0], model.pair_friction[model.pair_dim > 1, :2].ravel()])


def _gravity(model: mujoco.MjModel) -> np.ndarray:
    off = model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY
    return np.zeros(3) if off else model.opt.gravity


def _mass(model: mujoco.MjModel) -> np.ndarray:
    """Masses and summed principal inertias of the bodies that move."""
    moving = model.body_weldid != 0
    # The order of equal moments is rounding's.
    return np.concatenate([model.body_mass[moving], model.body_inertia[moving].sum(1)])


def _joint_range(model: mujoco.MjModel) -> np.ndarray:
    return np.diff(model.jnt_range[_limited(model)]).ravel()


_Values = Callable[[mujoco.MjModel], np.ndarray[Any, np.dtype[Any]]]
_QUANTITIES: dict[str, tuple[_Values, str]] = {
    "friction": (_friction, "no contacts with friction of their own"),
    "gravity": (_gravity, "no gravity"),
    "mass": (_mass, "no mass that moves"),
    "joint_range": (_joint_range, "no limited hinge or slide joint"),
}
"""What a factor multiplies in a compiled model, and what a robot lacks where that is all zero or empty."""
