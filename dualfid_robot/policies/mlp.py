"""A plain MLP's forward and backward pass over a block of rows, written out.

Autograd would do the same arithmetic with more memory. Here every block reuses one set of buffers, which stay in the
cache, and nothing is converted twice. With y = act(z), z = x Wᵀ + b, and g the gradient at y:

    g_z = g · act′(z)        dW = g_zᵀ x        db = Σ_rows g_z        g_x = g_z W

Hidden layers may have weights of a narrow type. Their values and gradients then have that type too. The output layer
takes and gives the type of its own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dualfid_robot.policies.activations import activation_backward_, affine
from dualfid_robot.threads import Threads, threads

BLOCK_ROWS = 4096
"""On a CPU rows go through the networks in blocks of at most so many. Smaller ones pay more for calls, larger ones for
memory: 1024 rows cost a quarter more a sample, 2048 a tenth."""
_ALONE = Threads(1)
Item = TypeVar("Item")


class Affine(NamedTuple):
    """A layer's ``weight`` (out, in) and ``bias`` (out,), or the gradients at them."""

    weight: Tensor
    bias: Tensor


class MLPPass:
    """Forward and backward passes of blocks of rows, one after the other, in buffers that grow to the largest block.

    To be called without gradients (``torch.no_grad``).

    Args:
        activation: of the hidden layers, see ``activations.py``.
    """

    def __init__(self, activation: str) -> None:
        self.activation = activation
        self._buffers: dict[tuple[str, int], Tensor] = {}
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def forward(self, x: Tensor, layers: Sequence[Affine]) -> Tensor:
        """x (rows, in) -> (rows, out), which the next pass overwrites."""
        self._inputs, self._outputs = [], []
        for i, (weight, bias) in enumerate(layers):
            x = self._converted(x, weight.dtype, i)
            self._inputs.append(x)
            y = self._buffer("output", i, x.shape[0], weight.shape[0], weight)
            x = affine(x, weight, bias, self.activation if i < len(layers) - 1 else "identity", out=y)
            self._outputs.append(x)
        return x

    def backward(self, grad: Tensor, layers: Sequence[Affine], out: Sequence[Affine]) -> None:
        """Write the gradients at the weights into `out`, given the one at the last forward pass's result (rows, out).

        Args:
            grad: spoiled where there are no hidden layers.
            layers: those of the forward pass.
            out: weights' gradients in the weights' types; biases' gradients in any.
        """
        for i in reversed(range(len(layers))):
            weight, x = layers[i].weight, self._inputs[i]
            # through the activation, to the layer's own gradients
            activation = self.activation if i < len(layers) - 1 else "identity"
            activation_backward_(grad, self._outputs[i], activation, out[i].bias)
            torch.mm(grad.t(), x, out=out[i].weight)
            # the gradient at the layer below, in its type
            if i > 0:
                below = self._buffer("gradient", i, x.shape[0], x.shape[1], weight)
                torch.mm(grad, weight, out=below)
                grad = self._converted(below, self._outputs[i - 1].dtype, -i)

    def _converted(self, x: Tensor, dtype: torch.dtype, index: int) -> Tensor:
        if x.dtype == dtype:
            return x
        return self._buffer("converted", index, x.shape[0], x.shape[1], x.new_empty((), dtype=dtype)).copy_(x)

    def _buffer(self, kind: str, index: int, rows: int, columns: int, like: Tensor) -> Tensor:
        buffer = self._buffers.get((kind, index))
        if buffer is None or buffer.shape[0] < rows or (buffer.dtype, buffer.device) != (like.dtype, like.device):
            buffer = self._buffers[kind, index] = like.new_empty(rows, columns)
        return buffer[:rows]


class Block(NamedTuple):
    """Rows that go through the networks together."""

    rows: slice
    high: bool


def cut(sizes: tuple[int, int], device: torch.device) -> list[Block]:
    """Cut a batch [low | high] into blocks of one fidelity and of nearly equal size. How does not depend on threads.

    Args:
        sizes: low and high rows.
        device: a GPU takes each fidelity's rows as a whole.
    """
    blocks, start = [], 0
    for high, size in enumerate(sizes):
        pieces = -(-size // BLOCK_ROWS) if device.type == "cpu" else min(size, 1)
        edges = [start + size * piece // max(pieces, 1) for piece in range(pieces + 1)]
        blocks += [Block(slice(*pair), bool(high)) for pair in pairwise(edges)]
        start += size
    return blocks


def share_out(task: Callable[[int, Item], None], blocks: Sequence[Item], device: torch.device) -> None:
    """Call task(worker, block) for all blocks: on a CPU in all threads, on a GPU one after the other."""
    (threads() if device.type == "cpu" else _ALONE).map(task, blocks)
