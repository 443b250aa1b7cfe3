"""The contract that every physics engine fulfils: worlds of one robot, stepped in a batch.

State is in MuJoCo's generalized coordinates, whatever the engine. qpos is joint positions, and qvel is joint
velocities. For a floating base, the root's position (world frame, m) and quaternion (w, x, y, z) precede the positions.
The root's linear velocity (world frame, m/s) and angular velocity (body frame, rad/s) precede the velocities.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import first_nonlinear, servos
from dualfid_robot.robots.features import check_features
from dualfid_robot.robots.model import RobotModel

# A coordinate or velocity beyond this bound, or NaN, marks a world as failed. MuJoCo's own bound is 1e10; long before
# that a float32 observation has lost its digits and one world would spoil the statistics of all.
STATE_BOUND = 1e6


# Every physical parameter that an engine may let differ between worlds, and the shape of its values for k worlds. All
# but gravity and `_OFFSETS` are factors on the asset's own values (`nominal_value`). Factors on the same quantity
# multiply.
PARAMETERS: dict[str, str] = {
    "friction": "(k,): sliding friction of all contacts",
    "mass": "(k, bodies): mass and inertia of each body of `RobotModel.body_names`; armature is not scaled",
    "com": "(k, bodies, 3): offset of each body's centre of mass, m, body frame; 0 is nominal",
    "damping": "(k,): damping of all joints",
    "geom_friction": "(k, geoms): sliding friction of each geom of the model, where it is not given for a pair",
    "dof_damping": "(k, nv): damping of each degree of freedom",
    "joint_stiffness": "(k, joints): stiffness of each joint's spring; free joints are counted",
    "joint_range": "(k, joints, 2): how far each joint's lower and upper limit move, rad or m; 0 is nominal; free "
    "joints are counted, and joints without limits stay without",
    "motor_strength": "(k, actuators): gain and bias of each of `RobotModel.actuator_names`; force ranges stay",
    "servo_stiffness": "(k, actuators): kp of each position servo; other actuators' columns are ignored",
    "servo_damping": "(k, actuators): kd of each position servo, kv of each velocity servo; other columns are ignored",
    "gravity": "(k, 3): acceleration, m/s², world frame",
}
_OFFSETS = ("com", "joint_range")  # they are added to the asset's own values


def nominal_value(name: str) -> float:
    """What leaves the asset's own values as they are: 0 of what is added to them, and 1 of a factor. Gravity, which
    replaces the asset's, has no such value."""
    return 0.0 if name in _OFFSETS else 1.0


def parameter_shape(robot: RobotModel, name: str) -> tuple[int, ...]:
    """Shape of one world's value of a parameter.

    Args:
        robot: whose bodies and actuators are counted.
        name: one of `PARAMETERS`.
    """
    bodies, actuators = robot.model.nbody - 1, (robot.model.nu,)
    return {
        "friction": (),
        "mass": (bodies,),
        "com": (bodies, 3),
        "damping": (),
        "geom_friction": (robot.model.ngeom,),
        "dof_damping": (robot.model.nv,),
        "joint_stiffness": (robot.model.njnt,),
        "joint_range": (robot.model.njnt, 2),
        "motor_strength": actuators,
        "servo_stiffness": actuators,
        "servo_damping": actuators,
        "gravity": (3,),
    }[name]


def parameter_problem(robot: RobotModel, name: str) -> str | None:
    """Why a parameter has no effect or no meaning for a robot, or None where it has one.

    A servo's factors need a servo. `motor_strength` needs actuators whose forces are proportional to their gain and
    bias parameters. Gravity must not be switched off, nor the friction of contacts overridden.

    Args:
        robot: with or without actuators.
        name: one of `PARAMETERS`.
    """
    asset, options = robot.path.name, robot.model.opt
    if name == "gravity" and options.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY:
        return f"{asset} switches gravity off (option flag gravity)"
    if name == "friction" and options.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
        return f"{asset} overrides the friction of all contacts (option flag override)"
    if name in ("servo_stiffness", "servo_damping"):
        position, velocity = servos(robot.model)
        if name == "servo_stiffness":
            return None if position.any() else f"{asset} has no position servo"
        return None if (position | velocity).any() else f"{asset} has no position or velocity servo"
    if name == "motor_strength":
        if not robot.actuator_names:
            return f"{asset} has no actuators"
        actuator = first_nonlinear(robot.model)
        if actuator is not None:
            return (
                f"actuator {actuator} of {asset}: its force is not proportional to its parameters; allowed are fixed "
                "and affine gains and biases"
            )
    return None


def _check_ranges(robot: RobotModel, moves: Tensor) -> None:
    """Raise ConfigError where limits that move by (k, joints, 2) cross."""
    model = robot.model
    ranges = torch.from_numpy(model.jnt_range).to(moves) + moves
    crossed = (ranges[..., 0] > ranges[..., 1]) & torch.from_numpy(model.jnt_limited.astype(bool)).to(moves.device)
    if crossed.any():
        world, joint = crossed.nonzero()[0].tolist()
        limits = [round(limit, 6) for limit in ranges[world, joint].tolist()]
        raise ConfigError(
            f"parameter=joint_range: joint {model.joint(joint).name} of {robot.path.name} gets the limits "
            f"{limits}; allowed are a lower one and then an upper one"
        )


class Simulator(ABC):
    """N worlds of one robot in one engine.

    Attributes:
        Config: dataclass of the engine's settings; the constructor's first argument.
        PORT_OF: the engine whose equations this one solves on other hardware. It is empty for an engine of its own.
        PACKAGES: modules that must be installed.
        INSTALL: how they are installed, in words.
        DEVICE_TYPES: types of torch devices on which the engine can keep its tensors.
        SUPPORTED_PARAMETERS: the names of `PARAMETERS` that the engine can set per world.
        HONOURS: the features of `robots.features` that it simulates; robots with others are refused.
        RESETS_BY_MASK: whether `set_state_where` works without the host learning which worlds are meant. Then it is the
            faster of the two ways.
        config: the engine's settings.
        robot: the robot and its scene.
        num_worlds: N, fixed for the simulator's life.
        control_dt: control period, s; one step advances it by all its substeps.
        device: the device of all tensors below.
        contact_bodies: the bodies whose contact wrench is measured.
        qpos: (N, nq) float32, current state.
        qvel: (N, nv) float32, current state.
        contact_wrench: (N, len(contact_bodies), 6) float32. Columns 0 to 2 are the net contact force on the body (N,
            world frame). Columns 3 to 5 are its torque about the root body's origin (N m, world frame). For a fixed
            base it is about the world's origin. Both acted during the last substep, and are zero after a reset.
        failed: (N,) bool: worlds whose last step ended non-finite or was refused by the engine. They have already been
            put back to the model's initial state, and they did not disturb the others.
    """

    Config: ClassVar[type]
    PORT_OF: ClassVar[str] = ""
    PACKAGES: ClassVar[tuple[str, ...]] = ()
    INSTALL: ClassVar[str] = ""
    DEVICE_TYPES: ClassVar[tuple[str, ...]] = ("cpu",)
    SUPPORTED_PARAMETERS: ClassVar[tuple[str, ...]] = ()
    HONOURS: ClassVar[frozenset[str]] = frozenset()
    RESETS_BY_MASK: ClassVar[bool] = False

    def __init__(
        self,
        config: Any,
        robot: RobotModel,
        num_worlds: int,
        control_dt: float,
        contact_bodies: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate the tensors and build the worlds. No engine has another constructor: it builds its own in `_build`.

        Args:
            config: an instance of `Config`.
            robot: the robot and its scene.
            num_worlds: N.
            control_dt: control period, s.
            contact_bodies: the bodies whose contact wrench is measured.
            device: where the tensors shall be.

        Raises:
            ConfigError: the engine is not installed, cannot use the device or cannot express something in the robot.
        """
        self.check_installed()
        self.check_device(device)
        check_features(robot.model, robot.path.name, self.name(), self.HONOURS)
        model = robot.model
        self.config = config
        self.robot = robot
        self.num_worlds = num_worlds
        self.control_dt = control_dt
        self.device = torch.device(device)
        self.contact_bodies = tuple(contact_bodies)
        self.qpos = torch.from_numpy(model.qpos0).to(self.device, torch.float32).repeat(num_worlds, 1)
        self.qvel = torch.zeros(num_worlds, model.nv, device=self.device)
        self.contact_wrench = torch.zeros(num_worlds, len(contact_bodies), 6, device=self.device)
        self.failed = torch.zeros(num_worlds, dtype=torch.bool, device=self.device)
        self._initial_qpos = self.qpos[:1].clone()
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Build the worlds in the initial state. All attributes above are set.

        Raises:
            ConfigError: the engine cannot express something in the robot.
        """

    @classmethod
    def name(cls) -> str:
        """The engine's name: its folder's."""
        module = next(each.__module__ for each in cls.__mro__ if each.__module__.endswith(".simulator"))
        return module.split(".")[-2]

    @classmethod
    def check_installed(cls) -> None:
        """Raise ConfigError unless the engine's packages are installed."""
        if any(importlib.util.find_spec(package) is None for package in cls.PACKAGES):
            raise ConfigError(f"engine={cls.name()}: not installed; {cls.INSTALL}")

    @classmethod
    def check_device(cls, device: torch.device | str) -> None:
        """Raise ConfigError unless the engine can use devices of this type."""
        if torch.device(device).type not in cls.DEVICE_TYPES:
            raise ConfigError(f"sim_device={device}: engine {cls.name()} runs on {' and '.join(cls.DEVICE_TYPES)}")

    @classmethod
    def check_robot(cls, robot: RobotModel, contact_bodies: Sequence[str] = ()) -> None:
        """Raise ConfigError where the engine cannot express a robot, without building worlds.

        The constructor finds what is particular to an engine's settings.
        """
        check_features(robot.model, robot.path.name, cls.name(), cls.HONOURS)

    @classmethod
    def touching(cls, robot: RobotModel, config: Any) -> frozenset[tuple[str, str]]:
        """The pairs of bodies between which the engine makes contacts. What does not move is the "world".

        Args:
            robot: the robot.
            config: an instance of `Config`.

        Raises:
            ConfigError: the engine's contacts are those of feet, and a foot can touch nothing.
        """
        return robot.touching(config.contacts)

    def step(self, ctrl: Tensor, n: int) -> None:
        """Advance the first n worlds by one control period. The others keep their state.

        Args:
            ctrl: (n, nu) float32 in actuator units.
            n: number of worlds.
        """
        self.start_step(ctrl, n)
        self.finish_step()

    @abstractmethod
    def start_step(self, ctrl: Tensor, n: int) -> None:
        """Begin a step. An engine in other processes or on another device returns before it is done."""

    @abstractmethod
    def finish_step(self) -> None:
        """Wait for the step that `start_step` began and refresh qpos, qvel, contact_wrench and failed of its worlds."""

    @abstractmethod
    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Put worlds into given states, at rest of contact memory (no warm start, no contact force).

        Args:
            ids: (k,) int64, distinct.
            qpos: (k, nq); its quaternion is of unit length.
            qvel: (k, nv).
        """

    def set_state_where(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """`set_state` of those of the first n worlds that a mask names.

        Args:
            mask: (n,) bool.
            qpos: (n, nq); rows outside the mask are ignored.
            qvel: (n, nv); likewise.
        """
        ids = mask.nonzero().squeeze(1)
        self.set_state(ids, qpos[ids], qvel[ids])

    def set_parameters(self, ids: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """Give worlds physical parameters of their own. They keep them through resets, and snapshots hold them.

        Args:
            ids: (k,) int64, distinct.
            parameters: values by name, float32 with the shapes of `PARAMETERS`. What is not named stays as it is.

        Raises:
            ConfigError: a parameter that the engine cannot set per world, or that has no meaning for the robot. A
                joint's lower limit above its upper one.
        """
        unsupported = sorted(set(parameters) - set(self.SUPPORTED_PARAMETERS))
        if unsupported:
            allowed = sorted(self.SUPPORTED_PARAMETERS)
            raise ConfigError(
                f"parameter={unsupported[0]}: engine {self.name()} cannot set it per world; allowed are {allowed}"
            )
        for name, values in parameters.items():
            problem = parameter_problem(self.robot, name)
            if problem is not None:
                raise ConfigError(f"parameter={name}: {problem}")
            if name == "joint_range":
                _check_ranges(self.robot, values)
            self._set_parameter(name, ids, values)

    def body_states(self) -> Tensor:
        """Current states of all bodies, (N, bodies, 13) float32, world frame. They are the frame's position, m,
        quaternion (w, x, y, z), and linear and angular velocity, m/s and rad/s.

        Raises:
            ConfigError: the engine does not give them.
        """
        raise self._lacks("states of bodies")

    def actuator_forces(self) -> Tensor:
        """Force of each actuator in the last substep, (N, nu) float32.

        Raises:
            ConfigError: the engine does not give them.
        """
        raise self._lacks("forces of actuators")

    def apply_wrenches(self, wrenches: Tensor) -> None:
        """Push bodies throughout the next step, and in that step alone.

        Args:
            wrenches: (N, bodies, 6) force, N, at the body's centre of mass, and torque, N m, world frame.

        Raises:
            ConfigError: the engine takes none.
        """
        raise self._lacks("external forces")

    def jacobians(self) -> Tensor:
        """Jacobians of all bodies' frames, (N, bodies, 6, nv) float32: linear, then angular velocity, world frame.

        Raises:
            ConfigError: the engine does not give them.
        """
        raise self._lacks("Jacobians")

    def mass_matrices(self) -> Tensor:
        """Joint-space inertia, (N, nv, nv) float32.

        Raises:
            ConfigError: the engine does not give them.
        """
        raise self._lacks("mass matrices")

    def _lacks(self, what: str) -> ConfigError:
        return ConfigError(f"engine {self.name()}: {what}: not provided")

    def worker_cpu_seconds(self) -> float:
        """CPU time that other processes have spent on the steps of these worlds."""
        return 0.0

    def take_overflows(self) -> int:
        """Worlds × physics steps since the last call in which a buffer of the engine was too small. It logs which. The
        host waits for the device."""
        return 0

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Set one of `SUPPORTED_PARAMETERS`."""
        raise NotImplementedError

    @abstractmethod
    def snapshot(self) -> dict[str, np.ndarray]:
        """All that the engine needs to go on from here, as arrays. Its class says whether that is exact."""

    @abstractmethod
    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Go back to a snapshot of a simulator of the same model and size."""

    @abstractmethod
    def close(self) -> None:
        """Release processes, memory and devices; called once."""

    def _write_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """The tensors' part of `set_state`."""
        self.qpos[ids] = qpos
        self.qvel[ids] = qvel
        self.contact_wrench[ids] = 0.0

    def _reset_failed(self, n: int, refused: Tensor | None = None) -> None:
        """Find the failed among the first n worlds and put them back to the model's initial state.

        Args:
            refused: (k,) int64, worlds that the engine itself refused to step.
        """
        largest = torch.maximum(self.qpos[:n].abs().amax(1), self.qvel[:n].abs().amax(1))
        failed = torch.logical_not(largest < STATE_BOUND, out=self.failed[:n])
        if refused is not None:
            failed[refused] = True
        if failed.any():
            ids = failed.nonzero().squeeze(1)
            self.set_state(ids, self._initial_qpos.expand(len(ids), -1), torch.zeros_like(self.qvel[ids]))
