"""What of the low fidelity's gradient may move the base policy: the part that does not go against the high one's.

The high fidelity is the target, so only the low gradient g_l is changed (one-sided, unlike Yu et al., "Gradient
surgery", arXiv 2001.06782). Per block of θ (one layer's weight and bias; log σ):

    g_θ = w_h g_h + w_l s P(g_l)        P(g_l) = g_l                                   where cos ≥ 0
                                        P(g_l) = g_l − (⟨g_l, g_h⟩ / ‖g_h‖²) g_h       where cos < 0
    project: s = 1        cosine: s = max(0, cos)  (Du et al., arXiv 1812.02224)

With w_h = 1 and exact gradients ⟨g_θ, g_h⟩ ≥ ‖g_h‖²: to first order θ never moves against the high objective.

The cosine of two noisy gradients is far too small, as their norms hold the noise. Each fidelity's rows are therefore
split in two halves of different environments, whose noise is independent:

    cos = ⟨g_l, g_h⟩ / √(⟨g_l1, g_l2⟩ ⟨g_h1, g_h2⟩)

All three products are unbiased. They are smoothed over gradient steps, and only then is the ratio taken. Where a
product under the root is not positive, the norm is not known and only the numerator's sign is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

MEMORY = 0.9
"""Of the moving averages of the products, per gradient step."""


class GateFactors(NamedTuple):
    """Of each block, (B,): g_θ = w_h g_h + w_l (low · g_l − along_high · g_h)."""

    low: Tensor
    along_high: Tensor


class GradientGate:
    """Smooths the blocks' products and turns them into factors.

    Args:
        blocks: the number of its block, from 0, of every parameter.
        kind: "project" or "cosine".
        device: of the gradients.

    Attributes:
        blocks: as given.
    """

    def __init__(
        self, blocks: Sequence[int], kind: Literal["project", "cosine"], device: torch.device | str = "cpu"
    ) -> None:
        self.blocks, self.kind = blocks, kind
        self._membership = torch.nn.functional.one_hot(torch.tensor(blocks)).t().double().to(device)
        # ⟨g_l, g_h⟩, ⟨g_l1, g_l2⟩, ⟨g_h1, g_h2⟩. They start from zero, which the ratio does not see.
        self._products = self._membership.new_zeros(3, self._membership.shape[0])
        self._sums = self._membership.new_zeros(2)
        self._steps = 0

    def __call__(
        self, low: Sequence[Sequence[Tensor]], high: Sequence[Sequence[Tensor]], sizes: Sequence[int]
    ) -> GateFactors:
        """The factors of a gradient step.

        Args:
            low, high: both halves' parts of g_l = g_l1 + g_l2 and of g_h, each a tensor per parameter.
            sizes: samples in the halves (low, low, high, high), of which each part is a share: with one of them 0,
                nothing is learnt about the norms and the averages stay.
        """
        (low_1, low_2), (high_1, high_2) = low, high
        g_low, g_high = torch._foreach_add(list(low_1), list(low_2)), torch._foreach_add(list(high_1), list(high_2))
        across = self._dot(g_low, g_high)
        if min(sizes) > 0:
            n_low_1, n_low_2, n_high_1, n_high_2 = sizes
            # the parts are shares of the mean: as means of their own they would be larger
            of_low = (n_low_1 + n_low_2) ** 2 / (n_low_1 * n_low_2)
            of_high = (n_high_1 + n_high_2) ** 2 / (n_high_1 * n_high_2)
            measured = torch.stack((across, self._dot(low_1, low_2) * of_low, self._dot(high_1, high_2) * of_high))
            self._products.lerp_(measured, 1.0 - MEMORY)
        cosine = debiased_cosine(*self._products.unbind())
        conflict = cosine < 0.0
        scale = torch.ones_like(cosine) if self.kind == "project" else cosine.clamp_min(0.0)
        norm = self._dot(g_high, g_high).clamp_min(torch.finfo(torch.float32).tiny)
        self._sums += torch.stack((cosine.mean(), conflict.double().mean()))
        self._steps += 1
        return GateFactors(scale.float(), torch.where(conflict, scale * across / norm, 0.0).float())

    def take_metrics(self) -> dict[str, Tensor]:
        """Means over the gradient steps since the last call: the blocks' mean cosine, and the share of those whose low
        gradient went against the high one."""
        cosine, projected = (self._sums / max(self._steps, 1)).unbind()
        self._sums, self._steps = torch.zeros_like(self._sums), 0
        return {"gate/cosine": cosine, "gate/projected": projected}

    def state_dict(self) -> dict[str, Any]:
        return {"products": self._products}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._products.copy_(state["products"])

    def _dot(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """Scalar products (B,) of the blocks."""
        products = [torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]
        return self._membership @ torch.stack(products).double()


def debiased_cosine(across: Tensor, within_low: Tensor, within_high: Tensor) -> Tensor:
    """cos = ⟨g_l, g_h⟩ / √(⟨g_l1, g_l2⟩ ⟨g_h1, g_h2⟩), within [−1, 1]; its numerator's sign (+1 for 0) where a product
    under the root is not positive. All (B,)."""
    known = (within_low > 0.0) & (within_high > 0.0)
    norms = torch.where(known, within_low.abs().sqrt() * within_high.abs().sqrt(), 1.0)
    sign = torch.where(across < 0.0, -1.0, 1.0)
    return torch.where(known, (across / norms).clamp(-1.0, 1.0), sign)
