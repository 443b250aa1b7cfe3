"""The dual environment: N rows, of which the first n_low live in the low pool and the rest in the high pool."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool, PoolStatistics


class DualEnvironment:
    """Rows [0, n_low) are the low pool's environments, rows [n_low, N) the high pool's.

    A pool is absent if the allocation never uses it. Pools on different devices step at the same time. Pools on one
    device step in turn, so that each has a cost of its own.

    Attributes:
        num_envs: N.
        n_low: rows of the low pool; `reallocate` moves the boundary.
        overlap: whether the pools step at the same time.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step, on `device`.
        final_observations: (N, num_observations): the last observations of the episodes that ended in the last step.
            Other rows hold no values.
    """

    def __init__(
        self,
        low: EnvironmentPool | None,
        high: EnvironmentPool | None,
        num_envs: int,
        device: torch.device | str = "cpu",
    ) -> None:
        """Join two pools.

        Args:
            low, high: pools whose sizes bound n_low and N - n_low.
            num_envs: N.
            device: the learner's, of actions, observations and results.
        """
        pool = low or high
        assert pool is not None
        self.low = low
        self.high = high
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.overlap = low is not None and high is not None and low.device != high.device
        self.n_low = 0 if low is None else num_envs
        self.task = pool.task
        self.reward = torch.zeros(num_envs, device=device)
        self.terminated = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.final_observations = torch.zeros(num_envs, pool.task.num_observations, device=device)
        self._carriers = {id(pool): _ActionCarrier(pool, self.device) for pool in self.pools if pool is not None}

    @property
    def pools(self) -> tuple[EnvironmentPool | None, EnvironmentPool | None]:
        """Low and high."""
        return self.low, self.high

    def reallocate(self, n_low: int) -> None:
        """Give the first n_low rows to the low pool. Environments out of use are frozen and go on later."""
        low, high = self._capacity(self.low), self._capacity(self.high)
        if not 0 <= n_low <= low or self.num_envs - n_low > high:
            raise ValueError(f"n_low={n_low} of {self.num_envs} does not fit pools of {low} and {high}")
        self.n_low = n_low

    def pair(self, generator: torch.Generator) -> None:
        """Put the low rows into the present states of high rows. Low row i < n_high takes the state of the i-th high
        row, its partner. Further low rows take high rows' states equally often. If that does not come out even, the
        generator draws the rows that serve once more.

        Args:
            generator: on any device.
        """
        assert self.low is not None and self.high is not None
        n_high = self.num_envs - self.n_low
        order = torch.arange(n_high, device=generator.device).repeat(self.n_low // n_high)
        once_more = torch.randperm(n_high, generator=generator, device=generator.device)
        self.low.adopt(self.high, torch.cat((order, once_more[: self.n_low - len(order)])))

    def observe(self, out: Tensor) -> None:
        """Write the current observations of all rows into `out` (N, num_observations)."""
        for pool, rows in self._parts():
            self._fetch(pool.observations[: rows.stop - rows.start], out[rows])

    def step(self, actions: Tensor) -> None:
        """Advance every row by one control period.

        Args:
            actions: (N, num_actions), unclipped, on `device`.
        """
        parts = self._parts()
        if self.overlap:
            self._step_at_once(parts, actions)
        else:
            for pool, rows in parts:
                carrier = self._carriers[id(pool)]
                carrier.send(actions[rows])
                pool.step(carrier.receive())
        for pool, rows in parts:
            n = rows.stop - rows.start
            self._fetch(pool.reward[:n], self.reward[rows])
            self._fetch(pool.terminated[:n], self.terminated[rows])
            self._fetch(pool.truncated[:n], self.truncated[rows])
            self._fetch(pool.final_observations[:n], self.final_observations[rows])

    def _step_at_once(self, parts: list[tuple[EnvironmentPool, slice]], actions: Tensor) -> None:
        # Start all copies of actions before the first step. A copy from the learner's GPU to the CPU then waits for the
        # policy alone. It does not wait for the GPU's physics.
        for pool, rows in parts:
            self._carriers[id(pool)].send(actions[rows])
        parts = sorted(parts, key=lambda part: part[0].device.type == "cpu")
        for pool, _ in parts:
            pool.start_step(self._carriers[id(pool)].receive())
        for pool, _ in reversed(parts):
            pool.finish_step()

    def take_statistics(self) -> dict[str, PoolStatistics]:
        """Statistics of each pool since the last call, by side. An absent pool's are empty."""
        sides = zip(("low", "high"), self.pools, strict=True)
        return {side: pool.take_statistics() if pool else PoolStatistics() for side, pool in sides}

    def hidden_seconds(self, statistics: dict[str, PoolStatistics]) -> float:
        """Time in which both pools were stepping, which is what overlap saved. Pools begin a step together, so each
        step counts with the shorter of their times."""
        if not self.overlap:
            return 0.0
        steps = zip(statistics["low"].step_seconds, statistics["high"].step_seconds, strict=False)
        return sum(min(pair) for pair in steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        sides = zip(("low", "high"), self.pools, strict=True)
        return {"n_low": self.n_low} | {side: pool.state_dict() for side, pool in sides if pool is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of an environment of the same task, engines and sizes."""
        for side, pool in zip(("low", "high"), self.pools, strict=True):
            if pool is not None:
                pool.load_state_dict(state[side])
        self.reallocate(state["n_low"])

    def close(self) -> None:
        """Close both simulators."""
        for pool in self.pools:
            if pool is not None:
                pool.simulator.close()

    def _fetch(self, source: Tensor, target: Tensor) -> None:
        # A copy to a GPU need not make the host wait. Its source is pinned memory. The pool writes there again only
        # after it has received actions that were computed after this copy.
        target.copy_(source, non_blocking=self.device.type == "cuda")

    def _parts(self) -> list[tuple[EnvironmentPool, slice]]:
        parts = ((self.low, slice(0, self.n_low)), (self.high, slice(self.n_low, self.num_envs)))
        return [(pool, rows) for pool, rows in parts if pool is not None and rows.stop > rows.start]

    @staticmethod
    def _capacity(pool: EnvironmentPool | None) -> int:
        return 0 if pool is None else pool.num_envs


class _ActionCarrier:
    """Brings actions from the learner's device to a pool's."""

    def __init__(self, pool: EnvironmentPool, source: torch.device) -> None:
        self._target = pool.device
        self._same = pool.device == source
        self._from_gpu = source.type == "cuda" and pool.device.type == "cpu"
        if self._from_gpu:
            self._pinned = torch.zeros(pool.num_envs, pool.task.num_actions, pin_memory=True)
            self._copied = torch.cuda.Event()

    def send(self, actions: Tensor) -> None:
        """Begin the transfer of (n, num_actions)."""
        self._sent = actions
        if self._from_gpu:
            self._sent = self._pinned[: len(actions)]
            self._sent.copy_(actions, non_blocking=True)
            self._copied.record()

    def receive(self) -> Tensor:
        """The actions on the pool's device, once they are there."""
        if self._from_gpu:
            self._copied.synchronize()
            return self._sent
        return self._sent if self._same else self._sent.to(self._target)
