"""The dual environment: N rows. The first n_low live in E_low's engines, one after another, the rest in E_high."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool, PoolStatistics


def rows_of_engines(n_low: int, shares: Sequence[float]) -> list[int]:
    """Rows of each engine of E_low: whole numbers nearest to its share that add up to n_low.

    Args:
        n_low: E_low's rows.
        shares: of each engine. They add up to 1.
    """
    ends = [round(n_low * end) for end in accumulate(shares)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def capacities(most_low: int, shares: Sequence[float]) -> list[int]:
    """The most rows that each engine can ever get while E_low has at most `most_low`."""
    # with n rows, an engine of share s has n s - 1 to n s + 1; so fewer rows by 2 / s cannot give it more
    least = most_low - math.ceil(2.0 / min(shares))
    every = [rows_of_engines(n_low, shares) for n_low in range(max(0, least), most_low + 1)]
    return [max(rows) for rows in zip(*every, strict=True)]


def hidden_seconds(devices: Sequence[torch.device], step_seconds: Sequence[Sequence[float]]) -> float:
    """Seconds in which pools of two devices were stepping at once, s; 0 for one device.

    Args:
        devices: of each pool.
        step_seconds: of each pool, for each step. It is empty for a pool without rows.
    """
    totals = {device: np.zeros(max(map(len, step_seconds))) for device in devices}
    for device, seconds in zip(devices, step_seconds, strict=True):
        if seconds:
            totals[device] += seconds
    return float(np.minimum.reduce(list(totals.values())).sum()) if len(totals) > 1 else 0.0


class DualEnvironment:
    """Rows [0, n_low) are E_low's environments, contiguous for each of its engines, rows [n_low, N) are E_high's.

    Either side may be empty where the allocation never uses it. Pools on different devices step at the same time.
    Pools on one device step in turn, which costs nothing there and keeps their costs apart.

    Attributes:
        low: E_low's pools, in the order of their rows.
        high: E_high's pool.
        num_envs: N.
        n_low: rows of E_low; `reallocate` moves the boundary.
        overlap: whether some pools step at the same time.
        reward: (N,); terminated: (N,) bool; truncated: (N,) bool: results of the last step, on `device`.
        final_observations: (N, num_observations): the last observations of the episodes that ended in the last step.
            Other rows hold no values.
    """

    def __init__(
        self,
        low: Sequence[EnvironmentPool],
        high: EnvironmentPool | None,
        num_envs: int,
        device: torch.device | str = "cpu",
        shares: Sequence[float] = (1.0,),
    ) -> None:
        """Join pools.

        Args:
            low: pools of E_low. Their sizes bound the rows that `shares` gives each.
            high: pool of E_high, whose size bounds N - n_low.
            num_envs: N.
            device: the learner's, of actions, observations and results.
            shares: how E_low's rows are split between its pools.
        """
        self.low, self.high = list(low), high
        self.num_envs, self.shares = num_envs, shares
        self.device = torch.device(device)
        devices = {pool.device for pool in self.pools}
        self.overlap = len(devices) > 1
        self.n_low = num_envs if self.low else 0
        self._rows_of_low = rows_of_engines(self.n_low, shares) if self.low else []
        self.task = self.pools[0].task
        self.reward = torch.zeros(num_envs, device=device)
        self.terminated = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.truncated = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.final_observations = torch.zeros(num_envs, self.task.num_observations, device=device)
        self._carriers = {id(pool): _ActionCarrier(pool, self.device) for pool in self.pools}

    @property
    def pools(self) -> list[EnvironmentPool]:
        """E_low's pools, then E_high's."""
        return self.low if self.high is None else [*self.low, self.high]

    def reallocate(self, n_low: int) -> None:
        """Give the first n_low rows to E_low. Environments out of use are frozen and go on later.

        Args:
            n_low: E_low's rows.
        """
        rows = rows_of_engines(n_low, self.shares) if self.low else []
        sizes = [pool.num_envs for pool in self.low]
        high = 0 if self.high is None else self.high.num_envs
        fits = sum(rows) == n_low and all(n <= size for n, size in zip(rows, sizes, strict=True))
        if n_low < 0 or self.num_envs - n_low > high or not fits:
            raise ValueError(f"n_low={n_low} of {self.num_envs} does not fit pools of {sizes} and {high}")
        self.n_low, self._rows_of_low = n_low, rows

    def pair(self, generator: torch.Generator) -> None:
        """Put the low rows into the present states of high rows.

        Low row i < n_high gets the state of the i-th high row, whose partner it is. The others are dealt so that every
        high row's state is taken equally often, up to one time. Chance decides which are taken once more.

        Args:
            generator: on any device.
        """
        assert self.high is not None and len(self.low) == 1
        n_high = self.num_envs - self.n_low
        order = torch.arange(n_high, device=generator.device).repeat(self.n_low // n_high)
        once_more = torch.randperm(n_high, generator=generator, device=generator.device)
        self.low[0].adopt(self.high, torch.cat((order, once_more[: self.n_low - len(order)])))

    def observe(self, out: Tensor) -> None:
        """Write the current observations of all rows into `out` (N, num_observations)."""
        for pool, rows in self.parts():
            self._fetch(pool.observations[: rows.stop - rows.start], out[rows])

    def step(self, actions: Tensor) -> None:
        """Advance every row by one control period.

        Args:
            actions: (N, num_actions), unclipped, on `device`.
        """
        parts = self.parts()
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
        # All copies of actions are under way before the first step is: a copy from the learner's GPU to a pool of the
        # CPU then waits for the policy only, and not for the GPU's physics, which the CPU's pools step beside.
        for pool, rows in parts:
            self._carriers[id(pool)].send(actions[rows])
        on_gpu = [pool for pool, _ in parts if pool.device.type != "cpu"]
        for pool in on_gpu:
            pool.start_step(self._carriers[id(pool)].receive())
        # Pools of the CPU share its cores, so they step in turn.
        for pool, _ in parts:
            if pool.device.type == "cpu":
                pool.step(self._carriers[id(pool)].receive())
        for pool in on_gpu:
            pool.finish_step()

    def take_statistics(self) -> list[PoolStatistics]:
        """What happened in each of `pools` since the last call."""
        return [pool.take_statistics() for pool in self.pools]

    def hidden_seconds(self, statistics: Sequence[PoolStatistics]) -> float:
        """Part of the pools' time in which pools of two devices were stepping: what overlap saved.

        They begin a step together, so it is the shorter device's time of every step.
        """
        return hidden_seconds([pool.device for pool in self.pools], [part.step_seconds for part in statistics])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        pools = [pool.state_dict() for pool in self.pools]
        return {"n_low": self.n_low, "rows_of_low": self._rows_of_low, "pools": pools}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of an environment of the same task, engines and sizes."""
        for pool, of_pool in zip(self.pools, state["pools"], strict=True):
            pool.load_state_dict(of_pool)
        self.n_low, self._rows_of_low = state["n_low"], state["rows_of_low"]

    def close(self) -> None:
        """Close all simulators."""
        for pool in self.pools:
            pool.simulator.close()

    def parts(self) -> list[tuple[EnvironmentPool, slice]]:
        """The pools that have rows now, each with its rows."""
        ends = list(accumulate([*self._rows_of_low, self.num_envs - self.n_low]))
        rows = [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
        return [(pool, part) for pool, part in zip(self.pools, rows, strict=False) if part.stop > part.start]

    def _fetch(self, source: Tensor, target: Tensor) -> None:
        # A copy to a GPU need not make the host wait. Its source is pinned memory. The pool writes there again only
        # after it has received actions that were computed after this copy.
        target.copy_(source, non_blocking=self.device.type == "cuda")


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
