"""The comparisons as sections of the report and as rows of data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dualfid_robot.studies import comparison_figures, figures
from dualfid_robot.studies.censored import CostRatio, Costs
from dualfid_robot.studies.comparisons import OURS, Against, Comparisons, Kept, Verdict
from dualfid_robot.studies.curves import StudyRecord
from dualfid_robot.studies.statistics import Estimate
from dualfid_robot.studies.summary import HIGH_ONLY

NONE = "–"


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title, note: above it; image: its figure, embedded, or None.
        headers, rows: of its table.
    """

    title: str
    note: str
    image: str | None
    headers: list[str]
    rows: list[list[str]]


def sections(study: StudyRecord, comparisons: Comparisons) -> list[Section]:
    """The sections for which there is anything to compare."""
    against = [row for row in comparisons.against if row.method != HIGH_ONLY]
    found = [
        Section(
            f"Cost to 80% of the reference, or to the task's target, over that of {HIGH_ONLY}",
            "Median over runs by Kaplan and Meier, who count runs that ended before they got there. Behind it "
            "stand the 95% interval of the bootstrap and, where some runs never got there, the share that did. "
            "“>” is a lower bound: too few runs of the method got there. “<” is an upper bound: too few of "
            f"{HIGH_ONLY} did. The reference's runs count as longer runs of {HIGH_ONLY}.",
            _image(comparison_figures.speeds(study, against)),
            *_matrix(study, against, lambda row: _speed(row.speed, row.costs)),
        ),
        Section(
            f"Return at the budget, less that of {HIGH_ONLY}",
            "Interquartile means over runs at equal cost, with the 95% interval of the bootstrap.",
            None,
            *_matrix(study, against, lambda row: estimate_text(row.difference, "{:+.4g}")),
        ),
        Section(
            f"Return at the budget, over that of {HIGH_ONLY}",
            "The same as a ratio: in a gap that misleads, a figure below 1 is the harm that it does. "
            "It needs positive returns.",
            None,
            *_matrix(study, against, lambda row: estimate_text(row.ratio)),
        ),
        Section(
            f"{OURS} against the best of the others",
            f"The best other is the method with the least median cost to 80% besides {OURS}. It is chosen from "
            "the same runs, which favours it.",
            _image(comparison_figures.price_map(study, comparisons)),
            ["place", "price of E_high", f"cost of {OURS}", "best other", "its cost", "ratio"],
            [_verdict(verdict) for verdict in comparisons.verdicts],
        ),
        Section(
            "Return kept in an engine that no run has seen",
            "Every policy plays the same number of episodes at home and there. Kept is the return there over "
            "the return at home, run by run. Squares are base policies, circles adapted ones, and lines the "
            "dial between them. On the dotted line everything is kept.",
            _image(comparison_figures.abroad(study, comparisons.kept)),
            [
                *("place", "method", "policy", "runs", "home", "return at home", "unseen engine", "return there"),
                *("kept", f"there, over {HIGH_ONLY}'s"),
            ],
            [_kept(kept) for kept in comparisons.kept],
        ),
    ]
    return [section for section in found if any(text != NONE for row in section.rows for text in row[1:])]


def against_rows(comparisons: Comparisons) -> Iterator[dict[str, Any]]:
    """A row of data/comparisons.csv for each method and cell."""
    for row in comparisons.against:
        speed = row.speed or CostRatio(math.nan)
        yield {
            **dataclasses.asdict(row.cell),
            "method": row.method,
            "reached": row.costs.share if row.costs else math.nan,
            "cost_to_80": row.costs.median if row.costs else math.nan,
            **_flat("cost_over_high_only", speed),
            "bound": speed.bound,
            **_flat("final", row.final),
            **_flat("difference", row.difference or Estimate(math.nan)),
            **_flat("ratio", row.ratio or Estimate(math.nan)),
        }


def kept_rows(comparisons: Comparisons) -> Iterator[dict[str, Any]]:
    """A row of data/kept.csv for each policy, cell and engine."""
    for row in comparisons.kept:
        yield {
            **dataclasses.asdict(row.cell),
            **{"method": row.method, "dial": row.dial, "runs": row.runs, "home": row.home, "engine": row.engine},
            **_flat("return_home", row.at_home),
            **_flat("return_there", row.there),
            **_flat("kept", row.kept),
            **_flat("over_high_only", row.over_high_only or Estimate(math.nan)),
        }


def estimate_text(value: Estimate | None, form: str = "{:.2f}") -> str:
    """A figure and its interval for a reader."""
    if value is None or math.isnan(value.value):
        return NONE
    if not value.has_interval:
        return form.format(value.value)
    return f"{form.format(value.value)} [{form.format(value.low)}, {form.format(value.high)}]"


def policy_name(dial: float) -> str:
    """How a policy on the dial is called."""
    return {0.0: "base", 1.0: "adapted"}.get(dial, f"dial {dial:g}")


def _matrix(study: StudyRecord, rows: Sequence[Against], text: Any) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a table: a row for each cell, a column for each method."""
    methods = [method for method in study.methods if any(row.method == method for row in rows)]
    found = {(row.cell, row.method): text(row) for row in rows}
    cells = [*dict.fromkeys(row.cell for row in rows)]
    return ["place", *methods], [[str(cell), *(found.get((cell, m), NONE) for m in methods)] for cell in cells]


def _speed(speed: CostRatio | None, costs: Costs | None) -> str:
    if speed is None or costs is None:
        return NONE
    share = "" if costs.share == 1.0 else f" ({costs.share:.0%} got there)"
    return _ratio(speed) + share


def _ratio(speed: CostRatio) -> str:
    text = f"{speed.bound} {speed.value:.2f}".strip()
    if math.isnan(speed.low):
        return text
    return f"{text} [{speed.low:.2f}, {'∞' if math.isinf(speed.high) else f'{speed.high:.2f}'}]"


def _verdict(verdict: Verdict) -> list[str]:
    return [
        str(verdict.cell),
        f"{verdict.price:g}",
        _cost(verdict.ours),
        verdict.best,
        _cost(verdict.theirs),
        NONE if verdict.over_best is None else _ratio(verdict.over_best),
    ]


def _cost(costs: Costs) -> str:
    shown = f"> {costs.largest:.4g}" if math.isinf(costs.median) else f"{costs.median:.4g}"
    return shown if costs.share == 1.0 else f"{shown} ({costs.share:.0%} got there)"


def _kept(kept: Kept) -> list[str]:
    return [
        str(kept.cell),
        kept.method,
        policy_name(kept.dial),
        str(kept.runs),
        kept.home,
        estimate_text(kept.at_home, "{:.4g}"),
        kept.engine,
        estimate_text(kept.there, "{:.4g}"),
        estimate_text(kept.kept),
        estimate_text(kept.over_high_only),
    ]


def _flat(name: str, value: Estimate | CostRatio) -> dict[str, float]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _image(figure: Any) -> str | None:
    return None if figure is None else figures.embedded(figure)
