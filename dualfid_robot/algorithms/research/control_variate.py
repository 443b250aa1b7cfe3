"""The low fidelity as a control variate of the high one's policy gradient, which stays unbiased (docs/algorithm.md).

Let g_h be the mean of the high rows' gradients, and g_all that of all low rows. All of them begin in the same states.
Let g_pair be the mean of the low rows that share state and noise with a high row:

    g = g_h + c (g_pair − g_all),        c = −r σ_h / σ_l.

The bracket's mean is zero whatever the low simulator does, so g's mean is g_h's. The variance of g is (1 − r² n_free /
n_low) times that of g_h. r and σ are estimated from one number per row, X = Σ_t A_t (log π(a_t | s_t) + H[π]).
"Multi-fidelity policy gradients", arXiv 2503.05696; the classical form is Ng and Willcox, AIAA J. 52(6), 2014.

The paper's X has no entropy H. It centres log π, and X is then, but for a factor, the gradient's derivative to a common
log σ. Uncentred, X is mostly a row's mean advantage. The initial state decides that, and partners share it whether or
not their rollouts have anything in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.minibatches import shuffled_indices
from dualfid_robot.algorithms.rollout import RolloutStorage

MEMORY = 0.95
"""Of the moving averages of moments, as in the paper's code."""


class ControlVariate:
    """Estimates c over the iterations and gives every sample its weight.

    The rollout's low row i < n_high is the partner of high row n_low + i. Both began in the same state and had the same
    noise. The other low rows are free: they began in the high rows' states too, with noise of their own.

    Args:
        ranks: the processes that train together. The moments are those of all.
        device: of the storages.
    """

    def __init__(self, ranks: Communicator = ALONE, device: torch.device | str = "cpu") -> None:
        self.ranks = ranks
        # means of X_h, X_l, X_h², X_l², X_h X_l over pairs, and the sum of the averages' weights, which is 1 in the end
        self._moments = torch.zeros(6, dtype=torch.float64, device=device)
        self._correlation = self._coefficient = torch.zeros((), dtype=torch.float64, device=device)

    def weights(self, storage: RolloutStorage, advantages: Tensor, entropy: Tensor | float) -> Tensor:
        """Take in a rollout and return the factor (T, N) of each sample's policy loss. See `sample_weights`.

        Args:
            storage: the rollout.
            advantages: (T, N), as the loss has them.
            entropy: H of the policy that acted, the same in every state, nats.
        """
        n_low, n_high = storage.n_low, storage.num_envs - storage.n_low
        alive = first_episode(storage)
        terms = advantages * (storage.log_probs + entropy)
        high, low = terms[:, n_low:].sum(0).double(), (terms * alive)[:, :n_high].sum(0).double()
        batch = torch.stack([x.mean() for x in (high, low, high * high, low * low, high * low)])
        self.ranks.average_([batch])
        self._moments.mul_(MEMORY).add_(torch.cat((batch, batch.new_ones(1))), alpha=1.0 - MEMORY)
        self._correlation, coefficient = correlation_and_coefficient(self._moments[:5] / self._moments[5])
        in_batch, _ = correlation_and_coefficient(batch)
        self._coefficient = torch.where(in_batch < 0.0, 0.0, coefficient)
        return sample_weights(alive, n_low, n_high, self._coefficient)

    def metrics(self) -> dict[str, Tensor]:
        """What to log of the last rollout: r over the last iterations, and the c that was used."""
        return {
            "control_variate/correlation": self._correlation.float(),
            "control_variate/coefficient": self._coefficient.float(),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next rollout's weights depend on."""
        return {"moments": self._moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._moments.copy_(state["moments"])


def first_episode(storage: RolloutStorage) -> Tensor:
    """(T, N): 1 until a row's first episode of the rollout is over, its last step included. It is 0 from then on."""
    ended = (storage.terminated | storage.truncated).int()
    return (ended.cumsum(0) == ended).float()


def correlation_and_coefficient(moments: Tensor) -> tuple[Tensor, Tensor]:
    """r and c = −r σ_h / σ_l = −Cov(X_h, X_l) / Var(X_l), scalars; 0 where either does not vary.

    Args:
        moments: (5,), means of X_h, X_l, X_h², X_l², X_h X_l.
    """
    high, low, high_squared, low_squared, product = moments.unbind()
    variances = torch.stack((high_squared - high * high, low_squared - low * low))
    covariance = product - high * low
    varies = (variances > 1e-12 * torch.stack((high_squared, low_squared))).all()  # more than rounding
    variances = torch.where(varies, variances, 1.0)
    zero = torch.zeros_like(covariance)
    correlation = torch.where(varies, covariance * variances.prod().rsqrt(), zero).clamp(-1.0, 1.0)
    return correlation, torch.where(varies, -covariance / variances[1], zero)


def sample_weights(alive: Tensor, n_low: int, n_high: int, coefficient: Tensor) -> Tensor:
    """Factors (T, N) of the samples' policy losses in L_low + L_high. Each loss is a mean over its samples. The factors
    make ∇(L_low + L_high) = g_h + c (g_pair − g_all):

        high 1      partners c (n_low / n_high − 1)      free low rows −c      low rows after their first episode 0

    A low row's own rollout alone decides which of its samples count. So partners and free rows lose the same in the
    mean. A partner goes on after the high row's end. If it were dropped there, only partners that survived in the high
    simulator would be left. Free rows have no equal of these.

    Args:
        alive: (T, N), see `first_episode`.
        n_low, n_high: rows, n_low ≥ n_high.
        coefficient: c, a scalar.
    """
    weights = alive.clone()
    weights[:, n_low:] = 1.0
    c = coefficient.to(alive.dtype)
    weights[:, :n_high] *= c * (n_low / n_high - 1.0)
    weights[:, n_high:n_low] *= -c
    return weights


def paired_order(
    horizon: int, num_envs: int, n_low: int, pieces: int, generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """A random order of the samples (t, row), as indices t · N + row, in pieces. Each piece holds equal shares (to one
    sample) of pairs and of free low samples.

    A high sample and its partner's are in the same piece. Apart, they would add noise to a gradient step.

    Returns:
        The pieces' low samples, partners first, and their high samples.
    """
    n_high = num_envs - n_low
    partners = shuffled_indices(horizon, num_envs, range(n_high), generator)
    free = shuffled_indices(horizon, num_envs, range(n_high, n_low), generator)
    low = zip(partners.tensor_split(pieces), free.tensor_split(pieces), strict=True)
    return [torch.cat(pair) for pair in low], list((partners + n_low).tensor_split(pieces))
