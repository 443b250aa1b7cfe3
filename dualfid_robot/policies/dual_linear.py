"""A linear layer that holds two policies' weights and serves a batch whose rows belong to either.

Rows ``[0, n_low)`` use the base weights ``W, b``; rows ``[n_low, rows)`` use the adapted weights

    W' = W + s · B · A,    b' = b + δb.

All high rows share one adapter, so ``W'`` is formed once per forward pass (``rank · in · out`` multiplications) and
each row costs exactly one product, as in a plain layer. With ``g`` the gradient at the layer's pre-activation output:

    dW' = g_highᵀ x_high        dB = s · dW' · Aᵀ        dA = s · Bᵀ · dW'        dW = g_lowᵀ x_low + dW'
    dδb = Σ g_high              db = Σ g_low + dδb

Only the high rows appear in dA, dB and dδb, so the low rows' loss cannot reach the adapter.

The adapter is LoRA (Hu et al., arXiv 2106.09685) with the rank-stabilised scale ``s = alpha / √rank`` (Kalajdzievski,
arXiv 2312.03732). The size of B·A's contribution then does not depend on the rank, and another rank needs no other
learning rate. A is Kaiming-uniform. B and δb are zero, so both policies start equal.

A layer may have less of an adapter. With δb alone, W' = W. With nothing, all rows are one batch of a plain layer.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualfid_robot.errors import ConfigError

Activation = Literal["elu", "tanh", "relu", "identity"]
LayerAdapter = Literal["lora", "bias", "none"]
ACTIVATIONS: tuple[str, ...] = ("elu", "tanh", "relu", "identity")
_LOG2_E = 1.0 / math.log(2.0)
_ELU_BLOCK = 2**19


class DualWeights(NamedTuple):
    """Both policies' weights of one layer, ready for matrix products: ``weight`` (out, in), ``bias`` (out,)."""

    weight_low: Tensor
    bias_low: Tensor
    weight_high: Tensor
    bias_high: Tensor


def merge(weight: Tensor, lora_a: Tensor | None, lora_b: Tensor | None, scaling: float) -> Tensor:
    """W' = W + s·B·A. Without A it is W + s·B, since the B of a full-rank adapter is the whole difference. Without B it
    is W."""
    if lora_b is None:
        return weight
    if lora_a is None:
        return torch.add(weight, lora_b, alpha=scaling)
    return torch.addmm(weight, lora_b, lora_a, alpha=scaling)


def dual_affine(x: Tensor, n_low: int, weights: DualWeights, activation: str) -> Tensor:
    """act(x Wᵀ + b) with W, b for rows [0, n_low) and W', b' for the others. x (rows, in) -> (rows, out)."""
    y = x.new_empty(x.shape[0], weights.weight_low.shape[0])
    if n_low > 0:
        torch.addmm(weights.bias_low, x[:n_low], weights.weight_low.t(), out=y[:n_low])
    if n_low < x.shape[0]:
        torch.addmm(weights.bias_high, x[n_low:], weights.weight_high.t(), out=y[n_low:])
    return _activate_(y, activation)


def _activate_(y: Tensor, activation: str) -> Tensor:
    """The activation of y, in place."""
    if activation == "elu":
        return _elu_(y)
    if activation == "tanh":
        return y.tanh_()
    if activation == "relu":
        return y.relu_()
    return y


def _elu_(y: Tensor) -> Tensor:
    """ELU with alpha 1, in place: min(2^(y·log2 e) − 1, relu(y)).

    ATen's CPU kernel is bound by its expm1. This takes more passes but a quicker exponential, half the time together,
    with an absolute error of one rounding of 1.
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


def _activation_backward(grad: Tensor, y: Tensor, activation: str) -> Tensor:
    """Gradient at the pre-activation from the gradient at, and the value of, the output y."""
    if activation == "elu":
        return torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y)
    if activation == "tanh":
        return torch.ops.aten.tanh_backward(grad, y)
    if activation == "relu":
        return torch.ops.aten.threshold_backward(grad, y, 0.0)
    return grad


class _DualLinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        lora_a: Tensor | None,
        lora_b: Tensor | None,
        bias_delta: Tensor | None,
        scaling: float,
        n_low: int,
        activation: str,
        dtype: torch.dtype,
    ) -> Tensor:
        if bias_delta is None:  # one policy
            n_low = x.shape[0]
        rows_in = x.to(dtype)
        weight_low, bias_low = weight.to(dtype), bias.to(dtype)
        if n_low == x.shape[0]:  # no high row: the plain layer, at its cost
            weights = DualWeights(weight_low, bias_low, weight_low, bias_low)
        else:
            assert bias_delta is not None
            weight_high = weight_low if lora_b is None else merge(weight, lora_a, lora_b, scaling).to(dtype)
            weights = DualWeights(weight_low, bias_low, weight_high, (bias + bias_delta).to(dtype))
        y = dual_affine(rows_in, n_low, weights, activation)
        ctx.save_for_backward(rows_in, y, weights.weight_low, weights.weight_high, lora_a, lora_b)
        ctx.scaling, ctx.n_low, ctx.activation = scaling, n_low, activation
        ctx.x_dtype, ctx.parameter_dtype = x.dtype, weight.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight_low, weight_high, lora_a, lora_b = ctx.saved_tensors
        n_low: int = ctx.n_low
        rows = x.shape[0]
        grad = _activation_backward(grad_y.to(y.dtype), y, ctx.activation)

        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            if n_low > 0:
                torch.mm(grad[:n_low], weight_low, out=grad_x[:n_low])
            if n_low < rows:
                torch.mm(grad[n_low:], weight_high, out=grad_x[n_low:])
            grad_x = grad_x.to(ctx.x_dtype)

        grad_weight = grad_bias = grad_a = grad_b = grad_bias_delta = None
        if n_low < rows:
            high = grad[n_low:]
            grad_merged = torch.mm(high.t(), x[n_low:]).to(ctx.parameter_dtype)
            grad_bias_delta = high.sum(0).to(ctx.parameter_dtype)
            if lora_b is None:
                pass
            elif lora_a is None:
                grad_b = grad_merged
            else:
                grad_b = torch.addmm(lora_b, grad_merged, lora_a.t(), beta=0.0, alpha=ctx.scaling)
                grad_a = torch.addmm(lora_a, lora_b.t(), grad_merged, beta=0.0, alpha=ctx.scaling)
            grad_weight, grad_bias = grad_merged, grad_bias_delta
        if n_low > 0:
            low = grad[:n_low]
            weight_part, bias_part = torch.mm(low.t(), x[:n_low]), low.sum(0)
            # adding to the parameters' type converts in passing
            grad_weight = weight_part.to(ctx.parameter_dtype) if grad_weight is None else grad_weight + weight_part
            grad_bias = bias_part.to(ctx.parameter_dtype) if grad_bias is None else grad_bias + bias_part
        return grad_x, grad_weight, grad_bias, grad_a, grad_b, grad_bias_delta, None, None, None, None


class DualLinear(nn.Module):
    """Linear layer and activation for two policies (see the module's text).

    Args:
        in_features, out_features: sizes of the layer.
        rank: rank of the adapter. A layer with ``out_features <= rank`` has a full-rank adapter instead, with fewer
            parameters. Its ``lora_a`` is None, and ``lora_b`` (out, in) is added to the weight as it is.
        alpha: LoRA's alpha. The scale is alpha / √rank, and 1 for a full-rank adapter.
        activation: "elu", "tanh", "relu" or "identity".
        generator: source of the initial values. The base weights that it gives do not depend on the adapter.
        adapter: "lora", only a difference of "bias", or "none". Missing parameters are None.

    The base weight is orthogonal with gain 1 (the owner may scale it), its bias zero.

    Raises:
        ConfigError: for an unknown activation or a rank below 1.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        alpha: float,
        activation: str = "identity",
        generator: torch.Generator | None = None,
        adapter: LayerAdapter = "lora",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ConfigError(f"activation = {activation!r}: must be one of {', '.join(ACTIVATIONS)}")
        if rank < 1:
            raise ConfigError(f"rank = {rank!r}: must be an integer of at least 1")
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))
        nn.init.orthogonal_(self.weight, generator=generator)
        full_rank = out_features <= rank
        self.scaling = 1.0 if full_rank else alpha / math.sqrt(rank)
        lora_a = None if full_rank else torch.empty(rank, in_features)
        if lora_a is not None:
            nn.init.kaiming_uniform_(lora_a, a=math.sqrt(5.0), generator=generator)
        lora_b = torch.zeros(out_features, in_features if full_rank else rank)
        self.bias_delta = nn.Parameter(torch.zeros(out_features)) if adapter != "none" else None
        self.lora_a = nn.Parameter(lora_a) if lora_a is not None and adapter == "lora" else None
        self.lora_b = nn.Parameter(lora_b) if adapter == "lora" else None

    def forward(self, x: Tensor, n_low: int, dtype: torch.dtype | None = None) -> Tensor:
        """x (rows, in) -> (rows, out); the matrix products run in ``dtype`` (default: the parameters' own)."""
        return _DualLinearFunction.apply(
            x,
            self.weight,
            self.bias,
            self.lora_a,
            self.lora_b,
            self.bias_delta,
            self.scaling,
            n_low,
            self.activation,
            dtype or self.weight.dtype,
        )

    @torch.no_grad()
    def merged(self, dtype: torch.dtype | None = None, dial: float = 1.0) -> DualWeights:
        """Both policies' weights as they are now, for repeated passes without gradients.

        Args:
            dtype: of the result, None for the parameters' own.
            dial: λ, how much of the adapter the high weights have: W + λ·s·B·A and b + λ·δb.
        """
        dtype = dtype or self.weight.dtype
        high = merge(self.weight, self.lora_a, self.lora_b, dial * self.scaling)
        bias_high = self.bias if self.bias_delta is None else torch.add(self.bias, self.bias_delta, alpha=dial)
        return DualWeights(self.weight.to(dtype), self.bias.to(dtype), high.to(dtype), bias_high.to(dtype))

    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        adapter = "no adapter" if self.bias_delta is None else "bias" if self.lora_b is None else self._rank_repr()
        return f"{in_features}, {out_features}, {adapter}, activation={self.activation}"

    def _rank_repr(self) -> str:
        return f"rank={'full' if self.lora_a is None else self.lora_a.shape[0]}, scaling={self.scaling:.3g}"
