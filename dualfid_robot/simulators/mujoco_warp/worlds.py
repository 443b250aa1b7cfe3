"""A model and its worlds in MuJoCo Warp's arrays. Every number of worlds has one graph of a control period."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import OrderedDict
from collections.abc import Iterator

import mujoco
import mujoco_warp
import torch
import warp
from torch import Tensor

from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.base import STATE_BOUND
from dualfid_robot.simulators.mujoco_warp import kernels
from dualfid_robot.simulators.mujoco_warp.buffers import buffer_sizes

warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)  # no banner, no line for each kernel
warp.init()

# What a world carries from one step to the next; all else is computed from it.
STATE = ("time", "qpos", "qvel", "act", "ctrl", "history", "qacc_warmstart")

_OVERFLOW = mujoco_warp.OverflowType
# Kinds of overflow, in the order of `OverflowReport.worlds`. That a solver stops at its bound on iterations is none.
_KINDS = (
    _OVERFLOW.BROADPHASE | _OVERFLOW.NARROWPHASE | _OVERFLOW.CCD,
    _OVERFLOW.NEFC | _OVERFLOW.NJMAX_NNZ,
    _OVERFLOW.HFIELD | _OVERFLOW.EPA_HORIZON | _OVERFLOW.CONTACT_MATCH | _OVERFLOW.NVMAX | _OVERFLOW.TACTILE,
)


@dataclasses.dataclass(frozen=True)
class OverflowReport:
    """What happened to the buffers since the last report.

    Attributes:
        worlds: physics steps × worlds in which entries were lost. The three causes are too few contacts, too few
            constraint rows, and too little room in MuJoCo Warp's own buffers. The contact buffer is shared: when it is
            full, every world that was stepping counts.
        contacts: the most contacts, or candidates for one, of a physics step, per stepping world on average.
        rows: the most constraint rows of a world.
    """

    worlds: tuple[int, ...]
    contacts: int
    rows: int


class Worlds:
    """All worlds of one simulator.

    Attributes:
        model, data: MuJoCo Warp's, on the device.
        state: zero-copy views of the arrays of `STATE`, world-major.
        initial: (1, …), what a new world has in the arrays of `STATE`.
        nconmax: contacts to provide for in each world. The buffer is shared by all that step.
        njmax: constraint rows of each world.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        num_worlds: int,
        substeps: int,
        nconmax: int | None,
        njmax: int | None,
        graphs: int,
        contact_wrench: Tensor,
        failed: Tensor,
    ) -> None:
        """Allocate everything.

        Args:
            model: the compiled model. Its last sensors are those of the contact bodies.
            num_worlds: N.
            substeps: physics steps of a control period.
            nconmax, njmax: None sizes them from the model.
            graphs: how many graphs to keep.
            contact_wrench: (N, bodies, 6), written by every period.
            failed: (N,) bool, likewise.

        Raises:
            ConfigError: the model has something that MuJoCo Warp does not support.
        """
        self.device = warp.device_from_torch(contact_wrench.device)
        self._substeps = substeps
        self._num_graphs = graphs
        self._graphs: OrderedDict[int, warp.Graph] = OrderedDict()
        self._stream: warp.Stream | None = None
        self._first_measured = model.nsensordata - 9 * contact_wrench.shape[1]
        self._floating_base = model.njnt > 0 and bool(model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE)
        with warp.ScopedDevice(self.device):
            self.model = _put_model(model)
            if self.device.is_cuda:
                # Drivers before CUDA 12.4 have no loops in graphs: there the solver does all its iterations always.
                self.model.opt.graph_conditional = warp.is_conditional_graph_supported()
            self.model.opt.warn_overflow = 0  # `take_overflows` tells it
            default = buffer_sizes(model, self.model.nxn_geom_pair_filtered.numpy().reshape(-1, 2))
            self.nconmax = default[0] if nconmax is None else nconmax
            self.njmax = default[1] if njmax is None else njmax
            self.data = mujoco_warp.make_data(model, num_worlds, nconmax=self.nconmax, njmax=self.njmax)
            self._initial_qpos: warp.array = warp.array(model.qpos0, dtype=float)
            self._kinds: warp.array = warp.array([int(kind) for kind in _KINDS], dtype=int)
        self._counts = torch.zeros(len(_KINDS), dtype=torch.int32, device=contact_wrench.device)
        self._largest = torch.zeros(2, dtype=torch.int32, device=contact_wrench.device)
        self._contact_wrench = warp.from_torch(contact_wrench)
        self._failed = warp.from_torch(failed)
        self.state = {name: to_torch(getattr(self.data, name), contact_wrench.device) for name in STATE}
        self.initial = {name: tensor[:1].clone() for name, tensor in self.state.items()}
        self._initial_history: warp.array = warp.array(
            self.initial["history"][0].tolist(), dtype=float, device=self.device
        )
        warp.synchronize_device(self.device)  # allocated on Warp's stream, used on torch's

    def step(self, n: int) -> None:
        """Start a control period of the first n worlds, on torch's current stream."""
        graph = self._graphs.get(n)
        if graph is None:
            graph = self._graphs[n] = self._capture(n)
            if len(self._graphs) > self._num_graphs:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(n)
        warp.capture_launch(graph, self._torch_stream())

    def forget_graphs(self) -> None:
        """To be called when an array of the model or the data was replaced: a graph keeps addresses."""
        self._graphs.clear()

    def take_overflows(self) -> OverflowReport:
        """Report and clear. The host waits for the device."""
        lost, (contacts, rows) = self._counts.tolist(), self._largest.tolist()
        self._counts.zero_()
        self._largest.zero_()
        return OverflowReport(tuple(lost), contacts, rows)

    @contextlib.contextmanager
    def on_torch_stream(self) -> Iterator[None]:
        """Launch Warp's work in the order of torch's."""
        with warp.ScopedDevice(self.device):
            stream = self._torch_stream()
            if stream is None:
                yield
            else:
                with warp.ScopedStream(stream):
                    yield

    def _torch_stream(self) -> warp.Stream | None:
        """Torch's current stream; None on the CPU."""
        if not self.device.is_cuda:
            return None
        current = torch.cuda.current_stream(warp.device_to_torch(self.device))
        if self._stream is None or self._stream.cuda_stream != current.cuda_stream:
            self._stream = warp.stream_from_torch(current)
        return self._stream

    def _capture(self, n: int) -> warp.Graph:
        """Record a control period of the first n worlds. Nothing is executed."""
        data = prefix(self.data, n)
        silent = _without_sensors(self.model)
        last = self.model if self._contact_wrench.shape[1] else silent
        with warp.ScopedDevice(self.device), warp.ScopedCapture(self.device) as capture:
            for substep in range(self._substeps):
                mujoco_warp.step(last if substep == self._substeps - 1 else silent, data)
                self._count_overflows(data)
            self._end_period(data)
        return capture.graph

    def _count_overflows(self, data: mujoco_warp.Data) -> None:
        warp.launch(
            kernels.count_overflows,
            data.nworld,
            [self._kinds, data.nacon, data.ncollision, data.nefc],
            [data.overflow, warp.from_torch(self._counts), warp.from_torch(self._largest)],
        )

    def _end_period(self, data: mujoco_warp.Data) -> None:
        bodies = self._contact_wrench.shape[1]
        if bodies:
            warp.launch(
                kernels.measure_contacts,
                (data.nworld, bodies),
                [data.sensordata, self._first_measured, data.qpos, self._floating_base],
                [self._contact_wrench],
            )
        state = [getattr(data, name) for name in STATE]
        warp.launch(
            kernels.reset_failed,
            data.nworld,
            [STATE_BOUND, self._initial_qpos, self._initial_history],
            [*state, data.efc.J, data.efc.D, self._contact_wrench, self._failed],
        )


def _put_model(model: mujoco.MjModel) -> mujoco_warp.Model:
    # These two state what MuJoCo Warp does anyway, and it refuses them.
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
    try:
        return mujoco_warp.put_model(model)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def _without_sensors(model: mujoco_warp.Model) -> mujoco_warp.Model:
    """The same model, whose step computes no sensors. All arrays are shared."""
    silent, silent.opt = copy.copy(model), copy.copy(model.opt)
    silent.opt.disableflags |= int(mujoco_warp.DisableBit.SENSOR)
    return silent


def prefix(data: mujoco_warp.Data, n: int) -> mujoco_warp.Data:
    """The first n worlds of `data`. Its arrays are views, so a step of it costs as much as n worlds do."""
    contacts = n * (data.naconmax // data.nworld)
    rows = {"nworld": n, "naconmax": contacts}
    part = dataclasses.replace(data, nworld=n, naconmax=contacts, naccdmax=min(contacts, data.naccdmax))
    part.contact, part.efc = copy.copy(data.contact), copy.copy(data.efc)
    for struct in (part, part.contact, part.efc):
        for field in dataclasses.fields(struct):
            array = getattr(struct, field.name)
            leading = getattr(field.type, "shape", (None,))[0]
            if leading in rows and array.size:
                setattr(struct, field.name, array[: rows[leading]])
    return part


def to_torch(array: warp.array, device: torch.device) -> Tensor:
    """A zero-copy view, the components of vectors last; an array without elements has nothing to view."""
    shape = (*array.shape, *getattr(array.dtype, "_shape_", ()))
    return warp.to_torch(array) if array.size else torch.zeros(shape, device=device)
