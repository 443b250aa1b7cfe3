"""Running statistics of observations and of returns, kept so that they do not depend on the allocation.

The algorithm updates both at the PPO update, never between a rollout and its update. Otherwise the probability ratio,
which compares the policy with itself, would measure the normaliser's change.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Gather = Callable[[Tensor], Tensor]
"""Stacks the tensors of all processes that train together: (...) -> (R, ...). Each has equally many samples."""


def alone(tensor: Tensor) -> Tensor:
    """`Gather` of a single process."""
    return tensor.unsqueeze(0)


class ObservationNormalizer(nn.Module):
    """(obs − mean) / √(var + 1e-5), clipped to ±clip, with one set of statistics for both fidelities.

    Every update weighs the two fidelities' observations equally, however many of each there are. Otherwise a change of
    the allocation alone would change the policy. Before the first update the mean is 0 and the variance 1.

    Args:
        dim: number of observations.
        clip: bound of the normalised values (5 as in IsaacGymEnvs and rl_games).
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    EPSILON = 1e-5

    def __init__(self, dim: int, clip: float = 5.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("var", torch.ones(dim, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, obs: Tensor) -> Tensor:
        """obs (..., dim) -> float32 of the same shape."""
        mean = self.mean.float()
        scale = (self.var + self.EPSILON).rsqrt().float()
        return ((obs.float() - mean) * scale).clamp(-self.clip, self.clip)

    @torch.no_grad()
    def update(self, low_obs: Tensor, high_obs: Tensor, gather: Gather = alone) -> None:
        """Merge one iteration's observations of all processes, (M, dim) of each fidelity here. One of them may be
        empty.

        All iterations count the same. After k updates the statistics are those of the equal-weight mixture of k
        batches, by the law of total variance.
        """
        batch_mean, batch_var = _mixture([_moments(obs, gather) for obs in (low_obs, high_obs) if obs.shape[0] > 0])
        self.count += 1.0
        _merge_(self.mean, self.var, batch_mean, batch_var, 1.0 / self.count)


class ReturnNormalizer(nn.Module):
    """One mean and variance of the returns per fidelity: index 0 is low, index 1 is high.

    The critic predicts (return − mean) / std. The statistics average the last ``MEMORY`` updates or so, since returns
    grow with the policy. A fidelity that never had data follows the other one's statistics.

    Args:
        shared: both fidelities have the statistics of their equal-weight mixture, for a critic whose output layer both
            share.
    """

    mean: Tensor
    var: Tensor
    count: Tensor
    MEMORY = 100.0
    MIN_STD = 1e-2  # so that constant returns (a sparse reward not yet found) do not blow up the targets

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.shared = shared
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("var", torch.ones(2, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(2, dtype=torch.float64))

    @property
    def std(self) -> Tensor:
        """Standard deviations (2,), at least ``MIN_STD``."""
        return self.var.sqrt().clamp_min(self.MIN_STD)

    def normalize(self, values: Tensor, n_low: int) -> Tensor:
        """Return units -> critic's units, for values (rows,) laid out [low | high]."""
        mean, std = self.mean.float(), self.std.float()
        return torch.cat(((values[:n_low] - mean[0]) / std[0], (values[n_low:] - mean[1]) / std[1]))

    def denormalize(self, values: Tensor, n_low: int) -> Tensor:
        """Critic's units -> return units, for values (rows,) laid out [low | high]."""
        mean, std = self.mean.float(), self.std.float()
        return torch.cat((values[:n_low] * std[0] + mean[0], values[n_low:] * std[1] + mean[1]))

    @torch.no_grad()
    def update(self, low_returns: Tensor, high_returns: Tensor, gather: Gather = alone) -> None:
        """Merge one iteration's returns of all processes, (M,) of each fidelity here. Either may be empty."""
        if self.shared:
            self._update_shared([returns for returns in (low_returns, high_returns) if returns.numel() > 0], gather)
            return
        for side, returns in enumerate((low_returns, high_returns)):
            if returns.numel() > 0:
                self.count[side] += 1.0
                batch_mean, batch_var = _moments(returns.reshape(-1, 1), gather)
                weight = 1.0 / self.count[side].clamp_max(self.MEMORY)
                _merge_(self.mean[side : side + 1], self.var[side : side + 1], batch_mean, batch_var, weight)
        for side, returns in enumerate((low_returns, high_returns)):
            if returns.numel() == 0:
                unseen = self.count[side] == 0
                self.mean[side] = torch.where(unseen, self.mean[1 - side], self.mean[side])
                self.var[side] = torch.where(unseen, self.var[1 - side], self.var[side])

    def _update_shared(self, sides: list[Tensor], gather: Gather) -> None:
        self.count += 1.0
        batch_mean, batch_var = _mixture([_moments(returns.reshape(-1, 1), gather) for returns in sides])
        _merge_(self.mean, self.var, batch_mean, batch_var, 1.0 / self.count.clamp_max(self.MEMORY))


def _moments(batch: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    """Mean and population variance over the rows of all processes, in float64."""
    var, mean = torch.var_mean(batch.double(), dim=0, correction=0)
    means, variances = gather(torch.stack((mean, var))).unbind(1)
    return means.mean(0), variances.mean(0) + means.var(0, correction=0)


def _mixture(sides: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the mixture in which all sides weigh the same."""
    batch_mean = torch.stack([mean for mean, _ in sides]).mean(0)
    return batch_mean, torch.stack([var + (mean - batch_mean) ** 2 for mean, var in sides]).mean(0)


def _merge_(mean: Tensor, var: Tensor, batch_mean: Tensor, batch_var: Tensor, weight: Tensor) -> None:
    """In place: the moments of the mixture (1 − weight) · (mean, var) + weight · (batch_mean, batch_var)."""
    difference = batch_mean - mean
    var.copy_((1.0 - weight) * var + weight * batch_var + weight * (1.0 - weight) * difference**2)
    mean.add_(weight * difference)
