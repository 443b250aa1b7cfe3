"""MuJoCo's own batch of worlds on a C++ thread pool; full or reduced fidelity by its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import mujoco
import mujoco.batch
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.robots.features import FEATURES
from dualfid_robot.settings import require_integer
from dualfid_robot.simulators.base import PARAMETERS, Simulator
from dualfid_robot.simulators.mujoco.fidelity import MujocoFidelity
from dualfid_robot.simulators.mujoco.parameters import (
    FIELDS,
    INERTIAL,
    check_com,
    from_snapshot,
    nominal_values,
    parameters_of,
    scaled_entries,
    snapshot_names,
)
from dualfid_robot.threads import usable_cpus

# What a world carries from one step to the next besides qpos and qvel, and what a reset puts back.
_MEMORY = ("time", "act", "ctrl", "history", "plastic", "qacc_warmstart")
# Restoring these restores a world to the bit: the parts of MuJoCo's integration state that change in our use.
_STATE = ("qpos", "qvel", *_MEMORY)
# Warnings of MuJoCo that contacts or constraints were left out, for want of memory.
_LOST = [int(mujoco.mjtWarning.mjWARN_CONTACTFULL), int(mujoco.mjtWarning.mjWARN_CNSTRFULL)]

_LOGGER = logging.getLogger(__name__)


class MujocoSimulator(Simulator):
    """Worlds in `mujoco.batch.Batch`: bit-identical at any number of threads, and after `restore`.

    A parameter that no world has set costs nothing: the worlds share the model until then.
    """

    # Of sleep, and of a plugin's state, MuJoCo keeps account outside of what is saved here.
    HONOURS = frozenset(FEATURES) - {"flag sleep", "plugin with a state"}
    SUPPORTED_PARAMETERS = tuple(PARAMETERS)

    @dataclass(frozen=True)
    class Config(MujocoFidelity):
        """Settings of the engine, besides those of its fidelity.

        Attributes:
            threads: worker threads; 0 takes all CPUs that the process may use.
        """

        threads: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            require_integer("threads", self.threads, 0)

    config: Config

    def _build(self) -> None:
        """Build the worlds."""
        self.model = self.config.compile(self.robot, self.control_dt, self.contact_bodies)
        self._batch = mujoco.batch.Batch(self.model, self.num_worlds, self.config.threads or usable_cpus())
        self._rows = np.arange(self.num_worlds)
        self._views = {name: self._batch.bind(name) for name in _STATE}
        self._tensors = {name: torch.from_numpy(view) for name, view in self._views.items()}
        initial = mujoco.MjData(self.model)
        self._initial_memory = {name: torch.from_numpy(np.array(getattr(initial, name))) for name in _MEMORY}
        self._forces = self._batch.bind("actuator_force")
        self._pushed = False
        self._lost = 0
        self._parameters: dict[str, np.ndarray] = {}  # of all worlds, by name; what was never set is not in it
        if self.contact_bodies:
            start = int(self.model.sensor_adr[self.model.nsensor - len(self.contact_bodies)])
            self._measured = self._batch.bind("sensordata")[:, start:]
            self._contacts = torch.zeros(self.num_worlds, len(self.contact_bodies), 3, 3)

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self._n = n
        self._refused: Tensor | None = None
        self._tensors["ctrl"][:n] = ctrl
        try:
            self._batch.step(self._rows[:n], self.config.substeps)
        except mujoco.batch.SimulationError as error:
            self._refused = torch.from_numpy(np.asarray(error.ids))
        if self._pushed:
            self._batch.bind("xfrc_applied")[:] = 0.0
            self._pushed = False

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
        for name, initial in self._initial_memory.items():
            self._tensors[name][ids] = initial

    def body_states(self) -> Tensor:
        position, quaternion, velocity, centre = (self._batch.bind(n) for n in ("xpos", "xquat", "cvel", "subtree_com"))
        self._batch.forward(self._rows, mujoco.mjtStage.mjSTAGE_VEL)
        # MuJoCo gives the velocity of the point of the body that is at its tree's centre of mass.
        arm = torch.from_numpy(position[:, 1:] - centre[:, self.model.body_rootid[1:]])
        moving = torch.from_numpy(velocity[:, 1:].copy())
        states = torch.empty(self.num_worlds, self.model.nbody - 1, 13)
        np.copyto(states[..., :3].numpy(), position[:, 1:])
        np.copyto(states[..., 3:7].numpy(), quaternion[:, 1:])
        states[..., 7:10] = moving[..., 3:] + torch.linalg.cross(moving[..., :3], arm)
        states[..., 10:] = moving[..., :3]
        return states

    def actuator_forces(self) -> Tensor:
        return torch.from_numpy(self._forces.astype(np.float32))

    def apply_wrenches(self, wrenches: Tensor) -> None:
        np.copyto(self._batch.bind("xfrc_applied")[:, 1:], wrenches.numpy())
        self._pushed = True

    def jacobians(self) -> Tensor:
        bodies = self.model.nbody - 1
        jacobians = torch.empty(self.num_worlds, bodies, 6, self.model.nv)
        points = self.body_states()[..., :3].double().numpy()
        for body in range(bodies):
            linear, angular = self._batch.jac(body + 1, points[:, body])
            jacobians[:, body, :3], jacobians[:, body, 3:] = torch.from_numpy(linear), torch.from_numpy(angular)
        return jacobians

    def mass_matrices(self) -> Tensor:
        inertia = self._batch.bind("M")
        self._batch.forward(self._rows, mujoco.mjtStage.mjSTAGE_POS)
        entries = torch.from_numpy(inertia.astype(np.float32))
        rows = np.repeat(np.arange(self.model.nv), self.model.M_rownnz)
        matrices = torch.zeros(self.num_worlds, self.model.nv, self.model.nv)
        matrices[:, rows, self.model.M_colind] = entries
        matrices[:, self.model.M_colind, rows] = entries
        return matrices

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        if name == "com":
            check_com(self.model, self.robot.path.name, values)
        if name not in self._parameters:
            self._parameters[name] = nominal_values(self.robot, name, self.num_worlds)
        self._parameters[name][ids.numpy()] = values.numpy()
        self._apply(name, np.sort(ids.numpy()))

    def _apply(self, name: str, worlds: np.ndarray) -> None:
        """Write a parameter of some worlds, in ascending order, into their models."""
        if name == "gravity":
            self._batch.expand("opt.gravity")[worlds] = self._parameters[name][worlds]
        elif name == "com":
            self._batch.expand("body_ipos")[worlds, 1:] = self.model.body_ipos[1:] + self._parameters[name][worlds]
        elif name == "joint_range":
            self._batch.expand("jnt_range")[worlds] = self.model.jnt_range + self._parameters[name][worlds]
        else:
            for field in FIELDS[name]:
                if getattr(self.model, field).size:
                    self._batch.expand(field)[worlds] = self._scaled(field, worlds)
        if name in INERTIAL:
            self._batch.set_const(worlds)  # inverse inertias, from which the constraint solver takes its scales

    def _scaled(self, field: str, worlds: np.ndarray) -> np.ndarray:
        """A field of some worlds, under all the factors that they were given."""
        nominal = getattr(self.model, field)
        product = np.tile(nominal, (len(worlds), *[1] * nominal.ndim))
        for name in parameters_of(field):
            if name in self._parameters:
                factors = self._parameters[name][worlds]
                if name == "mass":
                    factors = np.insert(factors, 0, 1.0, axis=1)  # MuJoCo's body 0 is the world
                factors = np.expand_dims(factors, tuple(range(factors.ndim, product.ndim)))
                product *= np.where(scaled_entries(self.model, name, field), factors, 1.0)
        return product

    def take_overflows(self) -> int:
        lost = int(self._batch.warning[:, _LOST, 1].max(1).sum())  # since the worlds were built
        new, self._lost = lost - self._lost, lost
        if new:
            _LOGGER.warning(
                "%s: contacts or limits were ignored for want of memory in %d worlds × physics steps; "
                'raise it in the file: <size memory="%dM"/>',
                *(self.robot.path.name, new, 2 * self.model.narena >> 20),
            )
        return new

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
            values = saved[name] if name in saved else nominal_values(self.robot, name, self.num_worlds)
            self._parameters[name] = values.copy()
            self._apply(name, self._rows)

    def close(self) -> None:
        self.take_overflows()
        del self._batch, self._views, self._tensors


ENGINE = MujocoSimulator
