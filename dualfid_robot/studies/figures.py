"""Figures of a study. A method has one colour and line style in all of them. Legends stand outside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dualfid_robot.studies import statistics
from dualfid_robot.studies.curves import Cell, rho_over_cost
from dualfid_robot.studies.summary import HIGH_ONLY, SIDES, Row, Scope, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255"),  # Okabe & Ito's, and Tol's
    *("#7F7F7F", "#332288", "#999933", "#117733", "#661100", "#AA4499", "#44AA99"),
)
_SIDE_COLORS = {"low": "#56B4E9", "high": "#D55E00", "learner": "#B0B0B0"}
_POINTS = 60  # of a drawn curve
_BAND_REPETITIONS = 2000
_CROWDED = 6  # methods beyond which bands would hide each other
_LOWEST = -1.0  # lower end of a normalised axis, so that a run far below the untrained policy does not flatten the rest
SMALL = 8


def style(methods: Sequence[str], method: str) -> dict[str, Any]:
    """Colour and line of a method: black for high-only, else by its place in the plan."""
    if method == HIGH_ONLY:
        return {"color": "black", "linestyle": "-"}
    place = [name for name in methods if name != HIGH_ONLY].index(method)
    return {"color": _COLORS[place % len(_COLORS)], "linestyle": ("-", "--", ":")[place // len(_COLORS) % 3]}


def curves(summary: Summary, cell: Cell) -> Figure | None:
    """A cell's interquartile-mean scores against measured cost and high samples, and ρ. None without runs."""
    from matplotlib.ticker import EngFormatter

    methods = _with_runs(summary, cell)
    if not methods:
        return None
    figure = new_figure(14, 4.2, layout=None)
    margins = {"left": 0.045, "right": 0.855, "bottom": 0.11, "top": 0.97, "wspace": 0.17}
    against_cost, against_samples, shares = figure.subplots(1, 3, gridspec_kw=margins)
    bands = len(methods) <= _CROWDED
    for method in methods:
        _draw(against_cost, summary, method, _line(summary, cell, method, "cost", bands))
        _draw(against_samples, summary, method, _line(summary, cell, method, "samples", bands))
        _draw_shares(shares, summary, cell, method)
    _finish_scores(against_cost, summary, cell, "measured cost, s")
    _finish_scores(against_samples, summary, cell, "steps in the high simulator")
    against_samples.xaxis.set_major_formatter(EngFormatter(sep=""))  # 150k: longer labels would run into each other
    shares.set_ylim(-0.03, 1.03)
    shares.set_xlim(0, cell.budget)
    label(shares, "measured cost, s", "ρ, share of environments in low")
    legend(figure, against_cost)
    return figure


def each_against_high_only(summary: Summary, cell: Cell) -> Figure | None:
    """Every method's scores over cost with their band, each in a panel of its own beside high-only's. None if the
    common figure has the bands."""
    methods = _with_runs(summary, cell)
    others = [method for method in methods if method != HIGH_ONLY]
    if len(methods) <= _CROWDED:
        return None
    columns = 5
    rows = -(-len(others) // columns)
    height = 0.75 + 2.1 * rows
    figure = new_figure(14, height, layout=None)
    margins = {"left": 0.06, "right": 0.995, "bottom": 0.5 / height, "top": 1 - 0.25 / height}
    spaces = {"wspace": 0.05, "hspace": 0.2}
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True, gridspec_kw=margins | spaces)
    baseline = _line(summary, cell, HIGH_ONLY, "cost", True) if HIGH_ONLY in methods else None
    for axes, method in zip(grid.flat, others, strict=False):
        if baseline is not None:
            _draw(axes, summary, HIGH_ONLY, baseline)
        _draw(axes, summary, method, _line(summary, cell, method, "cost", True))
        axes.set_title(method, fontsize=SMALL + 1, color=style(summary.study.methods, method)["color"])
        _finish_scores(axes, summary, cell, "", "")
    for axes in grid.flat[len(others) :]:
        axes.set_visible(False)
    figure.supxlabel("measured cost, s", fontsize=SMALL)
    figure.supylabel(_score_name(summary, cell), fontsize=SMALL, x=0.008)
    return figure


def final_and_area(summary: Summary, rows: Sequence[tuple[Scope, Sequence[Row]]]) -> Figure | None:
    """Final normalised score and mean score over the budget of every method, with a column for each scope."""
    methods = [method for method in summary.study.methods if any(r.method == method for _, part in rows for r in part)]
    if not methods:
        return None
    figure = new_figure(2.2 + 2.4 * len(rows), 1.4 + 0.42 * len(methods))
    grid = figure.subplots(2, len(rows), squeeze=False, sharey=True)
    for column, (scope, part) in enumerate(rows):
        raw = scope.single and not summary.scale(scope.cells[0]).known
        lowest, name = (-np.inf, "return") if raw else (_LOWEST, "score")
        for axes, measure in zip(grid[:, column], ("final", "area"), strict=True):
            for row in part:
                estimate = getattr(row, measure)
                if not np.isfinite(estimate.value):
                    continue
                place, color = methods.index(row.method), style(summary.study.methods, row.method)["color"]
                if estimate.has_interval:
                    axes.plot([estimate.low, estimate.high], [place, place], color=color, linewidth=3, alpha=0.45)
                marker = "o" if estimate.value >= lowest else "<"  # an arrow: further left
                axes.plot([max(estimate.value, lowest)], [place], marker, color=color, markersize=5)
                if row.method == HIGH_ONLY:
                    axes.axvline(estimate.value, color="black", linewidth=0.7, alpha=0.6)
            left, right = axes.get_xlim()
            axes.set_xlim(max(left, 1.05 * lowest), right)
            axes.grid(axis="x", alpha=0.3)
            axes.set_yticks(range(len(methods)), methods, fontsize=SMALL)
            axes.tick_params(axis="x", labelsize=SMALL)
        grid[0, column].set_title(scope.title, fontsize=SMALL + 1)
        grid[0, column].set_xlabel(f"{name} at the budget", fontsize=SMALL)
        grid[1, column].set_xlabel(f"mean {name} from cost 0 to the budget", fontsize=SMALL)
    grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)
    return figure


def cost_split(summary: Summary, rows: Sequence[tuple[Scope, Sequence[Row]]]) -> Figure | None:
    """Shares of the measured seconds that simulators and learner took, with a column for each scope."""
    methods = [
        method
        for method in summary.study.methods
        if any(row.method == method and not np.isnan(row.shares["learner"]) for _, part in rows for row in part)
    ]
    if not methods:
        return None
    figure = new_figure(3.0 + 2.2 * len(rows), 1.0 + 0.24 * len(methods))
    grid = figure.subplots(1, len(rows), squeeze=False, sharey=True)[0]
    for axes, (scope, part) in zip(grid, rows, strict=True):
        known = [row for row in part if row.method in methods and not np.isnan(row.shares["learner"])]
        places = [methods.index(row.method) for row in known]
        left = np.zeros(len(known))
        for side in SIDES:
            widths = np.array([row.shares[side] for row in known])
            axes.barh(places, widths, left=left, color=_SIDE_COLORS[side], label=side, height=0.75)
            left += widths
        axes.set_title(scope.title, fontsize=SMALL + 1)
        axes.set_yticks(range(len(methods)), methods, fontsize=SMALL)
        axes.set_xlim(0, 1)
        label(axes, "share of measured seconds", "")
    grid[0].set_ylim(len(methods) - 0.5, -0.5)
    legend(figure, grid[0])
    return figure


def png(figure: Figure) -> bytes:
    """The figure as an image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def embedded(figure: Figure) -> str:
    """The figure as a data address of an image within a page."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """A figure. Many panels do without the constrained layout, which draws everything twice."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _with_runs(summary: Summary, cell: Cell) -> list[str]:
    return [method for method in summary.study.methods if summary.study.finished(cell, method)]


@dataclass(frozen=True)
class _Line:
    """Interquartile mean over x, (points,) each, and its band, (2, points)."""

    x: np.ndarray
    middle: np.ndarray
    band: np.ndarray | None


def _line(summary: Summary, cell: Cell, method: str, over: Literal["cost", "samples"], with_band: bool) -> _Line:
    runs = [run.measured.until(cell.budget) for run in summary.study.finished(cell, method)]
    if over == "cost":
        x = np.linspace(0, cell.budget, _POINTS)
        values = np.array([curve.value_at(x) for curve in runs])
    else:
        x = np.linspace(0, min(curve.high_samples[-1] for curve in runs), _POINTS)  # where every run has a value
        values = np.array([curve.value_at_high_samples(x) for curve in runs])
    scores = summary.scale(cell)(values)
    band = None
    if with_band and len(runs) >= statistics.MIN_RUNS:
        band = statistics.bootstrap_interval([scores], repetitions=_BAND_REPETITIONS)
    return _Line(x, statistics.interquartile_mean(scores), band)


def _draw(axes: Axes, summary: Summary, method: str, line: _Line) -> None:
    look = style(summary.study.methods, method)
    width = 2.0 if method == HIGH_ONLY else 1.4
    marker = "o" if line.x[-1] == 0 else ""  # a method that makes no steps in the high simulator is a point
    axes.plot(line.x, line.middle, **look, linewidth=width, label=method, marker=marker)
    if line.band is not None:
        axes.fill_between(line.x, *line.band, color=look["color"], alpha=0.15, linewidth=0)


def _draw_shares(axes: Axes, summary: Summary, cell: Cell, method: str) -> None:
    """ρ over cost, the mean over runs with a log."""
    logs = [rho_over_cost(summary.study, run) for run in summary.study.finished(cell, method)]
    logs = [(cost, rho) for cost, rho in logs if len(cost)]
    if not logs:
        return
    x = np.linspace(max(cost[0] for cost, _ in logs), min(cell.budget, *(cost[-1] for cost, _ in logs)), _POINTS)
    mean = np.mean([np.interp(x, cost, rho) for cost, rho in logs], axis=0)
    axes.plot(x, mean, **style(summary.study.methods, method), linewidth=1.4)


def _finish_scores(axes: Axes, summary: Summary, cell: Cell, x_name: str, y_name: str | None = None) -> None:
    if summary.scale(cell).known:
        for level in (0, 1):
            axes.axhline(level, color="0.6", linewidth=0.7, linestyle=":")
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, _LOWEST), top)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]) / 4)  # so that a point at 0 is seen
    label(axes, x_name, _score_name(summary, cell) if y_name is None else y_name)


def _score_name(summary: Summary, cell: Cell) -> str:
    known = summary.scale(cell).known
    return "normalised score (0 untrained, 1 reference)" if known else "return (no reference: not normalised)"


def label(axes: Axes, x_name: str, y_name: str) -> None:
    axes.set_xlabel(x_name, fontsize=SMALL)
    axes.set_ylabel(y_name, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.xaxis.get_offset_text().set_fontsize(SMALL)
    axes.grid(alpha=0.25)


def legend(figure: Figure, axes: Axes) -> None:
    """Put the legend right of the panels, in the room of the layout or the margins."""
    handles, labels = axes.get_legend_handles_labels()
    fixed: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.86, 0.98)}
    place = {"loc": "outside right upper"} if figure.get_layout_engine() is not None else fixed
    figure.legend(handles, labels, **place, fontsize=SMALL, frameon=False)
