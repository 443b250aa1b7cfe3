"""The dual environment: N rows, of which the first n_low live in the low pool and the rest in the high pool."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool


class DualEnvironment:
    """Rows [0, n_low) are the low pool's environments, rows [n_low, N) the high pool's.

    Either pool may be absent where the allocation never uses it.

    Attributes:
        num_envs: N.
        n_low: rows of the low pool; `reallocate` moves the boundary.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step.
        final_observations: (N, num_observations): in the rows that the last step truncated, what they saw last; the
            other rows mean nothing.
    """

    def __init__(self, low: EnvironmentPool | None, high: EnvironmentPool | None, num_envs: int, overlap: bool) -> None:
        """Join two pools.

        Args:
            low, high: pools whose sizes bound n_low and N - n_low.
            num_envs: N.
            overlap: let the pools step at the same time. Worth it where they use different resources (CPU and GPU);
                on the same cores it gains nothing and blurs each pool's cost.
        """
        pool = low or high
        assert pool is not None
        self.low = low
        self.high = high
        self.num_envs = num_envs
        self.overlap = overlap
        self.n_low = 0 if low is None else num_envs
        self.task = pool.task
        self.reward = torch.zeros(num_envs)
        self.terminated = torch.zeros(num_envs, dtype=torch.bool)
        self.truncated = torch.zeros(num_envs, dtype=torch.bool)
        self.final_observations = torch.zeros(num_envs, pool.task.num_observations)

    def reallocate(self, n_low: int) -> None:
        """Give the first n_low rows to the low pool. Environments out of use are frozen and go on later."""
        low, high = self._capacity(self.low), self._capacity(self.high)
        if not 0 <= n_low <= low or self.num_envs - n_low > high:
            raise ValueError(f"n_low={n_low} of {self.num_envs} does not fit pools of {low} and {high}")
        self.n_low = n_low

    def observe(self, out: Tensor) -> None:
        """Write the current observations of all rows into `out` (N, num_observations)."""
        for pool, rows in self._parts():
            out[rows] = pool.observations[: rows.stop - rows.start]

    def step(self, actions: Tensor) -> None:
        """Advance every row by one control period.

        Args:
            actions: (N, num_actions), unclipped.
        """
        parts = self._parts()
        if self.overlap:
            for pool, rows in parts:
                pool.start_step(actions[rows])
            for pool, _ in parts:
                pool.finish_step()
        else:
            for pool, rows in parts:
                pool.step(actions[rows])
        self._collect(parts)

    def _collect(self, parts: list[tuple[EnvironmentPool, slice]]) -> None:
        for pool, rows in parts:
            n = rows.stop - rows.start
            self.reward[rows] = pool.reward[:n]
            self.terminated[rows] = pool.terminated[:n]
            self.truncated[rows] = pool.truncated[:n]
            self.final_observations[rows.start + pool.final_ids] = pool.final_observations

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        pools = {"low": self.low, "high": self.high}
        return {"n_low": self.n_low} | {name: pool.state_dict() for name, pool in pools.items() if pool is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of an environment of the same task, engines and sizes."""
        for name, pool in (("low", self.low), ("high", self.high)):
            if pool is not None:
                pool.load_state_dict(state[name])
        self.reallocate(state["n_low"])

    def close(self) -> None:
        """Close both simulators."""
        for pool in (self.low, self.high):
            if pool is not None:
                pool.simulator.close()

    def _parts(self) -> list[tuple[EnvironmentPool, slice]]:
        parts = ((self.low, slice(0, self.n_low)), (self.high, slice(self.n_low, self.num_envs)))
        return [(pool, rows) for pool, rows in parts if pool is not None and rows.stop > rows.start]

    @staticmethod
    def _capacity(pool: EnvironmentPool | None) -> int:
        return 0 if pool is None else pool.num_envs
