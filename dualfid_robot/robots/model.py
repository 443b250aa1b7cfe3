"""One MJCF file is the single description of a robot and its scene; every engine is built from it.

Joint order, limits, gears, masses and frames agree between engines. Each reads them, by name, from the model that
MuJoCo compiles here.
"""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.changes import UNCHANGED, Changes
from dualfid_robot.robots.contacts import fixed_geoms, touching_bodies, touching_pairs
from dualfid_robot.robots.mjcf import is_urdf, unnamed

CONTACTS = ("full", "feet")
Contacts = Literal["full", "feet"]

LEAST_MEMORY = 64 << 20
"""Bytes for contacts and constraints, whatever a file asks for: MuJoCo leaves out those for which there is no room."""

# Components of MuJoCo's contact sensor that a contact wrench needs, in the order in which MuJoCo writes them.
_CONTACT_FIELDS = (
    mujoco.mjtConDataField.mjCONDATA_FORCE,
    mujoco.mjtConDataField.mjCONDATA_TORQUE,
    mujoco.mjtConDataField.mjCONDATA_POS,
)
_NETFORCE = 3


@dataclass(frozen=True)
class RobotModel:
    """A robot and its scene, read from one MJCF file.

    Bodies, joints, geoms and actuators that the file leaves unnamed are called `unnamed_<kind>_<number>`, by the next
    number that is free.

    Attributes:
        path: the MJCF file.
        feet: names of the bodies that keep their contacts in a reduced-contact variant. See `foot_geoms`.
        changes: factors by which the robot differs from the file.
        model: the compiled model at the file's own options; the reference for names, sizes and limits.
    """

    path: Path
    feet: tuple[str, ...] = ()
    changes: Changes = UNCHANGED
    model: mujoco.MjModel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the file.

        Raises:
            ConfigError: the file is missing, a URDF, or not a model that MuJoCo accepts, or one of its numbers is not
                finite. Or a foot is not one of its bodies, or an actuator has not exactly one control. Or the robot
                lacks what is to be changed.
        """
        spec = self.spec()
        with self._invalid_named():
            object.__setattr__(self, "model", spec.compile())
        if fields := not_finite(self.model):
            raise ConfigError(f"asset file {self.path}: a number is not finite in {', '.join(fields)}")
        self._check_bodies("feet", self.feet)
        for actuator, controls in enumerate(self.model.actuator_ctrlnum):
            if controls != 1:
                name = self.model.actuator(actuator).name
                raise ConfigError(f"{self.path.name}: actuator {name}: it has {controls} controls; allowed is one")
        if self.changes.factors:
            self.changes.check(self.changed(UNCHANGED).model, self.model, self.path.name)

    def changed(self, changes: Changes) -> RobotModel:
        """The robot of the same file with these changes and no others."""
        return self if changes == self.changes else replace(self, changes=changes)

    def spec(self) -> mujoco.MjSpec:
        """The description with a name for everything, and with the changes."""
        spec = self._read()
        with self._invalid_named():
            _name_all(spec)
        spec.njmax = spec.nconmax = -1  # of former versions of MuJoCo, which makes a small memory of them
        if spec.memory >= 0:
            spec.memory = max(spec.memory, LEAST_MEMORY)
        self.changes.apply(spec)
        return spec

    def _read(self) -> mujoco.MjSpec:
        if not self.path.is_file():
            raise ConfigError(f"asset file {self.path} does not exist")
        if is_urdf(self.path):
            files = shlex.join([str(self.path), str(self.path.with_suffix(".xml"))])
            raise ConfigError(f"asset file {self.path} is a URDF; make an MJCF of it: python import_robot.py {files}")
        with self._invalid_named():
            return mujoco.MjSpec.from_file(str(self.path))

    @contextlib.contextmanager
    def _invalid_named(self) -> Iterator[None]:
        """Turn MuJoCo's error about the file into one line that names it."""
        try:
            yield
        except ValueError as error:
            raise ConfigError(f"asset file {self.path} is not a valid MJCF: {' '.join(str(error).split())}") from error

    def _check_bodies(self, key: str, bodies: Sequence[str]) -> None:
        unknown = sorted(set(bodies) - set(self.body_names))
        if unknown:
            raise ConfigError(f"{key}={unknown}: no such body in {self.path.name}; it has {list(self.body_names)}")

    @property
    def body_names(self) -> tuple[str, ...]:
        """Bodies without the world, in MuJoCo's order (parents first)."""
        return tuple(self.model.body(i).name for i in range(1, self.model.nbody))

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Hinge and slide joints in MuJoCo's order: the order of joint positions in qpos and qvel."""
        free = mujoco.mjtJoint.mjJNT_FREE
        return tuple(self.model.joint(i).name for i in range(self.model.njnt) if self.model.jnt_type[i] != free)

    @property
    def actuator_names(self) -> tuple[str, ...]:
        """Actuators in MuJoCo's order: the columns of a control tensor."""
        return tuple(self.model.actuator(i).name for i in range(self.model.nu))

    @property
    def floating_base(self) -> bool:
        """Whether the first joint is a free joint. Then qpos begins with position (3) and quaternion w, x, y, z."""
        return self.model.njnt > 0 and self.model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE

    @property
    def gravity(self) -> np.ndarray:
        """Acceleration (3,), m/s², world frame; zero where the file switches it off."""
        off = self.model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY
        return np.zeros(3) if off else self.model.opt.gravity.copy()

    @property
    def joint_limits(self) -> np.ndarray:
        """Lower and upper limit of each joint of `joint_names`, (n, 2), rad or m; unlimited ones are infinite."""
        rows = [self.model.joint(name).id for name in self.joint_names]
        limits = np.where(self.model.jnt_limited[rows, None].astype(bool), self.model.jnt_range[rows], np.inf)
        limits[np.isinf(limits[:, 0]), 0] = -np.inf
        return limits

    @property
    def foot_geoms(self) -> tuple[int, ...]:
        """The geoms that touch something in a reduced-contact variant, in MuJoCo's order.

        A foot's geoms are its own that can touch anything. Where it has none, they are those of the bodies welded to
        it.

        Raises:
            ConfigError: nothing of a foot can touch anything that keeps its contacts. Or there are no feet, and other
                bodies can touch.
        """
        model, pairs = self.model, touching_pairs(self.model)
        able, geoms = list(touching_bodies(model)), np.unique(pairs)
        if not self.feet and self._would_fall(pairs):
            raise ConfigError(
                f"asset.feet=[]: only feet keep contacts, and without them {self.path.name} falls through what it "
                f"stands on; allowed are {able}"
            )
        found: dict[str, list[int]] = {}
        fixed = fixed_geoms(model)
        for foot in self.feet:
            body, bodies = int(model.body(foot).id), model.geom_bodyid[geoms]
            own = geoms[bodies == body]
            welded = geoms[model.body_weldid[bodies] == model.body_weldid[body]]
            found[foot] = (own if len(own) else welded).tolist()
            if not found[foot] or fixed[found[foot]].any():
                raise ConfigError(f"asset.feet={foot}: it can touch nothing in {self.path.name}; allowed are {able}")
        feet = sorted({geom for own in found.values() for geom in own})
        self._check_that_feet_touch(found, pairs, fixed | np.isin(np.arange(model.ngeom), feet))
        return tuple(feet)

    def _check_that_feet_touch(self, feet: dict[str, list[int]], pairs: np.ndarray, kept: np.ndarray) -> None:
        """Raise ConfigError for a foot whose geoms touch none of those that keep their contacts, (geoms,) bool."""
        left = pairs[kept[pairs].all(1)]
        for foot, own in feet.items():
            if not np.isin(left, own).any():
                others = np.setdiff1d(pairs[np.isin(pairs, own).any(1)], own)
                names = sorted({str(self.model.body(self.model.geom_bodyid[geom]).name) for geom in others.tolist()})
                raise ConfigError(
                    f"asset.feet={foot}: in {self.path.name} it can touch {', '.join(names)} alone, which is no foot "
                    "and moves; name what it touches among the feet"
                )

    def _would_fall(self, pairs: np.ndarray) -> bool:
        """Whether some of these pairs of geoms keep a body up. Those do with what does not move, or with another free
        tree."""
        model = self.model
        trees = model.body_rootid[model.geom_bodyid[pairs]]
        static = fixed_geoms(model)[pairs]
        free = np.zeros(model.nbody, bool)
        free[model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]] = True
        return bool((static.any(1) | (trees[:, 0] != trees[:, 1]) & free[trees].any(1)).any())

    def touching(self, contacts: Contacts = "full") -> frozenset[tuple[str, str]]:
        """The pairs of bodies between which there can be contacts. What does not move is the "world".

        Raises:
            ConfigError: as `foot_geoms`, of contacts "feet".
        """
        model = self.model
        static = fixed_geoms(model)
        bodies = np.where(static, 0, model.geom_bodyid).tolist()
        kept = np.ones(model.ngeom, bool)
        if contacts == "feet":
            kept = static.copy()
            kept[list(self.foot_geoms)] = True
        pairs = [(a, b) for a, b in touching_pairs(model).tolist() if kept[a] and kept[b]]
        ends = (sorted((bodies[a], bodies[b])) for a, b in pairs)
        return frozenset((str(model.body(first).name), str(model.body(second).name)) for first, second in ends)

    def compile(
        self,
        timestep: float,
        integrator: str = "implicitfast",
        cone: str = "elliptic",
        iterations: int | None = None,
        contacts: Contacts = "full",
        contact_bodies: Sequence[str] = (),
    ) -> mujoco.MjModel:
        """Compile a variant of the model for a MuJoCo engine.

        Its constraint solver is Newton's, whatever the file says: not every engine has another. Delays of actuators are
        whole numbers of steps, rounded up, and their history holds as many controls as that takes.

        Args:
            timestep: physics time step, s.
            integrator: MuJoCo's name: Euler, RK4, implicit or implicitfast.
            cone: friction cone, elliptic or pyramidal.
            iterations: bound on the constraint solver's iterations; None keeps the file's.
            contacts: "full", or "feet": only `foot_geoms` touch one another and what does not move.
            contact_bodies: bodies whose net contact wrench is measured. Each adds 9 numbers to `sensordata`, behind the
                file's own sensors. They are force (3), torque about the contact point (3) and contact point (3), in the
                world frame. The sign is that of the force that the body exerts.

        Raises:
            ConfigError: an unknown integrator, cone or body, or feet that can touch nothing.
        """
        self._check_bodies("contact_bodies", contact_bodies)
        touching = set(self.model.geom_bodyid[touching_pairs(self.model).ravel()].tolist())
        for body in contact_bodies:
            if touching and self.model.body(body).id not in touching:
                raise ConfigError(f"contact_bodies={body}: no geom of it can touch anything in {self.path.name}")
        spec = self.spec()
        spec.option.timestep = timestep
        spec.option.integrator = _named(mujoco.mjtIntegrator, "mjINT_", "integrator", integrator)
        spec.option.cone = _named(mujoco.mjtCone, "mjCONE_", "cone", cone)
        spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
        if iterations is not None:
            spec.option.iterations = iterations
        for actuator in spec.actuators:
            if actuator.delay > 0:
                _delay_by_whole_steps(actuator, timestep)
        # A non-finite world must stay visible instead of being put back to its initial state without a word.
        spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        if contacts == "feet":
            self._keep_contacts_of_feet(spec)
        for body in contact_bodies:
            spec.add_sensor(
                name=f"contact_wrench/{body}",
                type=mujoco.mjtSensor.mjSENS_CONTACT,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=body,
                intprm=[sum(1 << int(f) for f in _CONTACT_FIELDS), _NETFORCE, 1],
            )
        with self._invalid_named():
            return spec.compile()

    def _keep_contacts_of_feet(self, spec: mujoco.MjSpec) -> None:
        model = self.model
        fixed = np.flatnonzero(fixed_geoms(model)).tolist()
        kept = {str(model.geom(geom).name) for geom in (*fixed, *self.foot_geoms)}
        for geom in spec.geoms:
            if geom.name not in kept:
                geom.contype = geom.conaffinity = 0
        for pair in spec.pairs:
            if not {pair.geomname1, pair.geomname2} <= kept:
                spec.delete(pair)


def _delay_by_whole_steps(actuator: mujoco.MjsActuator, timestep: float) -> None:
    """Make a delay exact at any time step: the least number of physics steps that is not shorter than it.

    MuJoCo keeps so many controls with the times at which they came, and reads at `time - delay`. That is such a time up
    to rounding. So chance would decide which of two controls is found, above all in single precision. Halfway between
    two there is no doubt. With interpolation between controls there is none anyway, but it needs their neighbours.
    """
    steps = max(math.ceil(actuator.delay / timestep - 1e-6), 1)
    if actuator.interp == 0:
        actuator.nsample, actuator.delay = steps, (steps - 0.5) * timestep
    else:
        actuator.nsample = steps + 2


def _name_all(spec: mujoco.MjSpec) -> None:
    """Name the elements that the file leaves unnamed by their kind and number: engines find them by name."""
    kinds = {"body": spec.bodies, "joint": spec.joints, "geom": spec.geoms, "actuator": spec.actuators}
    for kind, elements in kinds.items():
        taken = {element.name for element in elements}
        for number, element in enumerate(elements):
            if not element.name:
                element.name = unnamed(kind, number, taken)
                taken.add(element.name)


def _named(enum: type, prefix: str, key: str, value: str) -> int:
    """The member of a MuJoCo enumeration whose name ends in `value`, whatever its case."""
    members = {name.removeprefix(prefix).lower(): member for name, member in enum.__members__.items()}  # type: ignore[attr-defined]
    if value.lower() not in members:
        raise ConfigError(f"{key}={value}: allowed are {sorted(members)}")
    return int(members[value.lower()])


def not_finite(model: mujoco.MjModel) -> list[str]:
    """The fields of a compiled model and of its options that hold NaN or an infinite number."""
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    values |= {f"option {name}": getattr(model.opt, name) for name in dir(model.opt) if not name.startswith("_")}
    numbers = {name: value for name, value in values.items() if isinstance(value, float | np.ndarray)}
    return [
        name for name, value in numbers.items() if np.asarray(value).dtype.kind == "f" and not np.isfinite(value).all()
    ]
