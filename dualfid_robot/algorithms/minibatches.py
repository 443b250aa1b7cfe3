"""The samples of a rollout, shuffled and cut into mini-batches of the same make-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dualfid_robot.algorithms.ppo_loss import MiniBatch

MAX_CHUNK_ROWS = 8192
"""On a CPU a mini-batch runs in pieces of at most so many rows: larger activations (32 MiB and more) come fresh from
the operating system at every allocation, and their page faults cost more than the arithmetic."""


class Chunk(NamedTuple):
    """A part of a mini-batch, or all of it; the gradients of a mini-batch's chunks are summed."""

    batch: MiniBatch
    """Rows [low | high]."""
    sizes: tuple[int, ...]
    """Rows of each group of samples, in order: (low, high), or both fidelities' halves (low, low, high, high)."""

    @property
    def n_low(self) -> int:
        return sum(self.sizes[: len(self.sizes) // 2])

    @property
    def n_high(self) -> int:
        return sum(self.sizes[len(self.sizes) // 2 :])


def chunks_per_minibatch(minibatch_size: int, device: torch.device) -> int:
    """How many chunks a mini-batch runs in."""
    return -(-minibatch_size // MAX_CHUNK_ROWS) if device.type == "cpu" else 1


def shuffled_indices(horizon: int, num_envs: int, rows: range, generator: torch.Generator) -> Tensor:
    """A random order of the samples (t, row) of the given rows, as indices t · N + row."""
    count = max(len(rows), 1)
    order = torch.randperm(horizon * len(rows), generator=generator, device=generator.device)
    return order // count * num_envs + order % count * rows.step + rows.start


def make_minibatches(samples: MiniBatch, groups: Sequence[Sequence[Tensor]], chunks_each: int) -> list[list[Chunk]]:
    """Lay out samples chunk after chunk.

    Args:
        samples: (T, N, ·) each.
        groups: of the two fidelities, or of more parts of them, low ones first. Each group holds its samples' indices
            t · N + row, in as many pieces as there are chunks.
        chunks_each: chunks of a mini-batch.

    Returns:
        The mini-batches, contiguous slices of one copy of the samples. Piece i of every group is in chunk i.
    """
    order = torch.cat([piece for pieces in zip(*groups, strict=True) for piece in pieces])
    sizes = [tuple(piece.shape[0] for piece in pieces) for pieces in zip(*groups, strict=True)]
    shuffled = [None if x is None else x.flatten(0, 1).index_select(0, order) for x in samples]
    rows = [sum(parts) for parts in sizes]
    columns = [[None] * len(rows) if x is None else x.split(rows) for x in shuffled]
    chunks = [Chunk(MiniBatch(*parts), part_sizes) for *parts, part_sizes in zip(*columns, sizes, strict=True)]
    return [chunks[i : i + chunks_each] for i in range(0, len(chunks), chunks_each)]
