"""What is measured on an iteration's rollout before the update: as much as the rule and the update ask for."""

from __future__ import annotations

from torch import Tensor

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.research.gradient_moments import policy_gradient_moments
from dualfid_robot.algorithms.research.transfer_gap import transfer_gap
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.algorithms.signals import GRADIENT_MOMENTS
from dualfid_robot.algorithms.statistics import standardised_per_fidelity
from dualfid_robot.policies.actor_critic import DualActorCritic

SIGNAL_OF_METRIC = {
    "divergence/D": "divergence",
    "divergence/high": "divergence_high",
    "divergence/placebo": "divergence_placebo",
    "transfer_gap": "transfer_gap",
    "gradient/bias_squared": "bias_squared",
    "gradient/variance_low": "variance_low",
    "gradient/variance_high": "variance_high",
    "gradient/norm_squared": "gradient_squared",
}
"""The signal that a logged metric is the raw value of. The placebo's divergence comes from the update."""
METRIC_OF_SIGNAL = {signal: metric for metric, signal in SIGNAL_OF_METRIC.items()}


def measure(
    policy: DualActorCritic,
    storage: RolloutStorage,
    required: frozenset[str],
    e_clip: float,
    ranks: Communicator = ALONE,
) -> dict[str, Tensor]:
    """Measure D, which is always logged, and the required signals; means over the ranks.

    Args:
        policy: both policies, as they acted.
        storage: the rollout, with its returns computed.
        required: names of ``Signals``.
        e_clip: ε of the probability ratio.

    Returns:
        Scalars by the names of ``SIGNAL_OF_METRIC``, for ``read_back``. What needs a fidelity that has no samples is
        left out.
    """
    metrics: dict[str, Tensor | None] = {"divergence/D": policy_divergence(policy, storage.low_observations)}
    if "divergence_high" in required:
        metrics["divergence/high"] = policy_divergence(policy, storage.high_observations)
    if required & (GRADIENT_MOMENTS | {"transfer_gap"}):
        advantages = standardised_per_fidelity(storage.advantages, storage.n_low, ranks.gather)
        if "transfer_gap" in required:
            metrics["transfer_gap"] = transfer_gap(policy, storage, advantages, e_clip)
        if required & GRADIENT_MOMENTS:
            moments = policy_gradient_moments(policy, storage, advantages)
            metrics |= {} if moments is None else {METRIC_OF_SIGNAL[name]: x for name, x in moments._asdict().items()}
    measured = {name: value for name, value in metrics.items() if value is not None}
    if measured:
        ranks.average_(list(measured.values()))
    return measured
