"""MuJoCo Warp: MuJoCo's physics for thousands of worlds on an NVIDIA GPU; on a CPU too, for tests and rehearsals.

MuJoCo Warp is imported when a simulator is built. So this module can tell what the engine can do without it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.features import FEATURES
from dualfid_robot.settings import require_integer
from dualfid_robot.simulators.base import PARAMETERS, Simulator
from dualfid_robot.simulators.mujoco.fidelity import MujocoFidelity
from dualfid_robot.simulators.mujoco.parameters import from_snapshot, snapshot_names

# What a world carries from one step to the next besides qpos and qvel.
_MEMORY = ("time", "act", "ctrl", "history", "qacc_warmstart")

_LOGGER = logging.getLogger(__name__)


class MujocoWarpSimulator(Simulator):
    """Worlds in MuJoCo Warp's arrays, of which qpos and qvel are zero-copy views.

    A step is one launch of a graph. It holds all substeps, the contact wrenches and the reset of failed worlds. Every
    number of worlds has a graph over the first rows of the same arrays. A graph is recorded when first needed. Neither
    a step nor `set_state_where` makes the host wait for the device.

    Snapshots are exact. So is a step on the CPU, and worlds do not depend on how many others step with them. On CUDA,
    threads append contacts in another order in each run, so the last digits of sums differ.
    """

    PORT_OF = "mujoco"
    PACKAGES = ("mujoco_warp", "warp")
    INSTALL = 'pip install "dualfid_robot[gpu]"'
    DEVICE_TYPES = ("cpu", "cuda")
    # A step computes no sensors but the last's; sleep, plasticity and plugins have a state of their own; of the others
    # MuJoCo Warp knows nothing. What else it does not support, it refuses itself when it is given the model.
    HONOURS = frozenset(FEATURES) - {
        *("delayed sensor", "plasticity", "plugin with a state", "actuators switched off", "flag sleep"),
        *("flag override", "flag fwdinv", "flag diagexact", "flag ipc", "flag speculative"),
    }
    SUPPORTED_PARAMETERS = tuple(PARAMETERS)
    RESETS_BY_MASK = True

    @dataclass(frozen=True)
    class Config(MujocoFidelity):
        """Settings of the engine, besides those of its fidelity.

        Attributes:
            nconmax: contacts to provide for per world, in a buffer that the stepping worlds share. Candidates for a
                contact need the same room. None sizes it from the model (`buffers`).
            njmax: constraint rows of each world; likewise.
            graphs: how many numbers of worlds keep their graph. The one unused for longest is dropped.
        """

        nconmax: int | None = None
        njmax: int | None = None
        graphs: int = 32

        def __post_init__(self) -> None:
            super().__post_init__()
            for key in ("nconmax", "njmax", "graphs"):
                value = getattr(self, key)
                if value is not None:
                    require_integer(key, value, 1)

    config: Config

    def _build(self) -> None:
        """Put the robot's worlds on the device.

        Raises:
            ConfigError: MuJoCo Warp does not support something in the model.
        """
        config, robot, num_worlds = self.config, self.robot, self.num_worlds
        self.model = config.compile(robot, self.control_dt, self.contact_bodies)
        from dualfid_robot.simulators.mujoco_warp.parameters import WorldParameters
        from dualfid_robot.simulators.mujoco_warp.worlds import Worlds

        try:
            self._worlds = Worlds(
                self.model,
                num_worlds,
                config.substeps,
                config.nconmax,
                config.njmax,
                config.graphs,
                self.contact_wrench,
                self.failed,
            )
        except ConfigError as error:
            raise ConfigError(f"engine=mujoco_warp cannot simulate {robot.path.name}: {error}") from error
        self._state = self._worlds.state
        self.qpos, self.qvel = self._state["qpos"], self._state["qvel"]
        self._parameters = WorldParameters(self.model, robot, self._worlds, num_worlds, self.device)
        self._reported = {"nconmax": 0, "njmax": 0}

    @property
    def buffers(self) -> dict[str, int]:
        """Sizes in use: nconmax, contacts per world in the buffer that the worlds share, and njmax, rows per world."""
        return {"nconmax": self._worlds.nconmax, "njmax": self._worlds.njmax}

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self._state["ctrl"][:n] = ctrl
        self._worlds.step(n)

    def finish_step(self) -> None:
        """Nothing to do: on a GPU, what reads the results is queued behind the step on the same stream."""

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self._write_state(ids, qpos, qvel)
        for name in _MEMORY:
            self._state[name][ids] = self._worlds.initial[name]

    def set_state_where(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        n, rows = len(mask), mask[:, None]
        torch.where(rows, qpos, self.qpos[:n], out=self.qpos[:n])
        torch.where(rows, qvel, self.qvel[:n], out=self.qvel[:n])
        for name in _MEMORY:
            memory = self._state[name][:n]
            torch.where(mask.reshape(n, *[1] * (memory.ndim - 1)), self._worlds.initial[name], memory, out=memory)
        self.contact_wrench[:n].masked_fill_(rows[:, :, None], 0.0)

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        self._parameters.set(name, ids, values)

    def take_overflows(self) -> int:
        """Worlds × physics steps since the last call in which a full buffer lost contacts or constraints.

        A loss is also logged as a warning that names the setting to raise. It comes again when more is needed than was
        logged. The host waits for the device: to be called once per iteration, not in every step.
        """
        report = self._worlds.take_overflows()
        contacts, rows, others = report.worlds
        self._warn_of_overflow("nconmax", contacts, "contacts per world on average", report.contacts)
        self._warn_of_overflow("njmax", rows, "constraint rows in a world", report.rows)
        if others:
            _LOGGER.warning(
                "engine mujoco_warp: one of MuJoCo Warp's own collision buffers overflowed in %d worlds × physics "
                "steps; collisions were inexact there",
                others,
            )
        return sum(report.worlds)

    def _warn_of_overflow(self, setting: str, lost: int, unit: str, needed: int) -> None:
        if lost and needed > self._reported[setting]:
            self._reported[setting] = needed
            _LOGGER.warning(
                "engine mujoco_warp: %s=%d was too small in %d worlds × physics steps, and contacts or limits were "
                "ignored there; raise %s (up to %d %s were seen)",
                setting,
                self.buffers[setting],
                lost,
                setting,
                needed,
                unit,
            )

    def snapshot(self) -> dict[str, np.ndarray]:
        tensors = self._state | {"contact_wrench": self.contact_wrench}
        tensors |= snapshot_names(self._parameters.values)
        return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        for name, tensor in (self._state | {"contact_wrench": self.contact_wrench}).items():
            tensor.copy_(torch.from_numpy(snapshot[name]))
        saved = from_snapshot(snapshot)
        self._parameters.replace({name: torch.from_numpy(array).to(self.device) for name, array in saved.items()})

    def close(self) -> None:
        self.take_overflows()
        self._worlds.forget_graphs()


ENGINE = MujocoWarpSimulator
