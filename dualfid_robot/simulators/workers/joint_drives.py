"""What acts on joints besides limits and contacts: actuators, springs, dampers and dry friction, at each physics step.

It imports neither torch nor MuJoCo, for engines' worker processes. Actuators follow the law of `robots.actuators`.

MuJoCo's implicit integrators use the velocity at the end of a step of length h. Let F be the forces at its beginning,
and D = -dF/dv. They solve (M + h D) a = F + …. An engine that takes joint forces as given must be told those at the
end, F - h D a. For each joint by itself, of inertia m, under the load L of all else (gravity, contacts, other joints),

    F - h D a = F - beta (F + L),    beta = h D / (m + h D),

the diagonal form of Tan, Liu and Turk's stable PD controllers (IEEE Computer Graphics and Applications 31(4), 2011). L
is what the last step's acceleration leaves unexplained. So a joint at rest under a load gets F exactly, and too small
an m is made up for. Too large an m would not be stable, so m is the least that is found in random poses. Up to h D of
ten times m, joints come to rest where they should.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_STIFF = 0.25  # relative to m / h: from this damping on, explicit forces would not do


class Gains(NamedTuple):
    """Gain and bias of each actuator in some worlds: (n, nu) each; of `bias`, constant, of length and of velocity."""

    gain: np.ndarray
    bias: tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class JointDrives:
    """The drives of a robot, for physics steps of one length.

    Attributes:
        timestep: h, s.
        steps: physics steps in a control period.
        joint: (nu,) the place of each actuator's joint in `RobotModel.joint_names`.
        gear, gain, bias, ctrl_range, force_range, stall, drop: as in `Actuators`.
        delay: (nu,) physics steps by which controls are late.
        position_servo, velocity_servo: (nu,) bool: whose gains the parameters `servo_stiffness` and `servo_damping`
            multiply.
        joint_force_range: (joints, 2) bounds of the sum of the actuators' forces on a joint.
        stiffness, rest, damping, friction: (joints,) of springs, where they rest, of dampers, and dry friction.
        inertia: (joints,) m, kg m^2 or kg.
    """

    timestep: float
    steps: int
    joint: np.ndarray
    gear: np.ndarray
    gain: np.ndarray
    bias: np.ndarray
    ctrl_range: np.ndarray
    force_range: np.ndarray
    stall: np.ndarray
    drop: np.ndarray
    delay: np.ndarray
    position_servo: np.ndarray
    velocity_servo: np.ndarray
    joint_force_range: np.ndarray
    stiffness: np.ndarray
    rest: np.ndarray
    damping: np.ndarray
    friction: np.ndarray
    inertia: np.ndarray

    @property
    def past(self) -> int:
        """Control periods before the current one whose controls are still needed."""
        return -(-int(self.delay.max(initial=0)) // self.steps)

    @property
    def in_motion(self) -> bool:
        """Whether forces change from physics step to physics step, or would be unstable as explicit ones."""
        return bool(
            self.bias[:, 1:].any()
            or self.drop.any()
            or self.delay.any()
            or self.stiffness.any()
            or self.friction.any()
            or (self.timestep * self.damping > _STIFF * self.inertia).any()
        )

    def gains(self, strength: np.ndarray, servo_stiffness: np.ndarray, servo_damping: np.ndarray) -> Gains:
        """Gains under factors (n, nu) on all of an actuator's, and on a servo's of position and of velocity."""
        by_position = np.where(self.position_servo, servo_stiffness, 1.0)
        by_velocity = np.where(self.position_servo | self.velocity_servo, servo_damping, 1.0)
        scale = np.where(self.velocity_servo, servo_damping, by_position)
        constant, by_length, by_speed = strength[..., None, :] * self.bias.T, by_position, by_velocity
        return Gains(
            self.gain * strength * scale,
            (constant[..., 0, :], constant[..., 1, :] * by_length, constant[..., 2, :] * by_speed),
        )

    def delayed(self, ctrl: np.ndarray, past: np.ndarray, step: int) -> np.ndarray:
        """Controls (n, nu) that act in a physics step of the control period.

        Args:
            ctrl: (n, nu) of this period.
            past: (n, past, nu) of those before, the latest first.
            step: number of the physics step in the period.
        """
        if not past.shape[1]:
            return ctrl
        periods = np.maximum(-(-(self.delay - step) // self.steps), 0)
        everything = np.concatenate([ctrl[:, None], past], 1)
        return everything[:, periods, np.arange(len(periods))]

    def forces(
        self,
        ctrl: np.ndarray,
        position: np.ndarray,
        velocity: np.ndarray,
        gains: Gains,
        damping: np.ndarray,
        springs: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Forces on joints at the beginning of a step, and D: (n, joints) each. Dry friction is not among them.

        Args:
            ctrl: (n, nu).
            position, velocity: (n, joints).
            gains: of the worlds.
            damping, springs: (n, joints) or (n, 1) factors on the dampers and the springs.
        """
        speed = self.gear * velocity[:, self.joint]
        force = gains.gain * np.clip(ctrl, *self.ctrl_range.T) + gains.bias[0]
        force += gains.bias[1] * self.gear * position[:, self.joint] + gains.bias[2] * speed
        slope = np.broadcast_to(gains.bias[2], force.shape)
        if self.drop.any():
            free = force
            force = np.clip(force, -self.stall - self.drop * speed, self.stall - self.drop * speed)
            slope = np.where(force == free, slope, -self.drop)
        free = force
        force = np.clip(force, *self.force_range.T)
        slope = np.where(force == free, slope, 0.0)
        torque, falls = np.zeros(velocity.shape), np.zeros(velocity.shape)
        np.add.at(torque.T, self.joint, (force * self.gear).T)
        np.add.at(falls.T, self.joint, (-slope * self.gear**2).T)
        free = torque
        torque = np.clip(torque, *self.joint_force_range.T)
        falls = np.where(torque == free, falls, 0.0) + self.damping * damping
        torque += self.stiffness * springs * (self.rest - position) - self.damping * damping * velocity
        return torque, falls

    def implicit(self, torque: np.ndarray, falls: np.ndarray, velocity: np.ndarray, load: np.ndarray) -> np.ndarray:
        """Forces at the end of a step, (n, joints), dry friction included, from what `forces` gives.

        Args:
            load: (n, joints) of the step before; 0 in the first.
        """
        added = self.timestep * np.maximum(falls, 0.0)
        # A load that the drive could not hold is a blow, which will not be there in the next step.
        held = np.clip(load, -np.abs(torque), np.abs(torque))
        torque = torque - added / (self.inertia + added) * (torque + held)
        if self.friction.any():
            # As much as would stop the joint by the end of the step, within its bounds. It holds a load, too.
            most = np.abs(torque) + self.friction
            stopping = -self.inertia / self.timestep * velocity - (torque + np.clip(load, -most, most))
            torque += np.clip(stopping, -self.friction, self.friction)
        return torque

    def load(self, torque: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """The load (n, joints) in a step that took the velocities from `before` to `after` under forces `torque`."""
        return self.inertia / self.timestep * (after - before) - torque
