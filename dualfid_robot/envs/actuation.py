"""What a robot's actuators do in a state, for tasks that look at torques."""

from __future__ import annotations

import torch
from torch import Tensor

from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.robots.model import RobotModel


class JointTorques:
    """The force of each actuator on its joint, by the law of `robots.actuators`, without delay.

    The law is the asset's own. It leaves out what a simulator varies between worlds.
    """

    def __init__(self, robot: RobotModel, device: torch.device | str) -> None:
        """Take the law's numbers to a device.

        Raises:
            ConfigError: names an actuator whose force is not a function of the state and its control.
        """
        actuators = Actuators.from_robot(robot)

        def numbers(array: object) -> Tensor:
            return torch.as_tensor(array, dtype=torch.float32, device=device)

        self._qpos_column = torch.as_tensor(actuators.qpos_column, device=device)
        self._qvel_column = torch.as_tensor(actuators.qvel_column, device=device)
        self._gear, self._gain = numbers(actuators.gear), numbers(actuators.gain)
        self._constant, self._by_length, self._by_velocity = numbers(actuators.bias).unbind(1)
        self._ctrl_range = numbers(actuators.ctrl_range).unbind(1)
        self._force_range = numbers(actuators.force_range).unbind(1)
        self._voltage_bounded = bool((actuators.drop > 0.0).any())
        self._stall, self._drop = numbers(actuators.stall), numbers(actuators.drop)

    def __call__(self, control: Tensor, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Forces (n, nu) in the joints' units, N m or N.

        Args:
            control: (n, nu) in actuator units.
            qpos: (n, nq).
            qvel: (n, nv).
        """
        length = self._gear * qpos[:, self._qpos_column]
        velocity = self._gear * qvel[:, self._qvel_column]
        force = torch.addcmul(self._constant, self._gain, torch.clamp(control, *self._ctrl_range))
        force.addcmul_(self._by_length, length).addcmul_(self._by_velocity, velocity)
        if self._voltage_bounded:
            lost = self._drop * velocity
            force = torch.clamp(force, -self._stall - lost, self._stall - lost)
        return torch.clamp(force, *self._force_range).mul_(self._gear)
