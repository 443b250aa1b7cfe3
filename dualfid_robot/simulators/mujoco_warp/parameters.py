"""Physical parameters that differ between the worlds of MuJoCo Warp's model."""

from __future__ import annotations

import mujoco
import mujoco_warp
import torch
import warp
from torch import Tensor

from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.parameters import (
    FIELDS,
    INERTIAL,
    check_com,
    nominal_values,
    parameters_of,
    scaled_entries,
)
from dualfid_robot.simulators.mujoco_warp.worlds import Worlds, to_torch

# What MuJoCo derives from masses and their places: inverse inertias at qpos0, from which the constraint solver takes
# its scales.
_DERIVED = ("dof_invweight0", "body_invweight0", "tendon_invweight0", "actuator_acc0")


class WorldParameters:
    """Values of parameters of all worlds, and the model's fields that follow from them.

    A field has one row, which all worlds share, until a parameter that changes it is first set. Then it has N.

    Attributes:
        values: (N, …) by name. What was never set is not in it.
    """

    def __init__(
        self, model: mujoco.MjModel, robot: RobotModel, worlds: Worlds, num_worlds: int, device: torch.device
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self._host = model
        self._robot = robot
        self._worlds = worlds
        self._num_worlds = num_worlds
        self._device = device
        self._masks: dict[tuple[str, str], Tensor] = {}
        self._fields: dict[str, tuple[Tensor, Tensor]] = {}  # (1, …) nominal and (N, …) current values

    def set(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Give the worlds `ids` values of one parameter.

        Raises:
            ConfigError: the parameter has no meaning for this robot's actuators, or a centre of mass cannot move.
        """
        if name == "com":
            check_com(self._host, self._robot.path.name, values)
        if name not in self.values:
            self.values[name] = self._nominal(name)
        self.values[name][ids] = values
        self._apply(name, ids)

    def replace(self, values: dict[str, Tensor]) -> None:
        """Set all worlds to values of all parameters, nominal ones where none are given."""
        everyone = torch.arange(self._num_worlds, device=self._device)
        for name in values.keys() | self.values.keys():
            self.set(name, everyone, values[name] if name in values else self._nominal(name))

    def _nominal(self, name: str) -> Tensor:
        """The asset's values of a parameter for all worlds."""
        values = torch.from_numpy(nominal_values(self._robot, name, self._num_worlds))
        return values.to(self._device, torch.float32)

    def _apply(self, name: str, ids: Tensor) -> None:
        if name == "gravity":
            self._rows("gravity")[1][ids] = self.values[name][ids]
        elif name == "com":
            nominal, current = self._rows("body_ipos")
            current[ids] = nominal + torch.nn.functional.pad(self.values[name][ids], (0, 0, 1, 0))
        elif name == "joint_range":
            nominal, current = self._rows("jnt_range")
            current[ids] = nominal + self.values[name][ids]
        else:
            for field in FIELDS[name]:
                self._rows(field)[1][ids] = self._scaled(field, ids)
        if name in INERTIAL:
            self._derive_from_inertia()

    def _scaled(self, field: str, ids: Tensor) -> Tensor:
        """A field of some worlds, under all the factors that they were given."""
        nominal, _ = self._rows(field)
        product = nominal.repeat(len(ids), *[1] * (nominal.ndim - 1))
        for name in parameters_of(field):
            if name in self.values:
                factors = self.values[name][ids]
                if name == "mass":
                    factors = torch.nn.functional.pad(factors, (1, 0), value=1.0)  # MuJoCo's body 0 is the world
                factors = factors.reshape(*factors.shape, *[1] * (product.ndim - factors.ndim))
                product *= torch.where(self._entries(name, field).reshape(nominal.shape), factors, 1.0)
        return product

    def _entries(self, name: str, field: str) -> Tensor:
        """`scaled_entries` on the device."""
        if (name, field) not in self._masks:
            mask = scaled_entries(self._host, name, field)
            self._masks[name, field] = torch.tensor(mask, device=self._device)
        return self._masks[name, field]

    def _derive_from_inertia(self) -> None:
        """Compute what depends on masses and centres of mass."""
        if "mass" in self.values:
            masses = self._rows("body_mass")[1].double()  # no TensorFloat-32 in this product
            self._rows("body_subtreemass")[1].copy_(masses @ self._subtrees())
        fields = [self._rows(field) for field in _DERIVED]
        with self._worlds.on_torch_stream():
            mujoco_warp.set_const(
                self._worlds.model, self._worlds.data, mujoco_warp.SetConstGroup.INERT0, restore=False
            )
        # Worlds of nominal inertia keep MuJoCo's own figures: those just computed are of single precision.
        same = torch.ones(self._num_worlds, dtype=torch.bool, device=self._device)
        for name in INERTIAL:
            if name in self.values:
                same &= (self.values[name] == self._nominal(name)).flatten(1).all(1)
        for nominal, current in fields:
            torch.where(same.reshape(-1, *[1] * (nominal.ndim - 1)), nominal, current, out=current)

    def _subtrees(self) -> Tensor:
        """(bodies, bodies): 1 where the row's body is in the subtree of the column's."""
        member = torch.eye(self._host.nbody, dtype=torch.float64)
        for body in range(self._host.nbody - 1, 0, -1):  # children come after their parents
            member[:, self._host.body_parentid[body]] += member[:, body]
        return member.to(self._device)

    def _rows(self, field: str) -> tuple[Tensor, Tensor]:
        """Nominal (1, …) and current (N, …) values of a field of the model."""
        if field not in self._fields:
            model = self._worlds.model
            owner = model.opt if field == "gravity" else model
            array = getattr(owner, field)
            nominal = to_torch(array, self._device)
            current = nominal.repeat(self._num_worlds, *[1] * (nominal.ndim - 1))
            if array.size:
                setattr(owner, field, warp.from_torch(current, dtype=array.dtype))
                self._worlds.forget_graphs()
            self._fields[field] = nominal, current
        return self._fields[field]
