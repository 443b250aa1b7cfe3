"""The divergence in units of its own noise: how much straighter the adapter moves than it would by chance.

D grows without any gap between the simulators, since the optimiser moves the adapter on noise alone. It then grows like
a random walk: the squared distance of a path is the sum of its steps' squares. A gap makes the steps point one way. So
over W windows with the offset o = (μ_{θ,φ} − μ_θ) / σ on the same states,

    V = ‖o_W − o_0‖² / Σ_i ‖o_i − o_{i−1}‖²

is 1 by chance and up to W for a straight path. It is a ratio of divergences, since KL = ½ ‖Δμ / σ‖² for one σ. It does
not change with D's unit, and so not with the adapter's learning rate. (The variance ratio test: Lo and MacKinlay 1988.)
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dualfid_robot.algorithms.rollout import strided_samples
from dualfid_robot.policies.actor_critic import DualActorCritic

EVERY = 5
"""Iterations of a window. It is longer where E_high has no rows at its end."""
WINDOWS = 4
MAX_STATES = 1024


class Drift:
    """Measures V at the end of every window.

    Args:
        policy: both policies, as they are trained.
    """

    def __init__(self, policy: DualActorCritic) -> None:
        self._policy = policy
        self._past: deque[DualActorCritic] = deque(maxlen=WINDOWS)
        self._iterations = 0  # since the last window

    @torch.no_grad()
    def measure(self, obs: Tensor) -> Tensor | None:
        """Take in an iteration. Returns V, a scalar, or None where none is due.

        Args:
            obs: raw observations (T, n, num_obs) of E_high's rows.
        """
        self._iterations += 1
        horizon, rows, _ = obs.shape
        if self._iterations < EVERY or rows == 0:
            return None
        self._iterations = 0
        ratio = None
        if len(self._past) == WINDOWS:
            states = obs[strided_samples(horizon, rows, MAX_STATES, obs.device)]
            precision = torch.exp(-self._policy.log_std)
            means = [policy.both_means(states) for policy in (*self._past, self._policy)]
            offsets = torch.stack([(adapted - base) * precision for base, adapted in means])
            steps = (offsets[1:] - offsets[:-1]).square().sum()
            ratio = (offsets[-1] - offsets[0]).square().sum() / steps.clamp_min(1e-30)
        self._past.append(copy.deepcopy(self._policy))
        return ratio

    def state_dict(self) -> dict[str, Any]:
        """All that the next measurement depends on."""
        return {"iterations": self._iterations, "past": [policy.state_dict() for policy in self._past]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._iterations = state["iterations"]
        self._past.clear()
        for parameters in state["past"]:
            policy = copy.deepcopy(self._policy)
            policy.load_state_dict(parameters)
            self._past.append(policy)
