"""Figures of the comparisons: costs over high_only's, the map of prices, and returns at home and abroad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dualfid_robot.studies.comparisons import OURS, Against, Comparisons, Kept
from dualfid_robot.studies.curves import StudyRecord
from dualfid_robot.studies.figures import SMALL, label, legend, new_figure, style
from dualfid_robot.studies.summary import HIGH_ONLY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOUNDS = {"": "o", ">": ">", "<": "<"}  # markers: an arrow points to where the ratio lies
_GOAL = 0.5


def speeds(study: StudyRecord, against: Sequence[Against]) -> Figure | None:
    """Cost to 80% over high_only's: a row for each cell, a point for each method."""
    shown = [row for row in against if row.speed is not None]
    if not shown:
        return None
    cells = [*dict.fromkeys(row.cell for row in shown)]
    methods = [method for method in study.methods if any(row.method == method for row in shown)]
    figure = new_figure(11, 1.3 + 0.5 * len(cells))
    axes = figure.subplots()
    for row in shown:
        assert row.speed is not None
        place = cells.index(row.cell) + 0.7 * ((methods.index(row.method) + 0.5) / len(methods) - 0.5)
        color = style(study.methods, row.method)["color"]
        if np.isfinite(row.speed.low):
            high = row.speed.high if np.isfinite(row.speed.high) else max(row.speed.value, 1.0) * 10.0
            axes.plot([row.speed.low, high], [place, place], color=color, linewidth=2.5, alpha=0.4)
        # A method that begins above the mark costs nothing, which has no place on this axis.
        value = max(row.speed.value, 1e-2)
        axes.plot([value], [place], _BOUNDS[row.speed.bound], color=color, markersize=5)
    for method in methods:
        axes.plot([], [], "o", color=style(study.methods, method)["color"], label=method)
    axes.axvline(1.0, color="black", linewidth=1.0)
    axes.axvline(_GOAL, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    _plain_ticks(axes, "x")
    axes.set_yticks(range(len(cells)), [str(cell) for cell in cells])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    label(axes, f"cost to 80% of the reference or to the target, over that of {HIGH_ONLY} (left is quicker)", "")
    legend(figure, axes)
    return figure


def price_map(study: StudyRecord, comparisons: Comparisons) -> Figure | None:
    """Median cost to 80% of every method over that of ours, against the price of E_high. Each task has a panel."""
    curves = {task: {method: comparisons.over_prices(task, method) for method in study.methods} for task in study.tasks}
    tasks = [task for task, found in curves.items() if any(len(points) > 1 for points in found.values())]
    if not tasks:
        return None
    figure = new_figure(2.6 + 3.2 * len(tasks), 3.4)
    grid = figure.subplots(1, len(tasks), squeeze=False, sharey=True)[0]
    for axes, task in zip(grid, tasks, strict=True):
        for method, points in curves[task].items():
            look = style(study.methods, method)
            axes.plot([price for price, _ in points], [ratio.value for _, ratio in points], **look, linewidth=1.4)
            for price, ratio in points:
                marker = {"": "o", ">": "^", "<": "v"}[ratio.bound]
                axes.plot(price, ratio.value, marker, color=look["color"], markersize=4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain_ticks(axes, "x")
        _plain_ticks(axes, "y")
        axes.set_title(task, fontsize=SMALL + 1)
        label(axes, "price of a second of E_high", f"cost to 80%, over that of {OURS}" if axes is grid[0] else "")
    for method in study.methods:
        grid[0].plot([], [], label=method, **style(study.methods, method))
    legend(figure, grid[0])
    return figure


def abroad(study: StudyRecord, kept: Sequence[Kept]) -> Figure | None:
    """Mean return in the unseen engine over that at home, along the dial: a panel for each cell and engine."""
    panels = [*dict.fromkeys((row.cell, row.engine) for row in kept)]
    if not panels:
        return None
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(2.4 + 3.4 * columns, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (cell, engine) in zip(grid.flat, panels, strict=False):
        for method in dict.fromkeys(row.method for row in kept):
            own = [row for row in kept if (row.cell, row.engine, row.method) == (cell, engine, method)]
            color = style(study.methods, method)["color"]
            axes.plot(
                [r.at_home.value for r in own],
                [r.there.value for r in own],
                "-",
                color=color,
                label=method,
                linewidth=1,
            )
            for row in own:
                marker = {0.0: "s", 1.0: "o"}.get(row.dial, ".")
                axes.plot(row.at_home.value, row.there.value, marker, color=color, markersize=6)
        bounds = [*axes.get_xlim(), *axes.get_ylim()]
        axes.plot([0, max(bounds)], [0, max(bounds)], color="0.7", linewidth=0.8, linestyle=":")
        axes.set_title(str(cell), fontsize=SMALL)
        label(axes, "return at home", f"return in {engine}, unseen")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    legend(figure, grid[0, 0])
    return figure


def _plain_ticks(axes: Axes, which: str) -> None:
    """Numbers such as 0.5 and 20 in place of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
