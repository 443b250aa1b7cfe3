"""ρ = n_l* / N, the low share of the pooled gradient with the least error for its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from dualfid_robot.algorithms.research.bias_variance import optimal_low_samples
from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import COSTS, Signals


@rule("bias_variance_cost")
@dataclass(frozen=True)
class BiasVarianceCost:
    """ρ = n_l* / N with the n_l* of ``bias_variance.optimal_low_samples``; nothing to tune.

    The cost of a sample is its simulator's and the learner's. Half of the environments are low while nothing is known.
    """

    requires: ClassVar[frozenset[str]] = COSTS | {"bias_squared", "variance_low", "variance_high"}

    def __call__(self, signals: Signals) -> float:
        low = optimal_low_samples(
            signals.bias_squared,
            signals.variance_low,
            signals.variance_high,
            signals.cost_low + signals.cost_learner,
            signals.cost_high + signals.cost_learner,
            signals.num_envs,
        )
        return 0.5 if math.isnan(low) else low / signals.num_envs
