"""θ learns from the low rows alone, so that high rows tune the adapter only (as in SLowRL, arXiv 2603.17092)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.minibatches import Chunk
from dualfid_robot.settings import require


class AdapterTuning(DualPPO):
    """θ ← θ − η_θ w_low ∇_θ L_low,    φ ← φ − η_φ w_high ∇_φ L_high.

    Raises:
        ConfigError: the policy has no low-rank adapter, so that nothing would learn from the high rows.
    """

    def set_up(self) -> None:
        kind = self.policy.adapter
        require(kind == "lora", "train.params.network.adapter.kind", kind, "lora with base_learns_from=low")

    def accumulate_gradients(self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor) -> None:
        self._gradient.accumulate(chunks, weights, sums, base_from_high=False)
