"""The live display of a training run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dualfid_robot.config.progress import LINE_INTERVAL, LivePanel, duration

_TERMS = 4  # of the reward, the largest ones, that are shown


class ProgressDisplay(LivePanel):
    """An iteration's metrics. Where there is no terminal, a line comes every few seconds and at the end."""

    def __init__(self, title: str, max_iterations: int, max_cost: float | None) -> None:
        super().__init__()
        self._title = title
        self._max_iterations = max_iterations
        self._max_cost = max_cost
        self._last_line = 0.0
        self._started = time.monotonic()
        self._first: float | None = None

    def update(self, metrics: dict[str, float]) -> None:
        """Show an iteration's metrics."""
        if self._first is None:
            self._first = metrics["iteration"] - 1
        eta = self._remaining(metrics)
        is_last = metrics["iteration"] >= self._max_iterations
        if self.is_live or is_last or time.monotonic() - self._last_line >= LINE_INTERVAL:
            self._last_line = time.monotonic()
            self.show(
                lambda: Panel(self._table(metrics, eta), title=Text(self._title), expand=False),
                lambda: self._line(metrics, eta),
            )

    def _remaining(self, metrics: dict[str, float]) -> float:
        """Seconds left until the iterations run out, at this display's pace, or the cost, at that of the run."""
        assert self._first is not None
        elapsed, done = time.monotonic() - self._started, metrics["iteration"] - self._first
        remaining = elapsed / done * (self._max_iterations - metrics["iteration"])
        if self._max_cost is not None:
            pace = metrics["wall_seconds"] / max(metrics["cost_seconds"], 1e-9)
            remaining = min(remaining, pace * (self._max_cost - metrics["cost_seconds"]))
        return max(remaining, 0.0)

    def _table(self, metrics: dict[str, float], eta: float) -> Table:
        table = Table.grid(padding=(0, 2))
        for label, low, high in (
            ("", "low", "high"),
            ("return", _number(metrics.get("return/low")), _number(metrics.get("return/high"))),
            ("environments", f"{metrics['allocation/n_low']:.0f}", f"{metrics['allocation/n_high']:.0f}"),
            ("simulator s/iteration", f"{metrics['seconds/low']:.3f}", f"{metrics['seconds/high']:.3f}"),
        ):
            table.add_row(label, low, high)
        for term in _largest_terms(metrics):
            low, high = (_number(metrics.get(f"reward/{term}/{side}")) for side in ("low", "high"))
            table.add_row(f"reward/{term}", low, high)
        if metrics["seconds/hidden"] > 0:
            table.add_row("at the same time", f"{metrics['seconds/hidden']:.3f}")
        table.add_row("learner s/iteration", f"{metrics['seconds/learner']:.3f}")
        table.add_row("divergence D, share ρ", _number(metrics.get("divergence/D")), f"{metrics['allocation/rho']:.3f}")
        table.add_row("env steps/s, samples", f"{metrics['env_steps_per_second']:,.0f}", f"{metrics['samples']:,.0f}")
        table.add_row("iteration", f"{metrics['iteration']:.0f} / {self._max_iterations}")
        table.add_row("measured cost, ETA", f"{metrics['cost_seconds']:.0f} s", duration(eta))
        return table

    def _line(self, metrics: dict[str, float], eta: float) -> str:
        return (
            f"iteration {metrics['iteration']:.0f}/{self._max_iterations}"
            f" | return low {_number(metrics.get('return/low'))} high {_number(metrics.get('return/high'))}"
            f" | D {_number(metrics.get('divergence/D'))} ρ {metrics['allocation/rho']:.2f}"
            f" N {metrics['allocation/n_low']:.0f}+{metrics['allocation/n_high']:.0f}"
            f" | {metrics['env_steps_per_second']:,.0f} env steps/s"
            f" | s low {metrics['seconds/low']:.2f} high {metrics['seconds/high']:.2f}"
            f" learner {metrics['seconds/learner']:.2f} | cost {metrics['cost_seconds']:.0f} s | ETA {duration(eta)}"
        )


def _largest_terms(metrics: Mapping[str, float]) -> list[str]:
    """The terms of the reward that gave or took the most in an iteration, the largest first."""
    sizes: dict[str, float] = {}
    for name, value in metrics.items():
        group, _, rest = name.partition("/")
        if group == "reward" and rest.endswith(("/low", "/high")):
            term = rest.rpartition("/")[0]
            sizes[term] = max(sizes.get(term, 0.0), abs(value))
    return sorted(sizes, key=lambda term: -sizes[term])[:_TERMS]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
