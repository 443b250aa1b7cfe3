"""ρ linear in the iteration."""

from __future__ import annotations

from dataclasses import dataclass

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.settings import require_integer, require_number


@rule("schedule")
@dataclass(frozen=True)
class Schedule:
    """ρ from ``start`` at iteration 0 linearly to ``end`` at iteration ``iterations``, then constant."""

    start: float = 0.9
    end: float = 0.1
    iterations: int = 500

    def __post_init__(self) -> None:
        require_number("start", self.start, 0.0, 1.0)
        require_number("end", self.end, 0.0, 1.0)
        require_integer("iterations", self.iterations, 1)

    def __call__(self, divergence: float, iteration: int) -> float:
        progress = min(iteration / self.iterations, 1.0)
        return self.start + (self.end - self.start) * progress
