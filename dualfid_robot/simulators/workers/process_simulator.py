"""The parent's side of an engine whose worlds live in worker processes, with the state in shared memory both ways."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from typing import ClassVar, Protocol

import mujoco
import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.actuators import Actuators
from dualfid_robot.simulators.base import Simulator, nominal_value, parameter_shape
from dualfid_robot.simulators.mujoco.parameters import scaled_entries
from dualfid_robot.simulators.workers import shared_memory
from dualfid_robot.simulators.workers.joint_drives import JointDrives
from dualfid_robot.simulators.workers.process import CLEAN, RAW, STATE, WorkerProcess

_LOGGER = logging.getLogger(__name__)


class WorkerSpec(Protocol):
    """What every worker must know: its number, and the layout of the shared arrays.

    The arrays hold at least ctrl (n, nu) and contact_wrench (n, bodies, 6) in float32. qpos and qvel are float64,
    failed (n,) bool, and dirty (n,) uint8. raw (n, ·) is the state in the engine's own terms, which restores it to the
    bit.
    """

    @property
    def worker(self) -> int: ...

    @property
    def layout(self) -> shared_memory.Layout: ...


class ProcessSimulator(Simulator):
    """Worlds in worker processes.

    Attributes:
        worker_restarts: workers that died and were started again. The worlds that a dead worker was stepping are
            reported as failed; its others keep their state.
    """

    WORKER: ClassVar[str]
    """Full name of the module whose `main` is the worker (see `WorkerProcess`)."""
    MEMORY: ClassVar[tuple[str, ...]] = ("past", "load")
    """What drives carry from step to step (see `JointDrives`): earlier controls, and the joints' loads."""
    SNAPSHOT: ClassVar[tuple[str, ...]] = ("qpos", "qvel", "raw", "contact_wrench", "dirty", *MEMORY)
    """The shared arrays that say how to go on."""

    worker_restarts: int

    def _drives(self, model: mujoco.MjModel, substeps: int, joint_damping: float) -> JointDrives:
        """What acts on the joints of a model, in that many physics steps per control period.

        Args:
            joint_damping: factor on the asset's.
        """
        actuators = Actuators.from_model(model, self.robot.path.name)
        joints = np.flatnonzero(model.jnt_type != mujoco.mjtJoint.mjJNT_FREE)
        dofs, timestep = model.jnt_dofadr[joints], self.control_dt / substeps
        position_servo = scaled_entries(model, "servo_stiffness", "actuator_gainprm")[:, 0]
        limited = model.jnt_actfrclimited[joints, None].astype(bool)
        return JointDrives(
            timestep=timestep,
            steps=substeps,
            joint=actuators.joint,
            gear=actuators.gear,
            gain=actuators.gain,
            bias=actuators.bias,
            ctrl_range=actuators.ctrl_range,
            force_range=actuators.force_range,
            stall=actuators.stall,
            drop=actuators.drop,
            delay=actuators.delay_steps(timestep),
            position_servo=position_servo,
            velocity_servo=scaled_entries(model, "servo_damping", "actuator_gainprm")[:, 0],
            joint_force_range=np.where(limited, model.jnt_actfrcrange[joints], (-np.inf, np.inf)),
            stiffness=model.jnt_stiffness[joints].copy(),
            rest=model.qpos_spring[model.jnt_qposadr[joints]].copy(),
            damping=model.dof_damping[dofs] * joint_damping,
            friction=model.dof_frictionloss[dofs].copy(),
            inertia=_least_inertia(model, dofs),
        )

    def _layout(self, raw: str, drives: JointDrives) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shared arrays that every engine has, and those of the parameters that it sets.

        Args:
            raw: NumPy's name of the type of the engine's own state: 13 numbers of the root and 2 of each joint.
        """
        n, model, joints = self.num_worlds, self.robot.model, len(self.robot.joint_names)
        return {
            "ctrl": ((n, model.nu), "f4"),
            "qpos": ((n, model.nq), "f8"),
            "qvel": ((n, model.nv), "f8"),
            "raw": ((n, 13 + 2 * joints), raw),
            "contact_wrench": ((n, len(self.contact_bodies), 6), "f4"),
            "failed": ((n,), "?"),
            "dirty": ((n,), "u1"),
            **{name: ((n, *parameter_shape(self.robot, name)), "f4") for name in self.SUPPORTED_PARAMETERS},
            "past": ((n, drives.past, model.nu), "f4"),
            "load": ((n, joints), "f8"),
            "changed": ((n,), "?"),
            "cpu_seconds": ((n,), "f8"),  # of each worker, of which there are at most n
        }

    def _launch(self, specs: Sequence[WorkerSpec]) -> None:
        """Reserve the shared arrays and start a worker for each spec."""
        self.worker_restarts = 0
        self._cpu_seconds_of_the_dead = 0.0
        self._unproven: set[int] = set()  # workers that were started again and have not finished a step since
        layout = specs[0].layout
        self._memory = shared_memory.create(layout)
        self._arrays = shared_memory.attach(self._memory, layout)
        self._tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}
        self._arrays["qpos"][:] = self.robot.model.qpos0
        self._arrays["dirty"][:] = STATE
        self._initialize(self._arrays)
        self._specs = list(specs)
        self._workers = [WorkerProcess(self.WORKER, spec, self._memory) for spec in specs]
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, self._memory)
        for worker in self._workers:
            worker.await_ready()

    def _initialize(self, arrays: dict[str, np.ndarray]) -> None:
        """Fill the engine's own shared arrays before the workers start: parameters with their nominal values."""
        for name in self.SUPPORTED_PARAMETERS:
            arrays[name][:] = nominal_value(name)

    def _worlds_of(self, worker: int) -> np.ndarray:
        """The worlds that a worker steps."""
        raise NotImplementedError

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self._n = n
        self._tensors["ctrl"][:n] = ctrl
        for worker in self._workers:
            worker.start_step(n)

    def finish_step(self) -> None:
        n, tensors = self._n, self._tensors
        dead = [number for number, worker in enumerate(self._workers) if not worker.finish_step()]
        self._unproven &= set(dead)
        for number in dead:
            self._restart(number)
        self.qpos[:n] = tensors["qpos"][:n]
        self.qvel[:n] = tensors["qvel"][:n]
        self.contact_wrench[:n] = tensors["contact_wrench"][:n]
        self._reset_failed(n, tensors["failed"][:n].nonzero().squeeze(1))

    def _restart(self, number: int) -> None:
        status = self._workers[number].close()
        if status >= 0:  # it was not killed: it has raised, and its traceback is on standard error
            raise RuntimeError(f"worker {number} of engine {self.name()} ended with status {status}")
        if number in self._unproven:
            raise ConfigError(
                f"engine={self.name()}: a worker process died of signal {-status} again in its first step after a "
                f"restart: {self.robot.path.name} or the memory is too much for it; choose another simulator"
            )
        self._unproven.add(number)
        _LOGGER.warning("worker %d of engine %s died of signal %d; it is started again", number, self.name(), -status)
        self.worker_restarts += 1
        self._cpu_seconds_of_the_dead += float(self._arrays["cpu_seconds"][number])
        self._arrays["cpu_seconds"][number] = 0.0
        self._workers[number] = WorkerProcess(self.WORKER, self._specs[number], self._memory)
        self._workers[number].await_ready()
        worlds = self._worlds_of(number)
        self._reload(worlds)
        self._arrays["failed"][worlds[worlds < self._n]] = True

    def worker_cpu_seconds(self) -> float:
        return self._cpu_seconds_of_the_dead + float(self._arrays["cpu_seconds"].sum())

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self._write_state(ids, qpos, qvel)
        self._tensors["qpos"][ids] = qpos.double()
        self._tensors["qvel"][ids] = qvel.double()
        for name in ("contact_wrench", *self.MEMORY):
            self._tensors[name][ids] = 0.0
        self._tensors["dirty"][ids] = STATE

    def snapshot(self) -> dict[str, np.ndarray]:
        self._reload()
        return {name: self._arrays[name].copy() for name in self.SNAPSHOT}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        missing = [name for name in self.SNAPSHOT if name not in snapshot]
        if missing:
            raise ConfigError(
                f"engine={self.name()}: the saved state has no {missing[0]}: another version of this program made it, "
                "so train again"
            )
        for name in self.SNAPSHOT:
            self._arrays[name][:] = snapshot[name]
        self.qpos.copy_(self._tensors["qpos"])
        self.qvel.copy_(self._tensors["qvel"])
        self.contact_wrench.copy_(self._tensors["contact_wrench"])

    def close(self) -> None:
        self._finalizer()
        self._arrays.clear()
        self._tensors.clear()

    def _reload(self, worlds: slice | np.ndarray = slice(None)) -> None:
        """Let the workers take up worlds from the shared arrays at their next step."""
        dirty = self._arrays["dirty"][worlds]
        self._arrays["dirty"][worlds] = np.where(dirty == CLEAN, RAW, dirty)


def _least_inertia(model: mujoco.MjModel, dofs: np.ndarray, poses: int = 64) -> np.ndarray:
    """The least that any of these degrees of freedom feels by itself, all others free, in random poses."""
    data, matrix, generator = mujoco.MjData(model), np.zeros((model.nv, model.nv)), np.random.default_rng(0)
    joints = model.dof_jntid[dofs]
    addresses, limited = model.jnt_qposadr[joints], model.jnt_limited[joints, None].astype(bool)
    lower, upper = np.where(limited, model.jnt_range[joints], model.qpos0[addresses, None] + (-np.pi, np.pi)).T
    least = np.full(len(dofs), np.inf)
    for _ in range(poses):
        data.qpos[addresses] = generator.uniform(lower, upper)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, matrix)
        least = np.minimum(least, 1.0 / np.diag(np.linalg.inv(matrix))[dofs])
    return least


def _shut_down(workers: list[WorkerProcess], memory: int) -> None:
    for worker in workers:
        worker.close()
    os.close(memory)
