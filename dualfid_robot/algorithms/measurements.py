"""What is measured on an iteration's rollout before the update: as much as the allocation rule asks for."""

from __future__ import annotations

from torch import Tensor

from dualfid_robot.algorithms.agreement import agreement
from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.drift import Drift
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.policies.actor_critic import DualActorCritic

SIGNAL_OF_METRIC = {
    "divergence/D": "divergence",
    "divergence/high": "divergence_high",
    "divergence/drift": "drift",
    "allocation/agreement": "agreement",
}
"""The signal that a logged metric is the raw value of."""


def measure(
    policy: DualActorCritic,
    storage: RolloutStorage,
    required: frozenset[str],
    ranks: Communicator = ALONE,
    drift: Drift | None = None,
) -> dict[str, Tensor]:
    """Measure D, which is always logged, and the required signals; means over the ranks.

    Args:
        policy: both policies, as they acted.
        storage: the rollout, with its advantages.
        required: names of ``Signals``.
        ranks: the processes that train together.
        drift: of the run, where the rule asks for it.

    Returns:
        Scalars by the names of ``SIGNAL_OF_METRIC``, for ``read_back``. What needs a fidelity that has no samples is
        left out.
    """
    metrics: dict[str, Tensor | None] = {"divergence/D": policy_divergence(policy, storage.low_observations)}
    if "divergence_high" in required:
        metrics["divergence/high"] = policy_divergence(policy, storage.high_observations)
    if drift is not None:
        metrics["divergence/drift"] = drift.measure(storage.high_observations)
    if "agreement" in required and 0 < storage.n_low < storage.num_envs:
        metrics["allocation/agreement"] = agreement(policy, storage, ranks)
    measured = {name: value for name, value in metrics.items() if value is not None}
    if measured:
        ranks.average_(list(measured.values()))
    return measured
