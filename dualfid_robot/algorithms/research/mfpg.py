"""Multi-fidelity policy gradient (arXiv 2503.05696): the low rows correct the high rows' gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dualfid_robot.algorithms.dual_ppo import DualPPO, entropy
from dualfid_robot.algorithms.ppo_loss import MiniBatch
from dualfid_robot.algorithms.research.control_variate import ControlVariate, paired_order
from dualfid_robot.algorithms.rollout import RolloutStorage


class MFPG(DualPPO):
    """PPO on the high rows with the low rows as a control variate of the policy's gradient.

    The rollout's low row i < n_high has the state and the noise of high row n_low + i, see ``ControlVariate``.
    """

    def set_up(self) -> None:
        self.control_variate = ControlVariate(self.ranks, self.device)

    def rows_of_the_critic(self, storage: RolloutStorage) -> tuple[slice, slice]:
        """The critic learns from high rows alone."""
        return slice(0), super().rows_of_the_critic(storage)[1]

    def sample_order(self, storage: RolloutStorage, pieces: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Partners stay in one piece."""
        return paired_order(storage.horizon, storage.num_envs, storage.n_low, pieces, self._generator)

    def samples(self, storage: RolloutStorage) -> MiniBatch:
        """The samples with the control variate's weights."""
        samples = super().samples(storage)
        weights = self.control_variate.weights(storage, samples.advantages, entropy(self.policy))
        return samples._replace(policy_weights=weights)

    def loss_weights(self, n_low: int, n_high: int) -> tuple[float, float]:
        """L_low + L_high, for which the control variate's weights are made."""
        return 1.0, 1.0

    def metrics(self, sums: Tensor, norms: Tensor, storage: RolloutStorage) -> dict[str, Tensor]:
        """Metrics of ``DualPPO``, with the correlation and the coefficient."""
        return super().metrics(sums, norms, storage) | self.control_variate.metrics()

    def parts(self) -> dict[str, Any]:
        """Parts of ``DualPPO``, with the moments."""
        return super().parts() | {"control_variate": self.control_variate}
