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
        if len(self.returns) < 2:
            return self.mean, self.mean
        from scipy import stats  # half a second of imports that training does not need

        half = stats.t.ppf(0.975, len(self.returns) - 1) * self.returns.std(ddof=1) / np.sqrt(len(self.returns))
        return self.mean - float(half), self.mean + float(half)

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
