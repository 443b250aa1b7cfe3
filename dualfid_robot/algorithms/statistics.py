"""Means and deviations of an iteration's samples, over all processes that train together."""

from __future__ import annotations

import torch
from torch import Tensor

from dualfid_robot.policies.normalizer import Gather


def moments(x: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all elements of all processes."""
    std, mean = torch.std_mean(x, correction=0)
    # in float64 the root of the square of a single process's deviation is that deviation to the bit
    means, stds = gather(torch.stack((mean, std)).double()).unbind(1)
    return means.mean().to(x.dtype), (stds.square().mean() + means.var(correction=0)).sqrt().to(x.dtype)


def standardised(advantages: Tensor, gather: Gather) -> Tensor:
    """(A − mean) / std; a single sample, or samples that are all equal, give zeros."""
    if advantages.numel() == 0:
        return advantages
    mean, std = moments(advantages, gather)
    return (advantages - mean) / (std + 1e-8)


def standardised_per_fidelity(advantages: Tensor, n_low: int, gather: Gather) -> Tensor:
    """Advantages (T, N) whose low rows [0, n_low) and high rows are standardised apart."""
    return torch.cat([standardised(side, gather) for side in advantages.tensor_split((n_low,), dim=1)], dim=1)


def explained_variance(values: Tensor, returns: Tensor, gather: Gather) -> Tensor:
    """1 − Var(R − V) / Var(R): 1 for a perfect critic, 0 for a constant one."""
    _, error = moments(returns - values, gather)
    _, spread = moments(returns, gather)
    return 1.0 - error.square() / spread.square().clamp_min(1e-12)
