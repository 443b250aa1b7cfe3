"""What the processes that train one policy together tell each other.

Every process, a rank, holds the whole policy and environments of its own. All ranks have equally many, and equally many
low ones. The mean over all samples is therefore the mean over the ranks of their means, in either fidelity.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dualfid_robot.policies.normalizer import alone

T = TypeVar("T")


class Communicator:
    """One process alone: its values are everybody's.

    Tensors stay on their device, and on a GPU the host does not wait for them. The host's own objects go through
    `exchange`, `share` and `collect`. All ranks call the same methods in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: R, number of processes.
    """

    rank: int = 0
    size: int = 1

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their means over the ranks, in one reduction for all of them."""

    def gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor: (...) -> (R, ...)."""
        return alone(tensor)

    def exchange(self, value: T) -> list[T]:
        """Every rank's value."""
        return [value]

    def share(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, where alone it is called."""
        return make()

    def collect(self, value: T) -> list[T]:
        """Every rank's value on rank 0, with its tensors on the CPU; nothing elsewhere."""
        return [value]


ALONE = Communicator()


class ProcessGroup(Communicator):
    """The ranks of torch.distributed's default process group, which must exist."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def average_(self, tensors: Sequence[Tensor]) -> None:
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat.div_(self.size)
        parts = flat.split([tensor.numel() for tensor in tensors])
        means = [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), means)

    def gather(self, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def exchange(self, value: T) -> list[T]:
        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def share(self, make: Callable[[], T]) -> T:
        values: list[T] = [make()] if self.rank == 0 else [None]  # type: ignore[list-item]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def collect(self, value: T) -> list[T]:
        packed = io.BytesIO()
        torch.save(value, packed)
        parts: list[bytes] | None = [b""] * self.size if self.rank == 0 else None
        dist.gather_object(packed.getvalue(), parts, dst=0)
        return [torch.load(io.BytesIO(part), map_location="cpu", weights_only=False) for part in parts or []]
