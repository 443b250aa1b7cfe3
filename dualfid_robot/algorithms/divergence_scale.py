"""A scale of D's own: the divergence at which E_low was last seen to help E_high.

How fast D grows depends on the adapter's learning rate, its size on the robot. So D alone says little about the gap.
While E_high's reward rises although most rows are E_low's, the present D is harmless: the scale S follows it. While
that reward stands still, S shrinks, and D / S rises above 1. D / S stays as it is when D is measured in other units.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

WINDOW = 30
"""Iterations over which the trend of E_high's reward is fitted; the first verdict comes after a third of them."""
SURE = (2.0, 4.0)
"""t-statistics of the trend at which progress begins to count, and counts in full."""
DECAY = 0.05
"""What S loses in an iteration without progress in which all rows are E_low's."""


def trend(values: np.ndarray) -> float:
    """t-statistic of the slope of a straight line through equidistant values (k,); 0 where they are all equal.

    Args:
        values: k ≥ 3 numbers.
    """
    x = np.arange(len(values)) - (len(values) - 1) / 2
    slope = x @ values / (x @ x)
    residuals = values - values.mean() - slope * x
    error = math.sqrt(residuals @ residuals / (len(values) - 2) / (x @ x))
    return float(slope / error) if error > 0.0 else math.copysign(math.inf, slope) if slope else 0.0


class DivergenceScale:
    """S, updated once an iteration.

    Attributes:
        scale: S, in units of D; NaN until D was measured.
    """

    def __init__(self) -> None:
        self.scale = math.nan
        self._rewards: deque[float] = deque(maxlen=WINDOW)

    def update(self, divergence: float, reward_high: float, rho: float) -> float:
        """Take in an iteration and return D / S.

        Args:
            divergence: D; NaN where it was not measured.
            reward_high: mean reward of a step in E_high; NaN where no row was there.
            rho: share of E_low's rows in the iteration. What happens at a small share says little about E_low.
        """
        if not math.isnan(reward_high):
            self._rewards.append(reward_high)
        if math.isnan(divergence):
            return math.nan
        if math.isnan(self.scale):
            self.scale = divergence
        if len(self._rewards) >= WINDOW // 3:
            least, most = SURE
            progress = min(max((trend(np.array(self._rewards)) - least) / (most - least), 0.0), 1.0)
            self.scale += rho * progress * max(divergence - self.scale, 0.0)
            self.scale *= 1.0 - DECAY * rho * (1.0 - progress)
        else:
            self.scale = max(self.scale, divergence)
        return divergence / self.scale if self.scale > 0.0 else 1.0

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on."""
        return {"scale": self.scale, "rewards": list(self._rewards)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.scale = state["scale"]
        self._rewards = deque(state["rewards"], maxlen=WINDOW)
