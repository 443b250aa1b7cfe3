"""The hidden layers' activations, in place, and their derivatives from their results."""

from __future__ import annotations

import functools
import importlib.util
import math
from types import ModuleType

import torch
from torch import Tensor, nn

ACTIVATIONS: tuple[str, ...] = ("elu", "tanh", "relu", "identity")
_LOG2_E = 1.0 / math.log(2.0)
_ELU_BLOCK = 2**16


@functools.cache
def compiled_kernels() -> ModuleType | None:
    """The kernels for ELU in bfloat16, None where Numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    from dualfid_robot.policies import bfloat16_kernels  # here: it takes a second

    return bfloat16_kernels


def affine(x: Tensor, weight: Tensor, bias: Tensor, activation: str, out: Tensor) -> Tensor:
    """act(x Wᵀ + b): x (rows, in) -> out (rows, out)."""
    if kernels := _kernels_for(out, activation):
        torch.mm(x, weight.t(), out=out)
        kernels.add_bias_and_elu(out.view(torch.int16).numpy(), bias.float().numpy())
        return out
    return activate_(torch.addmm(bias, x, weight.t(), out=out), activation)


def activation_backward_(grad: Tensor, y: Tensor, activation: str, sums: Tensor) -> None:
    """Turn the gradient at the activation's result y (rows, columns) into the one at its argument, in place.

    Args:
        sums: (columns,), what its rows add up to.
    """
    if sums.dtype == torch.float32 and (kernels := _kernels_for(grad, activation)):
        kernels.elu_backward(*(tensor.view(torch.int16).numpy() for tensor in (grad, y)), sums.numpy())
        return
    if activation == "elu":
        torch.ops.aten.elu_backward.grad_input(grad, 1.0, 1.0, 1.0, True, y, grad_input=grad)
    elif activation == "tanh":
        torch.ops.aten.tanh_backward.grad_input(grad, y, grad_input=grad)
    elif activation == "relu":
        torch.ops.aten.threshold_backward.grad_input(grad, y, 0.0, grad_input=grad)
    sums.copy_(grad.sum(0))


def activate_(y: Tensor, activation: str) -> Tensor:
    """The activation of y, in place."""
    if activation == "elu":
        return elu_(y)
    if activation == "tanh":
        return y.tanh_()
    if activation == "relu":
        return y.relu_()
    return y


def elu_(y: Tensor) -> Tensor:
    """ELU with alpha 1, in place: min(2^(y·log2 e) − 1, relu(y)).

    ATen's CPU kernel is bound by its expm1. This takes more passes but a quicker exponential: half the time together.
    The absolute error is one rounding of 1.
    """
    if y.device.type != "cpu":
        return nn.functional.elu_(y)
    flat = y.view(-1)
    # in float32 (each pass over bfloat16 would convert both ways), in blocks that stay in the cache
    block = min(flat.numel(), _ELU_BLOCK)
    wide, exponential = torch.empty(2, block, dtype=torch.promote_types(y.dtype, torch.float32)).unbind()
    for part in flat.split(_ELU_BLOCK):
        x = wide[: part.numel()].copy_(part)
        e = torch.mul(x, _LOG2_E, out=exponential[: part.numel()]).exp2_().sub_(1.0)
        part.copy_(torch.minimum(e, x.relu_(), out=e))
    return y


def _kernels_for(y: Tensor, activation: str) -> ModuleType | None:
    compiled = activation == "elu" and y.dtype == torch.bfloat16 and y.device.type == "cpu"
    return compiled_kernels() if compiled else None
