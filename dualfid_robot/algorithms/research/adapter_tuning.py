"""θ learns from the low rows alone, so that high rows tune the adapter only (as in SLowRL, arXiv 2603.17092)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.minibatches import Chunk
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.policies.actor_critic import DualActorCritic
from dualfid_robot.settings import require


class AdapterTuning(DualPPO):
    """θ ← θ − η_θ w_low ∇_θ L_low,    φ ← φ − η_φ w_high ∇_φ L_high.

    Raises:
        ConfigError: the policy has no low-rank adapter, so that nothing would learn from the high rows.
    """

    def __init__(
        self,
        policy: DualActorCritic,
        config: PPOConfig,
        device: torch.device | str = "cpu",
        seed: int = 0,
        ranks: Communicator = ALONE,
    ) -> None:
        kind = policy.adapter
        require(kind == "lora", "train.params.network.adapter.kind", kind, "lora with base_learns_from=low")
        super().__init__(policy, config, device, seed, ranks)

    def accumulate_gradients(self, chunks: Sequence[Chunk], weights: tuple[float, float], sums: Tensor) -> None:
        self._gradient.accumulate(chunks, weights, sums, base_from_high=False)
