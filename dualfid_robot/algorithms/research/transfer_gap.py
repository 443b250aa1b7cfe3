"""How much of the advantage in the high fidelity is lost by acting there with the base policy."""

from __future__ import annotations

import torch
from torch import Tensor

from dualfid_robot.algorithms.rollout import RolloutStorage, strided_samples
from dualfid_robot.policies.actor_critic import DualActorCritic


@torch.no_grad()
def transfer_gap(
    policy: DualActorCritic, storage: RolloutStorage, advantages: Tensor, e_clip: float, max_states: int = 4096
) -> Tensor | None:
    """Ĝ / σ_A = −mean over high samples of (clip(r, 1 ± ε) − 1) Â,   r = π_θ(a|s) / π_{θ,φ}(a|s).

    It is the surrogate objective of PPO (Schulman et al., arXiv 1707.06347) for the step from π_{θ,φ} to π_θ in the
    high fidelity, turned round: positive where π_θ makes good actions less likely. It is 0 for equal policies, has no
    unit and is indifferent to differences that the return does not depend on. One forward pass on data that exist.

    Args:
        policy: both policies, as they acted.
        storage: the rollout.
        advantages: (T, N), each fidelity's standardised: Â is centred and in units of σ_A.
        e_clip: ε.
        max_states: at most so many samples, evenly strided over all of them.

    Returns:
        A scalar tensor, or None where there is no high sample.
    """
    n_high = storage.num_envs - storage.n_low
    if n_high == 0:
        return None
    steps, rows = strided_samples(storage.horizon, n_high, max_states, advantages.device)
    rows = rows + storage.n_low
    actions = storage.actions[steps, rows]
    base, adapted = policy.both_means(storage.observations[steps, rows])
    # log r = ½ Σ_i [ ((a − μ_{θ,φ}) / σ)² − ((a − μ_θ) / σ)² ]; σ is shared
    log_ratio = 0.5 * ((base - adapted) * (2.0 * actions - base - adapted) * torch.exp(-2.0 * policy.log_std)).sum(-1)
    ratio = log_ratio.exp().clamp(1.0 - e_clip, 1.0 + e_clip)
    return -((ratio - 1.0) * advantages[steps, rows]).mean()
