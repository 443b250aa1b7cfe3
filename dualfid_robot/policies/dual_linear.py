"""A linear layer that holds two policies' weights and serves a batch whose rows belong to either.

Rows ``[0, n_low)`` use the base weights ``W, b``; rows ``[n_low, rows)`` use the adapted weights

    W' = W + s · B · A,    b' = b + δb.

All high rows share one adapter, so ``W'`` is formed once per gradient step (``rank · in · out`` multiplications). Each
row then costs exactly one product, as in a plain layer. With ``g`` the gradient at the layer's pre-activation output:

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
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualfid_robot.errors import ConfigError
from dualfid_robot.policies.activations import ACTIVATIONS

LayerAdapter = Literal["lora", "bias", "none"]


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
        """x (rows, in) -> (rows, out), for autograd; products run in ``dtype`` (default: the parameters')."""
        dtype = dtype or self.weight.dtype
        low, high = x[:n_low].to(dtype), x[n_low:].to(dtype)
        parts = []
        if low.shape[0] > 0:
            parts.append(functional.linear(low, self.weight.to(dtype), self.bias.to(dtype)))
        if high.shape[0] > 0:
            weight_high = merge(self.weight, self.lora_a, self.lora_b, self.scaling)
            bias_high = self.bias if self.bias_delta is None else self.bias + self.bias_delta
            parts.append(functional.linear(high, weight_high.to(dtype), bias_high.to(dtype)))
        y = torch.cat(parts)
        return y if self.activation == "identity" else getattr(functional, self.activation)(y)

    @torch.no_grad()
    def set_adapter_gradient(self, grad_weight: Tensor, grad_bias: Tensor) -> None:
        """Give the adapter its gradient from dW' (out, in) and db' (out,).

        These are the high rows' gradients at W' and b'.
        """
        if self.bias_delta is not None:
            self.bias_delta.grad = grad_bias
        if self.lora_b is None:
            return
        if self.lora_a is None:
            self.lora_b.grad = self.scaling * grad_weight
            return
        self.lora_b.grad = torch.mm(grad_weight, self.lora_a.t()).mul_(self.scaling)
        self.lora_a.grad = torch.mm(self.lora_b.t(), grad_weight).mul_(self.scaling)

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
