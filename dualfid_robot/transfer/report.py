"""Results as a table, a heat map, curves over the dial, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from dualfid_robot.atomic import replaced, write_text
from dualfid_robot.evaluate.evaluation import rounded
from dualfid_robot.runs.run_log import versions
from dualfid_robot.transfer import left_out
from dualfid_robot.transfer.matrix import BASE, Matrix, MatrixCell, dial_name
from dualfid_robot.transfer.perturbations import Perturbation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JSON, CSV, HEAT_MAP, CURVES = "transfer.json", "transfer.csv", "heatmap.png", "dial.png"
NOT_SUPPORTED = "not supported"
_ENDLESS = 10_000  # characters of a line on which any table fits
_NARROWEST = 5.0  # inches, into which a heat map's title fits


def write_report(
    matrix: Matrix, cells: Sequence[MatrixCell], random_returns: Mapping[str, float], folder: Path
) -> list[Path]:
    """Write all files into a new folder. Curves over the dial need at least three settings of it.

    Args:
        matrix: the request.
        cells: all of its cells.
        random_returns: of a random agent, by simulator.
        folder: where the files go.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(
        folder / JSON, json.dumps(as_json(matrix, cells) | {"random_returns": dict(random_returns)}, indent=1) + "\n"
    )
    rows = summaries(cells)
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("returns", "unsupported")))
    with replaced(folder / CSV) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*columns, "unsupported"], restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    written = [folder / JSON, folder / CSV, folder / HEAT_MAP]
    _save(heat_map(matrix, cells, random_returns), folder / HEAT_MAP)
    if len(matrix.request.dials) >= 3:
        _save(dial_curves(matrix, cells), folder / CURVES)
        written.append(folder / CURVES)
    return written


def as_json(matrix: Matrix, cells: Sequence[MatrixCell]) -> dict[str, Any]:
    """Everything as JSON: the request, the engines' settings and contracts, the versions, and every cell."""
    request = matrix.request
    return {
        "task": matrix.task,
        "checkpoints": [
            {
                "label": subject.label,
                "path": str(subject.path),
                "trained_in": subject.trained_in,
                "iteration": subject.iteration,
                "samples": subject.samples,
            }
            for subject in matrix.subjects
        ],
        "task_settings_that_differ": matrix.differing,
        "simulators": matrix.simulators,
        "contracts": [dataclasses.asdict(contract) for contract in matrix.contracts],
        "dials": list(request.dials),
        "perturbations": [str(perturbation) for perturbation in request.perturbations],
        "num_envs": request.num_envs,
        "seed": request.seed,
        "versions": versions(),
        "left_out": left_out.as_json(matrix, cells),
        "cells": summaries(cells),
    }


def summaries(cells: Sequence[MatrixCell]) -> list[dict[str, Any]]:
    """Each cell with its figures (see `Evaluation.summary`), or the reason why it has none.

    `versus_base` is the mean difference to the base policy's returns, with its 95% interval. Both start from the same
    states in the same world.
    """
    base = {_place(cell): cell.evaluation for cell in cells if cell.dial == BASE}
    found = []
    for cell in cells:
        entry: dict[str, Any] = {
            "checkpoint": cell.checkpoint,
            "policy": cell.policy,
            "dial": cell.dial,
            "simulator": cell.simulator,
            "perturbation": str(cell.perturbation),
        }
        if cell.evaluation is None:
            entry["unsupported"] = cell.unsupported
        else:
            entry |= cell.evaluation.summary() | {"returns": cell.evaluation.returns.tolist()}
            other = base.get(_place(cell))
            if other is not None and cell.dial != BASE:
                paired = dataclasses.replace(cell.evaluation, returns=cell.evaluation.returns - other.returns)
                low, high = paired.interval
                entry |= {"versus_base": paired.mean, "versus_base_95_low": low, "versus_base_95_high": high}
        found.append(entry)
    return found


def _place(cell: MatrixCell) -> tuple[str, str, Perturbation]:
    return cell.checkpoint, cell.simulator, cell.perturbation


def tables(
    matrix: Matrix, cells: Sequence[MatrixCell], random_returns: Mapping[str, float], console: Console
) -> list[Table]:
    """Mean returns and their 95% intervals: policies and worlds down, engines across. Several checkpoints appear as the
    letters of `Matrix.letters`.

    Args:
        matrix: the request.
        cells: all of its cells.
        random_returns: of a random agent, by simulator, for a last row.
        console: where they are shown. Engines that do not fit beside each other get tables of their own.
    """

    def fitting(simulators: Sequence[str]) -> list[Table]:
        whole = _table(matrix, cells, random_returns, simulators)
        needed = console.measure(whole, options=console.options.update(max_width=_ENDLESS)).maximum
        if len(simulators) == 1 or needed <= console.width:
            return [whole]
        half = (len(simulators) + 1) // 2
        return fitting(simulators[:half]) + fitting(simulators[half:])

    return fitting(matrix.request.simulators)


def _table(
    matrix: Matrix, cells: Sequence[MatrixCell], random_returns: Mapping[str, float], simulators: Sequence[str]
) -> Table:
    """One table, of some of the simulators."""
    request, letters, several = matrix.request, matrix.letters, len(matrix.subjects) > 1
    title = f"{matrix.task}: return of {request.num_envs} episodes, ± half its 95% interval"
    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, min_width=len(title))
    for header in (["run"] if several else []) + ["policy", "world"]:
        shown.add_column(header, overflow="fold")
    for name in simulators:
        shown.add_column(name, justify="right", overflow="fold")
    found = {(c.checkpoint, c.dial, c.simulator, c.perturbation): c.evaluation for c in cells}
    for subject in matrix.subjects:
        for dial in request.dials:
            for world in request.perturbations:
                texts = []
                for name in simulators:
                    result = found[subject.label, dial, name, world]
                    half = 0.0 if result is None else result.interval[1] - result.mean
                    texts.append(NOT_SUPPORTED if result is None else f"{rounded(result.mean, 4)} ± {rounded(half, 2)}")
                first = [letters[subject.label]] if several else []
                shown.add_row(*first, dial_name(dial), str(world), *texts)
            shown.add_section()
    first = [""] if several else []
    shown.add_row(*first, "random", "nominal", *(rounded(random_returns[name], 4) for name in simulators))
    return shown


def unsupported_lines(cells: Sequence[MatrixCell]) -> list[str]:
    """Why cells are empty: a line per engine and perturbation."""
    found = {(cell.simulator, cell.perturbation): cell.unsupported for cell in cells if cell.unsupported}
    return [
        f"{simulator}, {perturbation}: {NOT_SUPPORTED}: {reason}" for (simulator, perturbation), reason in found.items()
    ]


def mean_returns(matrix: Matrix, cells: Sequence[MatrixCell]) -> np.ndarray:
    """Mean returns (checkpoints, dials, simulators, perturbations), NaN for a cell that is not supported."""
    request = matrix.request
    found = {(c.checkpoint, c.dial, c.simulator, c.perturbation): c.evaluation for c in cells}
    return np.array(
        [
            [
                [
                    [
                        np.nan if (result := found[subject.label, dial, name, world]) is None else result.mean
                        for world in request.perturbations
                    ]
                    for name in request.simulators
                ]
                for dial in request.dials
            ]
            for subject in matrix.subjects
        ]
    )


def heat_map(matrix: Matrix, cells: Sequence[MatrixCell], random_returns: Mapping[str, float]) -> Figure:
    """Mean returns: policies down, engines and their perturbations across.

    Colours start at a random agent's return, the mean of the engines'. So what is no better is as dark as it.
    """
    from matplotlib.figure import Figure

    request, returns = matrix.request, mean_returns(matrix, cells)
    several = len(matrix.subjects) > 1
    rows = [
        (f"{subject.label}\n" if several else "") + dial_name(dial)
        for subject in matrix.subjects
        for dial in request.dials
    ]
    columns = [
        f"{name}\n{world}" if len(request.perturbations) > 1 else name
        for name in request.simulators
        for world in request.perturbations
    ]
    values = returns.reshape(len(rows), len(columns))
    width, height = 2.5 + 0.95 * len(columns), 2.0 + (0.55 if several else 0.4) * len(rows)
    figure = Figure(figsize=(max(width, _NARROWEST), height), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.85")
    least = float(np.mean(list(random_returns.values())))
    most = max(least, np.nanmax(values, initial=least))
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=least, vmax=most)
    middle = (least + most) / 2
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        text, color = ("—", "black") if np.isnan(value) else (f"{value:.4g}", "white" if value < middle else "black")
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    figure.suptitle(
        f"{matrix.task}: mean return of {request.num_envs} episodes (—: not supported)\n"
        f"colours start at a random agent's return, {rounded(least, 3)}",
        fontsize=9,
    )
    figure.colorbar(image, ax=axes).ax.tick_params(labelsize=8)
    return figure


def dial_curves(matrix: Matrix, cells: Sequence[MatrixCell]) -> Figure:
    """Mean return and its 95% interval over the dial: an engine in each column, a checkpoint in each row."""
    from matplotlib.figure import Figure

    request = matrix.request
    shape = len(matrix.subjects), len(request.simulators)
    figure = Figure(figsize=(1.2 + 3.4 * shape[1], 0.8 + 2.8 * shape[0]), layout="constrained")
    grid = figure.subplots(*shape, squeeze=False, sharey=True)
    for (row, column), axes in np.ndenumerate(grid):
        subject, name = matrix.subjects[row], request.simulators[column]
        for world in request.perturbations:
            own = [
                cell
                for cell in cells
                if (cell.checkpoint, cell.simulator, cell.perturbation) == (subject.label, name, world)
                and cell.evaluation
            ]
            if not own:
                continue
            summaries = [cell.evaluation.summary() for cell in own if cell.evaluation]
            dials = [cell.dial for cell in own]
            axes.plot(
                dials, [summary["return_mean"] for summary in summaries], marker="o", markersize=3, label=str(world)
            )
            low, high = ([summary[key] for summary in summaries] for key in ("return_95_low", "return_95_high"))
            axes.fill_between(dials, low, high, alpha=0.2)
        axes.set_title(f"{name}\n{subject.label}" if shape[0] > 1 else name, fontsize=8)
        axes.set_xlabel("dial λ (0: base, 1: adapted)", fontsize=8)
        axes.tick_params(labelsize=8)
    grid[0, 0].set_ylabel("return", fontsize=8)
    grid[0, 0].legend(fontsize=7)
    figure.suptitle(f"{matrix.task}: mean return of {request.num_envs} episodes and 95% intervals", fontsize=9)
    return figure


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130)
