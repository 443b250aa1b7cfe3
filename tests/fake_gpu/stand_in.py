"""A GPU that does not exist: torch computes the shapes and devices of its tensors alone, without values.

It is registered at torch's place for other makers' devices, so that no build of torch for CUDA is needed. The process
has it for good, so `test_fake_gpu.py` runs the tests that import this module in another one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from dualfid_robot.robots.features import FEATURES
from dualfid_robot.simulators.base import PARAMETERS, Simulator

_setup_privateuseone_for_python_backend("gpu")
GPU = torch.device("gpu:0")


class TransferError(Exception):
    """Something was brought from one device to another, for which the host waits."""


class _NoTransfers(TorchDispatchMode):
    """Refuses operations on tensors of two devices. A CPU's scalar may take part: it travels beside the operation."""

    def __torch_dispatch__(self, func: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        devices = {each.device for each in given if each.device == GPU or each.dim() > 0}
        devices |= {each.device for each in made}
        if len(devices) > 1:
            raise TransferError(f"{func}: {' and '.join(sorted(map(str, devices)))}")
        return result


_WITHOUT_VALUES = FakeTensorMode(allow_non_fake_inputs=True)


class TheGpu(TorchFunctionMode):
    """A context in which tensors can be made on the GPU and brought there. They have no values; a CPU's have theirs."""

    def __torch_function__(self, func: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to and args[0].device != GPU:
            tensor, *wanted = (*args, *kwargs.values())
            if any(map(_is_there, wanted)):
                types = [each for each in wanted if isinstance(each, torch.dtype)]
                return _brought(tensor.to(*types or [tensor.dtype]))
        if func in (torch.tensor, torch.as_tensor) and _is_there(kwargs.get("device")):
            del kwargs["device"]
            return _brought(func(*args, **kwargs))
        with _WITHOUT_VALUES if any(map(_is_there, tree_leaves((args, kwargs)))) else nullcontext():
            return func(*args, **kwargs)


def _is_there(what: object) -> bool:
    """Whether something is the GPU, or on it."""
    device = what.device if isinstance(what, Tensor) else what
    return isinstance(device, (str, torch.device)) and str(device) == str(GPU)


def _brought(values: Tensor) -> Tensor:
    with _WITHOUT_VALUES:
        place = torch.empty(values.shape, dtype=values.dtype, device=GPU)
    return place.copy_(values)


class Generator(torch.Generator):
    """What `torch.Generator` is where the GPU has random numbers."""

    def __new__(cls, device: torch.device | str = "cpu") -> Generator:
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self.place


def staying_there() -> _NoTransfers:
    """A context in which what leaves the GPU, or comes to it, raises `TransferError`. What asks for a value raises
    what `FakeTensorMode` raises."""
    return _NoTransfers()


def put(module: nn.Module, device: torch.device) -> nn.Module:
    """What `Module.to` does, which cannot move tensors without values: replace parameters and buffers."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(parameter.detach().to(device)))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer.to(device))
    return module


class StandIn(Simulator):
    """An engine on the GPU whose worlds drift, which does nothing else that waits."""

    DEVICE_TYPES = (GPU.type,)
    HONOURS = frozenset(FEATURES)
    RESETS_BY_MASK = True
    SUPPORTED_PARAMETERS = tuple(PARAMETERS)

    @classmethod
    def name(cls) -> str:
        return "stand-in"

    def _build(self) -> None:
        """Nothing besides the tensors."""

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self.qvel[:n] += ctrl.mean(1, keepdim=True)

    def finish_step(self) -> None:
        """Nothing to wait for."""

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self._write_state(ids, qpos, qvel)

    def set_state_where(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        n, rows = len(mask), mask[:, None]
        torch.where(rows, qpos, self.qpos[:n], out=self.qpos[:n])
        torch.where(rows, qvel, self.qvel[:n], out=self.qvel[:n])

    def _set_parameter(self, name: str, ids: Tensor, values: Tensor) -> None:
        assert ids.device == values.device == GPU

    def snapshot(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to release."""
