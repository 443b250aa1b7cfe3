"""Whether E_low pulls the policy the way that E_high does: one simulator's gradient, tested on the other's samples.

g is the policy gradient that E_low's samples give for a linear change of the mean action (Williams 1992). c is what the
same change is worth to a row of E_high, and z is the t-value of its mean:

    g = Σ_low A ε xᵀ        c = Σ_t A εᵀ g x        z = Σ_high c / √(Σ_high c²)

Here ε is the noise of an action in units of σ, x the normalised observation and a 1, A the standardised advantage. Both
sides' noise is independent. So z is about standard normal where E_low's change is worth nothing in E_high. It is more
where E_low helps, and less where it misleads. It has no unit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.rollout import RolloutStorage, strided_samples
from dualfid_robot.algorithms.statistics import standardised_per_fidelity
from dualfid_robot.policies.actor_critic import DualActorCritic

MAX_SAMPLES = 8192
"""Of each simulator. More would cost more time and hardly be more certain."""


@torch.no_grad()
def agreement(policy: DualActorCritic, storage: RolloutStorage, ranks: Communicator = ALONE) -> Tensor:
    """z of a rollout whose advantages are computed and that has rows of both simulators, a scalar.

    Args:
        policy: both policies, as they acted.
        storage: the rollout.
        ranks: the processes that train together. All have the same g, and z is that of all their rows.
    """
    n_low, n_high, horizon = storage.n_low, storage.num_envs - storage.n_low, storage.horizon
    advantages = standardised_per_fidelity(storage.advantages, n_low, ranks.gather)

    # E_low's gradient, from samples that are spread over steps and rows
    low = strided_samples(horizon, n_low, MAX_SAMPLES, advantages.device)
    gradient = (storage.noise[low] * advantages[low].unsqueeze(-1)).t() @ _inputs(policy, storage.observations[low])
    ranks.average_([gradient])

    # what it is worth to rows of E_high, over all their steps
    high = slice(n_low, None, -(-horizon * n_high // MAX_SAMPLES))
    worth = ((storage.noise[:, high] @ gradient) * _inputs(policy, storage.observations[:, high])).sum(-1)
    of_rows = (advantages[:, high] * worth).sum(0)
    score = of_rows.sum() / of_rows.square().sum().sqrt().clamp_min(1e-30)
    return score * math.sqrt(ranks.size)


def _inputs(policy: DualActorCritic, obs: Tensor) -> Tensor:
    """x (..., num_obs + 1) of raw observations (..., num_obs)."""
    return torch.nn.functional.pad(policy.normalizer(obs), (0, 1), value=1.0)
