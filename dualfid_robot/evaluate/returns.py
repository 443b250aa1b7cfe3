"""Returns of complete episodes, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Evaluation:
    """Returns of complete episodes, one per environment.

    Attributes:
        returns: (episodes,) undiscounted; lengths: (episodes,) steps.
        terminated: (episodes,) bool: which of them ended for good, not by the time limit.
        failures: worlds that went non-finite meanwhile.
        measures: (episodes,) mean over the episode's steps of each of `Task.measure`.
        final_measures: (episodes,) their values in its last step.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    failures: int
    measures: dict[str, np.ndarray]
    final_measures: dict[str, np.ndarray]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the mean return (Student's t); degenerate for a single episode."""
        half = half_width(self.returns, 0.95)
        return self.mean - half, self.mean + half

    def summary(self) -> dict[str, float]:
        """The figures of a report."""
        low, high = self.interval
        measures = {f"measure_{name}": float(values.mean()) for name, values in self.measures.items()}
        finals = {f"final_{name}": float(values.mean()) for name, values in self.final_measures.items()}
        return (
            measures
            | finals
            | {
                "return_mean": self.mean,
                "return_95_low": low,
                "return_95_high": high,
                "return_median": float(np.median(self.returns)),
                "episode_length": float(self.lengths.mean()),
                "terminated": float(self.terminated.mean()),
                "episodes": len(self.returns),
                "failures": self.failures,
            }
        )

    def line(self) -> str:
        """The same for a reader, in one line."""
        low, high = self.interval
        text = (
            f"return {self.mean:.4g} (95% interval {low:.4g} to {high:.4g}, median {np.median(self.returns):.4g}),"
            f" episode length {self.lengths.mean():.1f}, terminated {self.terminated.mean():.0%},"
            f" {len(self.returns)} episodes"
        )
        for name, values in self.measures.items():
            text += f"; {name} {values.mean():.3g}, at the end {self.final_measures[name].mean():.3g}"
        if self.failures:
            text += f"; {self.failures} world(s) went non-finite"
        return text


def half_width(values: np.ndarray, confidence: float) -> float:
    """Half the width of the confidence interval of a mean (Student's t); 0 for a single value.

    Args:
        values: (n,) independent.
        confidence: such as 0.95.
    """
    n = len(values)
    if n < 2:
        return 0.0
    from scipy import stats  # half a second of imports that training does not need

    return float(stats.t.ppf(0.5 + 0.5 * confidence, n - 1) * values.std(ddof=1) / np.sqrt(n))


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Mean difference of returns from the same starts, (n,) each, and the half-width of its 99% interval."""
    difference = ours - theirs
    return float(difference.mean()), half_width(difference, 0.99)
