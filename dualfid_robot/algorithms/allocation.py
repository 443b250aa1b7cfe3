"""How many of the N environments the next iteration gives to each fidelity.

The rule (``rules``) turns what is measured (``signals``) into a low share ρ. The guards here keep the loop measurement
→ ρ → data → policies → measurement stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dualfid_robot.algorithms.rules import make_rule
from dualfid_robot.algorithms.signals import Signals
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require, require_integer, require_number


@dataclass(frozen=True)
class AllocationConfig:
    """The rule and its guards. Their defaults are in cfg/allocation.

    Attributes:
        rule: ``name`` of the rule and its settings.
        rho_min, rho_max: bounds of ρ. Both ends are traps. At ρ = 1 the adapter gets no data, so D stays 0 and ρ stays
            1. At ρ = 0 there is no low state to measure D on.
        warmup_iterations, warmup_rho: the first iterations have this ρ: the adapter starts at zero, D says nothing yet.
        smoothing: of every measurement over iterations (``SignalFilter``); 0 is no smoothing.
        rate_limit: greatest change of ρ from one iteration to the next.
        block_size: N_low is a multiple of it, at most a tenth of N. So small changes of ρ move no environment.
    """

    rule: Mapping[str, Any]
    rho_min: float
    rho_max: float
    warmup_iterations: int
    warmup_rho: float
    smoothing: float
    rate_limit: float
    block_size: int

    def __post_init__(self) -> None:
        require_number("rho_min", self.rho_min, 0.0, 1.0)
        require_number("rho_max", self.rho_max, self.rho_min, 1.0)
        require_integer("warmup_iterations", self.warmup_iterations, 0)
        if self.warmup_iterations > 0:
            require_number("warmup_rho", self.warmup_rho, self.rho_min, self.rho_max)
        require_number("smoothing", self.smoothing, 0.0, 1.0)
        require(self.smoothing < 1.0, "smoothing", self.smoothing, "less than 1, or nothing measured ever changes")
        require_number("rate_limit", self.rate_limit, 0.0, 1.0, open_low=True)
        require_integer("block_size", self.block_size, 1)


class Allocator:
    """Splits N environments between the fidelities; ``n_low + n_high == N`` always.

    N_low is the multiple of the block size nearest to ρ N. Each side keeps at least one block, unless its bound itself
    is 0 or 1.

    Raises:
        ConfigError: for a setting out of range, an unknown rule, or too few environments for two fidelities.
    """

    def __init__(self, num_envs: int, config: AllocationConfig, price: float = 1.0) -> None:
        """Begin with what the rule says before anything is measured.

        Args:
            num_envs: N.
            config: the rule and its guards.
            price: of a second of E_high over that of the dearest other second.
        """
        require_integer("num_envs", num_envs, 1)
        self.num_envs, self.config = num_envs, config
        self.rule = make_rule(config.rule)
        self.block_size = max(1, min(config.block_size, num_envs // 10))
        if num_envs < 2 and config.rho_min < 1.0 and config.rho_max > 0.0:
            raise ConfigError("num_envs = 1: must be at least 2, one environment for each fidelity")
        self.min_n_low, self.max_n_low = self._nearest(config.rho_min), self._nearest(config.rho_max)
        if config.rho_min > 0.0:
            self.min_n_low = max(self.min_n_low, self.block_size)
            self.max_n_low = max(self.max_n_low, self.block_size)
        if config.rho_max < 1.0:
            most = (num_envs // self.block_size - 1) * self.block_size
            self.min_n_low, self.max_n_low = min(self.min_n_low, most), min(self.max_n_low, most)
        self.target = self._bounded(self.rule(Signals(num_envs=num_envs, price=price)))
        self.rho = config.warmup_rho if config.warmup_iterations > 0 else self.target
        self.n_low = self._quantise(self.rho)

    @property
    def n_high(self) -> int:
        return self.num_envs - self.n_low

    @property
    def max_n_high(self) -> int:
        """The most high environments that can ever occur; with ``max_n_low`` the capacities of the two pools."""
        return self.num_envs - self.min_n_low

    def update(self, signals: Signals) -> int:
        """Take in what is known after an iteration and return N_low of the next."""
        self.target = self._bounded(self.rule(signals))
        if signals.iteration >= self.config.warmup_iterations:
            step = self.target - self.rho
            self.rho += min(max(step, -self.config.rate_limit), self.config.rate_limit)
        self.n_low = self._quantise(self.rho)
        return self.n_low

    def metrics(self) -> dict[str, float]:
        """What to log of the current state."""
        return {
            "allocation/rho": self.rho,
            "allocation/rho_target": self.target,
            "allocation/n_low": float(self.n_low),
            "allocation/n_high": float(self.n_high),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"target": self.target, "rho": self.rho, "n_low": self.n_low}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.target, self.rho, self.n_low = state["target"], state["rho"], state["n_low"]

    def _bounded(self, rho: float) -> float:
        return min(max(rho, self.config.rho_min), self.config.rho_max)

    def _quantise(self, rho: float) -> int:
        return min(max(self._nearest(rho), self.min_n_low), self.max_n_low)

    def _nearest(self, rho: float) -> int:
        """The multiple of the block size, at most N, nearest to ρ N; all N at ρ = 1."""
        if rho == 1.0:
            return self.num_envs
        blocks = round(rho * self.num_envs / self.block_size)
        return min(blocks, self.num_envs // self.block_size) * self.block_size
