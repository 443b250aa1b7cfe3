"""A robot's actuators as numbers, read from the model that MuJoCo compiled, for engines and tasks that apply their law.

Every actuator that can be described here acts on one hinge or slide joint and keeps no state. Let u be the control, and
l and v the actuator's length and velocity, gear times those of the joint. It pulls with

    force = clip(clip(gain * clip(u) + b0 + b1 * l + b2 * v, -stall - drop * v, stall - drop * v), force range)

and the joint feels gear * force. A motor has b1 = b2 = 0. MJCF's position servo has gain kp, b1 = -kp, b2 = -kv. Its
velocity servo has gain kv, b2 = -kv. MuJoCo's DC motor of resistance R and motor constant K gives K / R * (V - K * v)
at voltage V. Commanded by voltage, this is affine. Under its own controller, V is what that asks for, but at most Vmax.
So the torque falls with speed from stall = K * Vmax / R by drop = K^2 / R.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import mujoco
import numpy as np

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel

Kind = Literal["motor", "position", "velocity", "dc motor"]

_SCALAR = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
_FIXED, _DC_GAIN = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_DCMOTOR)
_NO_BIAS, _AFFINE = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)
_LINEAR_GAINS = (_FIXED, int(mujoco.mjtGain.mjGAIN_AFFINE))
_LINEAR_BIASES = (_NO_BIAS, _AFFINE)
_POSITION, _VELOCITY, _FEEDFORWARD, _VOLTAGE = 1, 2, 4, 8  # MuJoCo's enumeration mjtInput, which Python does not see


@dataclass(frozen=True)
class Actuators:
    """The actuators of a robot, nu of them, in the order of `RobotModel.actuator_names`.

    Attributes:
        names: of the actuators.
        kinds: "motor" (no feedback), "position" (feedback of position, and perhaps of velocity), "velocity" (feedback
            of velocity alone) or "dc motor".
        joint: (nu,) the place of each one's joint in `RobotModel.joint_names`.
        qpos_column, qvel_column: (nu,) the joint's columns in qpos and qvel.
        gear: (nu,) joint torque per unit of force.
        gain: (nu,) force per unit of control.
        bias: (nu, 3) b0, b1 and b2 of the module's law.
        ctrl_range, force_range: (nu, 2) infinite where there is none.
        stall, drop: (nu,) force that full voltage gives at rest, and the loss of force per unit of velocity. They are
            infinite and 0 where no voltage bounds the force.
        delay: (nu,) time after which a control acts, s.
    """

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    joint: np.ndarray
    qpos_column: np.ndarray
    qvel_column: np.ndarray
    gear: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    ctrl_range: np.ndarray
    force_range: np.ndarray
    stall: np.ndarray
    drop: np.ndarray
    delay: np.ndarray

    @classmethod
    def from_robot(cls, robot: RobotModel) -> Actuators:
        """Read them from a robot's model.

        Raises:
            ConfigError: names an actuator and what of it cannot be expressed here.
        """
        return cls.from_model(robot.model, robot.path.name)

    @classmethod
    def from_model(cls, model: mujoco.MjModel, asset: str) -> Actuators:
        """Actuators of a compiled model. `asset` is its name in errors."""
        laws = [actuator_law(model, actuator, asset) for actuator in range(model.nactuator)]
        joints = model.actuator_trnid[:, 0].astype(np.int64)
        places = np.cumsum(np.isin(model.jnt_type, _SCALAR)) - 1
        return cls(
            names=tuple(str(model.actuator(i).name) for i in range(model.nactuator)),
            kinds=tuple(law.kind for law in laws),
            joint=places[joints],
            qpos_column=model.jnt_qposadr[joints].astype(np.int64),
            qvel_column=model.jnt_dofadr[joints].astype(np.int64),
            gear=model.actuator_gear[:, 0].copy(),
            gain=np.array([law.gain for law in laws]),
            bias=np.array([law.bias for law in laws]).reshape(-1, 3),
            ctrl_range=_range(model.actuator_ctrllimited, model.actuator_ctrlrange),
            force_range=_range(model.actuator_forcelimited, model.actuator_forcerange),
            stall=np.array([law.stall for law in laws]),
            drop=np.array([law.drop for law in laws]),
            delay=model.actuator_delay.copy(),
        )

    def delay_steps(self, timestep: float) -> np.ndarray:
        """Physics steps (nu,) by which controls are late: MuJoCo takes the newest control that is old enough."""
        return np.ceil(self.delay / timestep - 1e-6).astype(np.int64)


def servos(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    """Which actuators are position servos and which velocity servos, (nu,) bool each.

    A position servo's force is kp (ctrl - length) - kd velocity, a velocity servo's kv (ctrl - velocity).
    """
    gain, bias = model.actuator_gainprm[:, 0], model.actuator_biasprm
    linear = (model.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED) & (gain != 0)
    linear &= model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE
    position = linear & (bias[:, 1] == -gain)
    return position, linear & (bias[:, 1] == 0) & (bias[:, 2] == -gain)


def first_nonlinear(model: mujoco.MjModel) -> str | None:
    """Name of the first actuator whose force is not proportional to its gain and bias parameters, if there is one."""
    linear = np.isin(model.actuator_gaintype, _LINEAR_GAINS) & np.isin(model.actuator_biastype, _LINEAR_BIASES)
    return None if linear.all() else str(model.actuator(int(np.flatnonzero(~linear)[0])).name)


class Law(NamedTuple):
    """The numbers of the module's law, of one actuator."""

    kind: Kind
    gain: float
    bias: tuple[float, float, float]
    stall: float = np.inf
    drop: float = 0.0


_Refuse = Callable[[str], ConfigError]


def actuator_law(model: mujoco.MjModel, actuator: int, asset: str) -> Law:
    """The law of one actuator; `asset` is the model's name in errors.

    Raises:
        ConfigError: says what of it cannot be expressed here.
    """
    return _law(model, actuator, _refusal(model, actuator, asset))


def _refusal(model: mujoco.MjModel, actuator: int, asset: str) -> _Refuse:
    def refuse(problem: str) -> ConfigError:
        allowed = ", ".join(get_args(Kind))
        return ConfigError(
            f"{asset}: actuator {model.actuator(actuator).name}: {problem} cannot be expressed for this engine; "
            f"allowed are actuators on hinge and slide joints: {allowed}"
        )

    return refuse


def _law(model: mujoco.MjModel, actuator: int, refuse: _Refuse) -> Law:
    transmission = mujoco.mjtTrn(model.actuator_trntype[actuator]).name.removeprefix("mjTRN_").lower()
    if transmission != "joint":
        raise refuse(f"a transmission to a {transmission}")
    if int(model.jnt_type[model.actuator_trnid[actuator, 0]]) not in _SCALAR:
        raise refuse("a transmission to a ball or free joint")
    if model.actuator_actnum[actuator]:
        raise refuse("an actuator with a state of its own")
    if model.actuator_damping[actuator] or model.actuator_dampingpoly[actuator].any():
        raise refuse("damping of an actuator")
    if model.actuator_armature[actuator]:
        raise refuse("armature of an actuator")
    if model.actuator_history[actuator, 1]:
        raise refuse("interpolation between delayed controls")
    gain, bias = int(model.actuator_gaintype[actuator]), int(model.actuator_biastype[actuator])
    if gain == _DC_GAIN:
        return _dc_motor(model, actuator, refuse)
    if gain != _FIXED or bias not in (_NO_BIAS, _AFFINE):
        name = mujoco.mjtGain(gain).name if gain != _FIXED else mujoco.mjtBias(bias).name
        raise refuse(f"a gain or bias of type {name.partition('_')[2].lower()}")
    b0, b1, b2 = model.actuator_biasprm[actuator, :3].tolist() if bias == _AFFINE else (0.0, 0.0, 0.0)
    kind: Kind = "position" if b1 else "velocity" if b2 else "motor"
    return Law(kind, float(model.actuator_gainprm[actuator, 0]), (b0, b1, b2))


def _dc_motor(model: mujoco.MjModel, actuator: int, refuse: _Refuse) -> Law:
    """Parameters as MuJoCo's compiler lays them out: resistance, motor constant, (2 thermal), kp, ki, kd, Vmax."""
    resistance, constant, _, _, kp, _, kd, largest = model.actuator_gainprm[actuator, :8].tolist()
    if model.actuator_biasprm[actuator].any():
        raise refuse("cogging or LuGre friction")
    per_volt, drop = constant / resistance, constant**2 / resistance
    signal = int(model.actuator_ctrlspec[actuator])
    if signal == _VOLTAGE:
        return Law("dc motor", per_volt, (0.0, 0.0, -drop))
    gain = {_POSITION: kp, _VELOCITY: kd, _FEEDFORWARD: 1.0}[signal]
    bounds = (per_volt * largest, drop) if largest > 0.0 else (np.inf, 0.0)
    return Law("dc motor", gain, (0.0, -kp, -kd), *bounds)


def _range(limited: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return np.where(limited[:, None].astype(bool), bounds, (-np.inf, np.inf))
