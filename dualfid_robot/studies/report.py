"""A study's report: one self-contained HTML page, and the same figures as CSV, JSON and a Markdown table."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from dualfid_robot.atomic import replaced, write_bytes, write_text
from dualfid_robot.studies import figures, statistics
from dualfid_robot.studies.comparison_tables import NONE, Section, against_rows, estimate_text, kept_rows, sections
from dualfid_robot.studies.comparisons import Comparisons
from dualfid_robot.studies.curves import RunRecord, StudyRecord
from dualfid_robot.studies.run_folder import RunFolder
from dualfid_robot.studies.statistics import Estimate
from dualfid_robot.studies.summary import FINETUNE, HIGH_ONLY, SIDES, UNEVEN, Contrast, Row, Scope, Summary

REPORT, SUMMARY_FIGURE = "report.html", "summary.png"
_HEADERS = (
    *("method", "runs", "final score", "return", "mean score", "cost to 80%", f"P(> {HIGH_ONLY})", f"P(> {FINETUNE})"),
    *("negative transfer", "ρ", "D", "low / high / learner", "µs a step", "learner overhead"),
)
_OF_ONE_PLACE = ("return", "µs a step")  # columns that have no meaning for several places together
_CONTRAST_HEADERS = (
    *("contrast", "places", "P(first > second)", "same seeds only", "difference of scores"),
    *("p", "p, Holm"),
)


class Findings(NamedTuple):
    """What a study found, for its own page and for that of its series."""

    summary: Summary
    contrasts: Sequence[Contrast]
    comparisons: Comparisons
    sections: list[Section]


def read_findings(folder: Path, repetitions: int = statistics.REPETITIONS) -> Findings:
    """Compute what a study's folder shows. The study may be only partly done."""
    summary = Summary(StudyRecord(folder), repetitions)
    comparisons = Comparisons(summary)
    return Findings(summary, summary.contrasts(), comparisons, sections(summary.study, comparisons))


def build_report(folder: Path, repetitions: int = statistics.REPETITIONS) -> Path:
    """`write_report` of what a study's folder shows."""
    return write_report(read_findings(folder, repetitions))


def write_report(found: Findings) -> Path:
    """Write report.html, and the curves, the summary and the comparisons in data/, in a study's folder.

    The page says what is missing.

    Returns:
        the page.
    """
    summary, contrasts = found.summary, found.contrasts
    folder = summary.study.folder
    tables = [(scope, summary.rows(scope)) for scope in summary.scopes()]
    data = folder / "data"
    data.mkdir(exist_ok=True)
    _write_csv(data / "curves.csv", curve_rows(summary.study))
    _write_csv(data / "comparisons.csv", against_rows(found.comparisons))
    _write_csv(data / "kept.csv", kept_rows(found.comparisons))
    flat = [flat_row(scope, row) for scope, rows in tables for row in rows]
    _write_csv(data / "summary.csv", flat)
    write_text(data / "summary.json", json.dumps(_finite(_as_json(summary, flat, contrasts)), indent=1) + "\n")
    page = _template("report").render(_page(summary, tables, contrasts, found.sections, data))
    write_text(folder / REPORT, page)
    return folder / REPORT


def write_series_report(folder: Path, studies: Sequence[Findings]) -> Path:
    """Write report.html of a series of studies: of each the contrasts, the comparisons and a link to its own page.

    Args:
        folder: of the page.

    Returns:
        the page.
    """
    parts = [
        {
            "link": Path(os.path.relpath(found.summary.study.folder / REPORT, folder)).as_posix(),
            "study": found.summary.study,
            "finished": sum(run.finished for run in found.summary.study.runs),
            "contrasts": [_contrast_texts(contrast) for contrast in found.contrasts],
            "comparisons": found.sections,
        }
        for found in studies
    ]
    values = {"name": folder.name, "date": _now(), "parts": parts}
    folder.mkdir(exist_ok=True)
    page = _template("series").render(values | {"contrast_headers": _CONTRAST_HEADERS, "high_only": HIGH_ONLY})
    write_text(folder / REPORT, page)
    return folder / REPORT


def summary_table_markdown(folder: Path, repetitions: int = statistics.REPETITIONS) -> str:
    """The table over all tasks and gaps, and the primary contrasts, for a README."""
    summary = Summary(StudyRecord(folder), repetitions)
    scope = summary.everything
    lines = [
        f"| {' | '.join(_headers(scope))} |",
        f"|{'|'.join(['---'] * len(_headers(scope)))}|",
        *(f"| {' | '.join(_texts(scope, row))} |" for row in summary.rows(scope)),
    ]
    contrasts = summary.contrasts()
    if contrasts:
        lines += ["", f"| {' | '.join(_CONTRAST_HEADERS)} |", f"|{'|'.join(['---'] * len(_CONTRAST_HEADERS))}|"]
        lines += [f"| {' | '.join(_contrast_texts(contrast))} |" for contrast in contrasts]
    return "\n".join(lines) + "\n"


def curve_rows(study: StudyRecord) -> Iterable[dict[str, Any]]:
    """A row per finished run and point of its curve."""
    for run in study.runs:
        if run.curve is None:
            continue
        columns = (run.curve.cost, run.curve.high_samples, run.curve.low_samples, run.curve.returns)
        for cost, high, low, value in zip(*(column.tolist() for column in columns), strict=True):
            yield {
                **{"run": run.id, "task": run.task, "method": run.method, "gap": run.gap, "budget": run.budget},
                **{"seed": run.seed, "reference": run.reference},
                **{"cost_seconds": cost, "high_samples": high, "low_samples": low, "return": value},
            }


def flat_row(scope: Scope, row: Row) -> dict[str, Any]:
    """A row of data/summary.csv. An estimate has three columns: its value, `_low` and `_high`."""
    found: dict[str, Any] = {"scope": scope.key, "scope_cells": len(scope.cells)}
    for name, value in vars(row).items():
        if name == "shares":
            found |= {f"share_{side}": value[side] for side in SIDES}
        elif name == "row_costs":
            found |= {f"cost_{side}": value[side] for side in SIDES}
        elif isinstance(value, Estimate) or name.startswith("over_"):
            estimate = value or Estimate(math.nan)
            found |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        else:
            found[name] = value
    return found


def _as_json(summary: Summary, flat: list[dict[str, Any]], contrasts: Sequence[Contrast]) -> dict[str, Any]:
    study = summary.study
    scales = {str(cell): summary.scale(cell) for cell in study.cells}
    return {
        "plan": study.plan,
        "runs": {
            status: sum(run.status == status for run in study.runs) for status in ("finished", "failed", "missing")
        },
        "wall_seconds": sum(run.wall_seconds for run in study.runs),
        "machines": _machines(study.runs),
        "bootstrap_repetitions": summary.repetitions,
        "unevenness": {str(cell): summary.unevenness(cell) for cell in study.cells},
        "scales": {name: vars(scale) for name, scale in scales.items()},
        "rows": flat,
        "contrasts": [
            {key: vars(value) if isinstance(value, Estimate) else value for key, value in vars(contrast).items()}
            for contrast in contrasts
        ],
    }


def _page(
    summary: Summary,
    tables: Sequence[tuple[Scope, list[Row]]],
    contrasts: Sequence[Contrast],
    comparisons: Sequence[Section],
    data: Path,
) -> dict[str, Any]:
    """The values that the template shows."""
    study = summary.study
    by_cells = {scope.cells: (scope, rows) for scope, rows in tables}
    tasks = [tuple(cell for cell in study.cells if cell.task == task) for task in study.tasks]
    overview = [by_cells[cells] for cells in dict.fromkeys([*tasks, tuple(study.cells)])]
    figure = figures.final_and_area(summary, overview)
    if figure is not None:
        write_bytes(data / SUMMARY_FIGURE, figures.png(figure))
    cells = [
        {
            "title": scope.title,
            "scale": summary.scale(scope.cells[0]),
            "unevenness": _number(summary.unevenness(scope.cells[0]), "{:.2f}"),
            "uneven": summary.unevenness(scope.cells[0]) > UNEVEN,
            "table": _table(scope, rows),
            "curves": _image(figures.curves(summary, scope.cells[0])),
            "each": _image(figures.each_against_high_only(summary, scope.cells[0])),
        }
        for scope, rows in tables
        if scope.single
    ]
    return {
        "name": study.plan["name"],
        "date": _now(),
        "study": study,
        "plan": json.dumps({key: value for key, value in study.plan.items() if key != "runs"}, indent=1),
        "counts": {
            status: [run for run in study.runs if run.status == status] for status in ("finished", "failed", "missing")
        },
        "hours": sum(run.wall_seconds for run in study.runs) / 3600,
        "failures": [(run, _last_lines(study, run)) for run in study.runs if run.status == "failed"],
        "machines": _machines(study.runs),
        "overview": _image(figure),
        "cost_split": _image(figures.cost_split(summary, overview)),
        "together": [
            {"title": scope.title, "table": _table(scope, rows)} for scope, rows in tables if not scope.single
        ],
        "cells": cells,
        "contrast_headers": _CONTRAST_HEADERS,
        "contrasts": [_contrast_texts(contrast) for contrast in contrasts],
        "comparisons": comparisons,
        "unscaled": [str(cell) for cell in study.cells if not summary.scale(cell).known],
        "few": statistics.MIN_RUNS,
        "repetitions": summary.repetitions,
        "high_only": HIGH_ONLY,
        "finetune": FINETUNE,
    }


def _table(scope: Scope, rows: Sequence[Row]) -> dict[str, Any]:
    return {"headers": _headers(scope), "rows": [_texts(scope, row) for row in rows]}


def _headers(scope: Scope) -> list[str]:
    return [header for header in _HEADERS if scope.single or header not in _OF_ONE_PLACE]


def _texts(scope: Scope, row: Row) -> list[str]:
    """A row's cells for a reader."""
    missing = row.planned - row.finished
    places = "" if row.cells == len(scope.cells) else f", in {row.cells} of {len(scope.cells)} places"
    texts = [
        row.method,
        (f"{row.finished} of {row.planned}" if missing else f"{row.finished}") + places,
        estimate_text(row.final),
        *([estimate_text(row.raw, "{:.4g}")] if scope.single else []),
        estimate_text(row.area),
        _cost(scope, row),
        estimate_text(row.over_high_only),
        estimate_text(row.over_finetune),
        _number(row.negative, "{:.0%}"),
        _number(row.rho, "{:.2f}"),
        _number(row.divergence, "{:.3g}"),
        " / ".join(_number(row.shares[side], "{:.0%}") for side in SIDES),
        *([" / ".join(_number(1e6 * row.row_costs[side], "{:.3g}") for side in SIDES)] if scope.single else []),
        _number(row.overhead, "{:+.0%}"),
    ]
    return texts


def _cost(scope: Scope, row: Row) -> str:
    """Median cost to 80% and the share of runs that got there. The cost is in seconds for one cell, otherwise a share
    of the budget."""
    if math.isnan(row.cost_to_reach):
        return NONE
    if math.isinf(row.cost_to_reach):
        return f"not reached ({row.reached:.0%} of runs)"
    shown = (
        f"{row.cost_to_reach * scope.cells[0].budget:.4g} s" if scope.single else f"{row.cost_to_reach:.0%} of budget"
    )
    return f"{shown} ({row.reached:.0%} of runs)"


def _number(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else NONE


def _contrast_texts(contrast: Contrast) -> list[str]:
    return [
        f"{contrast.ours} over {contrast.theirs}",
        str(contrast.cells),
        estimate_text(contrast.improvement),
        estimate_text(contrast.paired),
        estimate_text(contrast.difference, "{:+.2f}"),
        f"{contrast.p:.2g}",
        f"{contrast.adjusted:.2g}",
    ]


def _image(figure: Any) -> str | None:
    return None if figure is None else figures.embedded(figure)


def _machines(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The different machines and versions that runs named, with the number of runs of each."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.machine is not None:
            entry = found.setdefault(json.dumps(run.machine, sort_keys=True), {**run.machine, "runs": 0})
            entry["runs"] += 1
    return list(found.values())


def _last_lines(study: StudyRecord, run: RunRecord) -> str:
    """Why a run failed: its error, and the end of what it printed."""
    printed = RunFolder(study.folder / "runs" / run.id).last_lines(5)
    return "\n".join(text for text in (run.error.strip()[-2000:], printed) if text)


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M}"


def _template(name: str) -> jinja2.Template:
    loader = jinja2.PackageLoader("dualfid_robot.studies", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(f"{name}.html.jinja")


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def _finite(value: Any) -> Any:
    """Replace NaN by null and infinity by "Infinity", because JSON has neither."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value
