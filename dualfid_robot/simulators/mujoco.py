"""MuJoCo's own batch of worlds on a C++ thread pool; full or reduced fidelity by its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco.batch
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators._mujoco_fidelity import MujocoFidelity
from dualfid_robot.simulators._mujoco_parameters import (
    FIELDS,
    SLIDING,
    check_actuators,
    from_snapshot,
    nominal_values,
    snapshot_names,
)
from dualfid_robot.simulators.base import PARAMETERS, Simulator

# The parts of MuJoCo's integration state that change in our use; restoring them restores a world to the bit.
_STATE = ("time", "qpos", "qvel", "act", "ctrl", "qacc_warmstart")


class MujocoSimulator(Simulator):
    """Worlds in `mujoco.batch.Batch`: bit-identical at any number of threads, and after `restore`.

    A parameter that no world has set costs nothing: the worlds share the model until then.
    """

    SUPPORTED_PARAMETERS = tuple(PARAMETERS)

    @dataclass(frozen=True)
    class Config(MujocoFidelity):
        """Settings of the engine, besides those of its fidelity.

        Attributes:
            threads: worker threads; 0 takes all CPUs.
        """

        threads: int = 0

        def __post_init__(self) -> None:
            for key, least in (("substeps", 1), ("iterations", 1), ("threads", 0)):
                value = getattr(self, key)
                if value is not None and value < least:
                    raise ConfigError(f"{key}={value}: must be at least {least}")

    def __init__(
        self,
        config: Config,
        robot: RobotModel,
        num_worlds: int,
        control_dt: float,
        contact_bodies: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(robot, num_worlds, control_dt, contact_bodies, device)
        self.config = config
        self.model = config.compile(robot, control_dt, contact_bodies)
        self._batch = mujoco.batch.Batch(self.model, num_worlds, config.threads)
        self._rows = np.arange(num_worlds)
        self._views = {name: self._batch.bind(name) for name in _STATE}
        self._tensors = {name: torch.from_numpy(view) for name, view in self._views.items()}
        self._parameters: dict[str, np.ndarray] = {}  # of all worlds, by name; what was never set is not in it
        if contact_bodies:
            start = int(self.model.sensor_adr[self.model.nsensor - len(contact_bodies)])
            self._measured = self._batch.bind("sensordata")[:, start:]
            self._contacts = torch.zeros(num_worlds, len(contact_bodies), 3, 3)

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self._n = n
        self._refused: Tensor | None = None
        self._tensors["ctrl"][:n] = ctrl
        try:
            self._batch.step(self._rows[:n], self.config.substeps)
        except mujoco.batch.SimulationError as error:
            self._refused = torch.from_numpy(np.asarray(error.ids))

    def finish_step(self) -> None:
        n = self._n
        self.qpos[:n] = self._tensors["qpos"][:n]
        self.qvel[:n] = self._tensors["qvel"][:n]
        if self.contact_bodies:
            self._read_contact_wrench(n)
        self._reset_failed(n, self._refused)

    def _read_contact_wrench(self, n: int) -> None:
        contacts = self._contacts[:n]
        np.copyto(contacts.view(n, -1).numpy(), self._measured[:n])
        # MuJoCo reports the force that the body exerts, and its torque about the contact point.
        force, torque, arm = contacts.unbind(2)
        if self.robot.floating_base:
            arm -= self.qpos[:n, None, :3]
        wrench = self.contact_wrench[:n]
        torch.neg(force, out=wrench[..., :3])
        torch.linalg.cross(wrench[..., :3], arm, out=wrench[..., 3:]).add_(torque).neg_()

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self._write_state(ids, qpos, qvel)
        self._tensors["qpos"][ids] = qpos.double()
        self._tensors["qvel"][ids] = qvel.double()
        for name in ("time", "act", "ctrl", "qacc_warmstart"):
            self._tensors[name][ids] = 0.0

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        if name == "motor_strength":
            check_actuators(self.model, self.robot.path.name)
        if name not in self._parameters:
            self._parameters[name] = nominal_values(self.model, name, self.num_worlds)
        self._parameters[name][ids.numpy()] = values.numpy()
        self._apply(name, np.sort(ids.numpy()))

    def _apply(self, name: str, worlds: np.ndarray) -> None:
        """Write a parameter of some worlds, in ascending order, into their models."""
        values = self._parameters[name][worlds]
        if name == "gravity":
            self._batch.expand("opt.gravity")[worlds] = values
            return
        if name == "mass":
            values = np.insert(values, 0, 1.0, axis=1)  # MuJoCo's body 0 is the world
        for field in FIELDS[name]:
            nominal = getattr(self.model, field)
            factors = np.expand_dims(values, tuple(range(values.ndim, 1 + nominal.ndim)))
            if name == "friction":
                factors = np.where(np.arange(nominal.shape[1]) < SLIDING[field], factors, 1.0)
            if nominal.size:
                self._batch.expand(field)[worlds] = nominal * factors
        if name == "mass":
            self._batch.set_const(worlds)  # inverse inertias, from which the constraint solver takes its scales

    def snapshot(self) -> dict[str, np.ndarray]:
        state = {name: view.copy() for name, view in self._views.items()}
        parameters = {name: values.copy() for name, values in self._parameters.items()}
        return state | snapshot_names(parameters) | {"contact_wrench": self.contact_wrench.numpy().copy()}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        for name, view in self._views.items():
            view[:] = snapshot[name]
        self.qpos.copy_(self._tensors["qpos"])
        self.qvel.copy_(self._tensors["qvel"])
        self.contact_wrench.copy_(torch.from_numpy(snapshot["contact_wrench"]))
        saved = from_snapshot(snapshot)
        for name in saved.keys() | self._parameters.keys():
            values = saved[name] if name in saved else nominal_values(self.model, name, self.num_worlds)
            self._parameters[name] = values.copy()
            self._apply(name, self._rows)

    def close(self) -> None:
        del self._batch, self._views, self._tensors


ENGINE = MujocoSimulator
