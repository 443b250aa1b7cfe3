"""PyBullet in worker processes: the coarse simulator. Feet touch the ground, and nothing else touches anything."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.robots.urdf import make_urdf
from dualfid_robot.simulators import _shared_memory
from dualfid_robot.simulators._pybullet_protocol import CLEAN, RAW, STATE, Spec
from dualfid_robot.simulators.base import STATE_BOUND, Simulator

_LOGGER = logging.getLogger(__name__)

# The shared arrays that say how to go on.
_STATE = ("qpos", "qvel", "raw", "contact_wrench", "dirty")


class PybulletSimulator(Simulator):
    """Worlds in PyBullet clients in worker processes, with the state in shared memory both ways.

    Attributes:
        worker_restarts: workers that died and were started again. The worlds that a dead worker was stepping are
            reported as failed; its others keep their state.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings of the engine.

        Attributes:
            substeps: physics steps in a control period.
            solver_iterations: of Bullet's constraint solver.
            friction: factor on the asset's friction.
            contact_stiffness, contact_damping: of the feet, N/m and N s/m.
            joint_damping: factor on the asset's joint damping.
            child_armature, parent_armature: factors on the asset's armature, which Bullet lacks, as inertia of the link
                below the joint and of the link above (see `robots.urdf`).
            limit_inertia: factor on a joint's inertia in the bound on torques that keeps joints within their limits.
            robots_per_client: robots that share a Bullet world. A client costs about 30 MB of memory, and its step a
                little more than in proportion to its robots.
            workers: processes; 0 takes all CPUs.
        """

        substeps: int = 2
        solver_iterations: int = 5
        friction: float = 1.0
        contact_stiffness: float = 1000.0
        contact_damping: float = 30.0
        joint_damping: float = 1.0
        child_armature: float = 1.0
        parent_armature: float = 1.0
        limit_inertia: float = 0.5
        robots_per_client: int = 16
        workers: int = 0

        def __post_init__(self) -> None:
            for key, least in (
                ("substeps", 1),
                ("solver_iterations", 1),
                ("friction", 0.0),
                ("contact_damping", 0.0),
                ("joint_damping", 0.0),
                ("child_armature", 0.0),
                ("parent_armature", 0.0),
                ("robots_per_client", 1),
                ("workers", 0),
            ):
                if not getattr(self, key) >= least:
                    raise ConfigError(f"{key}={getattr(self, key)}: must be at least {least}")
            for key in ("contact_stiffness", "limit_inertia"):
                if not getattr(self, key) > 0.0:
                    raise ConfigError(f"{key}={getattr(self, key)}: must be positive")

    def __init__(
        self,
        config: Config,
        robot: RobotModel,
        num_worlds: int,
        control_dt: float,
        contact_bodies: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        if importlib.util.find_spec("pybullet") is None:
            raise ConfigError(
                'engine=pybullet: not installed; pip install "dualfid_robot[pybullet]" (PyPI has no wheel for '
                "Python >= 3.12), or choose simulator/low=mujoco_reduced"
            )
        super().__init__(robot, num_worlds, control_dt, contact_bodies, device)
        self.config = config
        self.worker_restarts = 0
        workers = min(config.workers or _cpus(), num_worlds)
        spec = self._spec(workers, min(config.robots_per_client, -(-num_worlds // workers)))
        self._memory = _shared_memory.create(spec.layout)
        self._arrays = _shared_memory.attach(self._memory, spec.layout)
        self._tensors = {name: torch.from_numpy(array) for name, array in self._arrays.items()}
        self._arrays["qpos"][:] = robot.model.qpos0
        self._arrays["dirty"][:] = STATE
        clients = -(-num_worlds // spec.robots_per_client)
        self._workers = [_Worker(replace(spec, worker=i), self._memory) for i in range(min(workers, clients))]
        self._finalizer = weakref.finalize(self, _shut_down, self._workers, self._memory)
        for worker in self._workers:
            worker.await_ready()

    def _spec(self, workers: int, robots_per_client: int) -> Spec:
        robot, config, n = self.robot, self.config, self.num_worlds
        model, urdf = robot.model, make_urdf(robot, config.child_armature, config.parent_armature)
        joints = [model.joint(name).id for name in robot.joint_names]
        unmeasurable = sorted(set(self.contact_bodies) - set(urdf.foot_links))
        if unmeasurable:
            raise ConfigError(f"contact_bodies={unmeasurable}: only feet have contacts: {list(urdf.foot_links)}")
        torque = np.zeros((model.nu, len(joints)))
        for i in range(model.nu):
            column = joints.index(model.actuator_trnid[i, 0])
            torque[i, column] = model.actuator_gear[i, 0] * model.actuator_gainprm[i, 0]
        limited = model.actuator_ctrllimited[:, None].astype(bool)
        return Spec(
            urdf=urdf.text,
            planes=tuple((plane.normal, plane.offset) for plane in urdf.planes),
            gravity=tuple(model.opt.gravity.tolist()),
            floating=robot.floating_base,
            inertia=urdf.inertia,
            root_offset=urdf.root_offset,
            root_rotation=urdf.root_rotation,
            joint_names=robot.joint_names,
            joint_zero=model.qpos0[model.jnt_qposadr[joints]],
            joint_damping=model.dof_damping[model.jnt_dofadr[joints]] * config.joint_damping,
            joint_limits=robot.joint_limits,
            joint_inertia=config.limit_inertia * urdf.joint_inertia,
            foot_links=urdf.foot_links,
            friction=tuple(friction * config.friction for friction in urdf.friction),
            contact_links=self.contact_bodies,
            torque=torque,
            ctrl_range=np.where(limited, model.actuator_ctrlrange, (-np.inf, np.inf)),
            initial=(model.qpos0.copy(), np.zeros(model.nv)),
            bound=STATE_BOUND,
            control_dt=self.control_dt,
            substeps=config.substeps,
            solver_iterations=config.solver_iterations,
            contact_stiffness=config.contact_stiffness,
            contact_damping=config.contact_damping,
            num_worlds=n,
            robots_per_client=robots_per_client,
            workers=workers,
            worker=0,
            layout={
                "ctrl": ((n, model.nu), "f4"),
                "qpos": ((n, model.nq), "f8"),
                "qvel": ((n, model.nv), "f8"),
                "raw": ((n, 13 + 2 * len(joints)), "f8"),
                "contact_wrench": ((n, len(self.contact_bodies), 6), "f4"),
                "failed": ((n,), "?"),
                "dirty": ((n,), "u1"),
            },
        )

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self._n = n
        self._tensors["ctrl"][:n] = ctrl
        for worker in self._workers:
            worker.start_step(n)

    def finish_step(self) -> None:
        n, tensors = self._n, self._tensors
        dead = [worker for worker in self._workers if not worker.finish_step()]
        for worker in dead:
            self._restart(worker)
        self.qpos[:n] = tensors["qpos"][:n]
        self.qvel[:n] = tensors["qvel"][:n]
        self.contact_wrench[:n] = tensors["contact_wrench"][:n]
        self._reset_failed(n, tensors["failed"][:n].nonzero().squeeze(1))

    def _restart(self, worker: _Worker) -> None:
        spec, status = worker.spec, worker.close()
        if status >= 0:  # it was not killed: it has raised, and its traceback is on standard error
            raise RuntimeError(f"PyBullet worker {spec.worker} ended with status {status}")
        _LOGGER.warning("PyBullet worker %d died of signal %d; it is started again", spec.worker, -status)
        self.worker_restarts += 1
        self._workers[spec.worker] = _Worker(spec, self._memory)
        self._workers[spec.worker].await_ready()
        worlds = np.arange(self.num_worlds)
        worlds = worlds[worlds // spec.robots_per_client % spec.workers == spec.worker]
        self._reload(worlds)
        self._arrays["failed"][worlds[worlds < self._n]] = True

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self._write_state(ids, qpos, qvel)
        self._tensors["qpos"][ids] = qpos.double()
        self._tensors["qvel"][ids] = qvel.double()
        self._tensors["contact_wrench"][ids] = 0.0
        self._tensors["dirty"][ids] = STATE

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that the engine needs to go on from here.

        Exact: a step of Bullet depends on the state alone (contacts are found anew, nothing is warm-started), but
        Bullet's own state cannot be read to the last bit. So this simulator, too, goes on from what was read here, and
        to the bit as one that is restored from it.
        """
        self._reload()
        state = {name: self._arrays[name].copy() for name in _STATE}
        return state | {"robots_per_client": np.array(self._workers[0].spec.robots_per_client)}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        for name in _STATE:
            self._arrays[name][:] = snapshot[name]
        if snapshot["robots_per_client"] != self._workers[0].spec.robots_per_client:
            self._arrays["dirty"][:] = STATE  # the robots stand elsewhere in their clients: raw states do not fit
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


class _Worker:
    """A worker process and the pipes to it."""

    def __init__(self, spec: Spec, memory: int) -> None:
        self.spec = spec
        answers, answer = os.pipe()
        self._answers = os.fdopen(answers, "rb", buffering=0)
        # Not multiprocessing: its children import the parent's main module, and torch with it. A session of its own
        # keeps Ctrl-C from the worker; it ends when its standard input closes.
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__package__}._pybullet_worker import main; main({memory}, {answer})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(memory, answer),
            env=os.environ
            | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        os.close(answer)
        assert self._process.stdin is not None
        self._requests = self._process.stdin
        pickle.dump(spec, self._requests)
        self._requests.flush()

    def await_ready(self) -> None:
        if not self._answers.read(1):
            raise RuntimeError(f"PyBullet worker {self.spec.worker} ended at its start, status {self._process.wait()}")

    def start_step(self, n: int) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died between two steps; finish_step finds out
            os.write(self._requests.fileno(), n.to_bytes(4, "little"))

    def finish_step(self) -> bool:
        """Whether the worker lives."""
        return bool(self._answers.read(1))

    def close(self) -> int:
        """Let the process end; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        return self._process.wait()


def _cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _shut_down(workers: list[_Worker], memory: int) -> None:
    for worker in workers:
        worker.close()
    os.close(memory)


ENGINE = PybulletSimulator
