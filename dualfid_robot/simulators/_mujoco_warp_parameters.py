"""Physical parameters that differ between the worlds of MuJoCo Warp's model."""

from __future__ import annotations

import mujoco
import mujoco_warp
import torch
import warp
from torch import Tensor

from dualfid_robot.simulators._mujoco_parameters import FIELDS, SLIDING, check_actuators, nominal_values
from dualfid_robot.simulators._mujoco_warp_worlds import Worlds, to_torch

# What MuJoCo derives from masses: inverse inertias at qpos0, from which the constraint solver takes its scales.
_DERIVED = ("dof_invweight0", "body_invweight0", "tendon_invweight0", "actuator_acc0")


class WorldParameters:
    """Values of parameters of all worlds, and the model's fields that follow from them.

    A field has one row, which all worlds share, until a parameter that changes it is first set; then it has N.

    Attributes:
        values: (N, …) by name; what was never set is not in it.
    """

    def __init__(
        self, model: mujoco.MjModel, asset: str, worlds: Worlds, num_worlds: int, device: torch.device
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self._host = model
        self._asset = asset
        self._worlds = worlds
        self._num_worlds = num_worlds
        self._device = device
        self._fields: dict[str, tuple[Tensor, Tensor]] = {}  # (1, …) nominal and (N, …) current values

    def set(self, name: str, ids: Tensor, values: Tensor) -> None:
        """Give the worlds `ids` values of one parameter.

        Raises:
            ConfigError: strength of an actuator whose force is not proportional to its gain and bias parameters.
        """
        if name == "motor_strength":
            check_actuators(self._host, self._asset)
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
        values = torch.from_numpy(nominal_values(self._host, name, self._num_worlds))
        return values.to(self._device, torch.float32)

    def _apply(self, name: str, ids: Tensor) -> None:
        values = self.values[name][ids]
        if name == "gravity":
            self._rows("gravity")[1][ids] = values
            return
        if name == "mass":
            values = torch.nn.functional.pad(values, (1, 0), value=1.0)  # MuJoCo's body 0 is the world
        for field in FIELDS[name]:
            nominal, current = self._rows(field)
            factors = values.reshape(*values.shape, *[1] * (nominal.ndim - values.ndim))
            if name == "friction":
                columns = torch.arange(nominal.shape[2], device=self._device)
                factors = torch.where(columns < SLIDING[field], factors, 1.0)
            current[ids] = nominal * factors
        if name == "mass":
            self._derive_from_mass()

    def _derive_from_mass(self) -> None:
        masses = self._rows("body_mass")[1].double()  # no TensorFloat-32 in this product
        self._rows("body_subtreemass")[1].copy_(masses @ self._subtrees())
        fields = [self._rows(field) for field in _DERIVED]
        with self._worlds.on_torch_stream():
            mujoco_warp.set_const(
                self._worlds.model, self._worlds.data, mujoco_warp.SetConstGroup.INERT0, restore=False
            )
        # Worlds of nominal mass keep MuJoCo's own figures: those just computed are of single precision.
        nominal_mass = (self.values["mass"] == 1.0).all(1)
        for nominal, current in fields:
            same = nominal_mass.reshape(-1, *[1] * (nominal.ndim - 1))
            torch.where(same, nominal, current, out=current)

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
