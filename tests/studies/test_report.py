from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_study import REFERENCE, UNTRAINED, fail, write_run, write_study

from dualfid_robot.studies import figures
from dualfid_robot.studies.curves import StudyRecord
from dualfid_robot.studies.report import build_report, summary_table_markdown
from dualfid_robot.studies.summary import Row, Summary

FINALS = {"high_only": 0.6, "finetune_50": 0.65, "default": 0.9, "naive_mix": 0.3}
DRAWS = 300


class Page(HTMLParser):
    """Balanced tags, the addresses that a page loads, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]
        if tag not in ("meta", "img", "br", "link", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def rows_of(folder: Path, key: str, **options: Any) -> dict[str, Row]:
    summary = Summary(StudyRecord(folder), repetitions=DRAWS)
    scope = next(scope for scope in summary.scopes() if scope.key == key)
    return {row.method: row for row in summary.rows(scope)}


def test_figures_of_known_runs(tmp_path: Path) -> None:
    """Without noise every figure follows from the final score s: the mean score is s/2, 0.8 is reached at 0.8/s."""
    write_study(tmp_path, FINALS, noise=0.0)
    for key in ("Ant/reduced/100", "Ant/friction_half/100", "*/*/*"):
        rows = rows_of(tmp_path, key)
        assert list(rows) == list(FINALS)
        for method, score in FINALS.items():
            assert rows[method].final.value == pytest.approx(score)
            assert rows[method].area.value == pytest.approx(score / 2)
            expected = 0.8 / score if score > 0.8 else np.inf
            assert rows[method].cost_to_reach == pytest.approx(expected)
            assert rows[method].reached == (score > 0.8)
        assert rows["naive_mix"].negative == 1.0 and rows["default"].negative == 0.0
        ours = rows["default"]
        assert ours.over_high_only is not None and ours.over_high_only.value == 1.0
        assert ours.rho == pytest.approx(0.75) and rows["high_only"].rho == 0
        assert ours.overhead == pytest.approx(0.75)  # the fixture's learner takes 1 + ρ as long
        assert ours.shares == pytest.approx({"low": 7.5 / 52.5, "high": 15 / 52.5, "learner": 30 / 52.5})
        assert rows["high_only"].over_high_only is None
    assert rows_of(tmp_path, "Ant/reduced/100")["default"].raw.value == pytest.approx(
        UNTRAINED + 0.9 * (REFERENCE - UNTRAINED)
    )


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, tasks=("Ant",), contrasts=[("default", "high_only"), ("naive_mix", "high_only")])
    report = build_report(tmp_path, DRAWS)
    assert report == tmp_path / "report.html"
    page = Page(report.read_text())
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.loads)
    assert page.tags.count("img") == 1 + 1 + 2 + 1  # overview, costs over high_only's, two cells, cost split
    assert not {"script", "link", "iframe", "object"} & set(page.tags) and "url(" not in report.read_text()
    for words in (*FINALS, "Ant, reduced, 100 s", "Ant, friction_half, 100 s", "44 runs on", "torch 2.13"):
        assert words in page.text, words
    assert "not complete" not in page.text
    assert (tmp_path / "data" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_machine_that_was_not_equally_free_is_seen(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS)
    cell = StudyRecord(tmp_path).cells[0]
    assert Summary(StudyRecord(tmp_path)).unevenness(cell) == pytest.approx(1.0)
    assert "not equally free" not in build_report(tmp_path, DRAWS).read_text()
    for method in ("finetune_50", "default", "naive_mix"):  # a run of each learnt at half the speed
        path = tmp_path / "runs" / StudyRecord(tmp_path).finished(cell, method)[1].id / "result.json"
        result = json.loads(path.read_text())
        result["means"]["cost_learner"] *= 2.0
        path.write_text(json.dumps(result))
    assert Summary(StudyRecord(tmp_path)).unevenness(cell) == pytest.approx(2.0)  # the median of 1, 2, 2, 2
    text = build_report(tmp_path, DRAWS).read_text()
    assert text.count("not equally free") == 1 and "by a factor of\n2.00" in text
    saved = json.loads((tmp_path / "data" / "summary.json").read_text())["unevenness"]
    assert saved[str(cell)] == pytest.approx(2.0) and sorted(saved.values())[:-1] == pytest.approx([1.0] * 3)


def test_data_files(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, tasks=("Ant",), seeds=3)
    build_report(tmp_path, DRAWS)
    runs = StudyRecord(tmp_path).runs
    with (tmp_path / "data" / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 11 * len(runs)
    assert float(curves[0]["return"]) == UNTRAINED and curves[0]["cost_seconds"] == "0.0"
    with (tmp_path / "data" / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    everything = {row["method"]: row for row in summary if row["scope"] == "*/*/*"}
    place = next(row for row in summary if row["scope"] == "Ant/reduced/100" and row["method"] == "default")
    learner = [
        run.means["cost_learner"] for run in runs if (run.method, run.gap) == ("default", "reduced") and run.means
    ]
    assert float(place["cost_learner"]) == pytest.approx(sum(learner) / len(learner)) != 0.0
    assert math.isnan(float(everything["default"]["cost_learner"]))
    assert float(everything["default"]["final"]) == pytest.approx(0.9, abs=0.05)
    assert float(everything["default"]["final_low"]) < float(everything["default"]["final_high"])
    content = json.loads((tmp_path / "data" / "summary.json").read_text(), parse_constant=pytest.fail)
    assert content["runs"] == {"finished": len(runs), "failed": 0, "missing": 0}
    assert content["wall_seconds"] == pytest.approx(sum(1.25 * run.budget for run in runs))
    assert len(content["rows"]) == len(summary)
    assert content["rows"][0]["cost_to_reach"] == "Infinity"


@pytest.mark.slow
def test_a_study_that_is_partly_done(tmp_path: Path) -> None:
    """Failures with their last lines, missing runs, a cell without any, a method with two runs."""
    write_study(tmp_path, FINALS)
    runs = StudyRecord(tmp_path).runs
    for run in runs:
        result = tmp_path / "runs" / run.id / "result.json"
        if run.task == "Cartpole" or (run.method == "naive_mix" and run.seed > 1):
            result.unlink()
    fail(tmp_path, "Ant_default_reduced_100_3", "ValueError: <b>angle</b> is not finite")
    (tmp_path / "runs" / "Ant_default_reduced_100_3" / "log.txt").write_text("first\nlast words\n")
    text = build_report(tmp_path, DRAWS).read_text()
    page = Page(text)
    assert "The study is not complete" in page.text and "1 failed" in page.text
    assert "ValueError: <b>angle</b> is not finite" in page.text and "last words" in page.text
    assert "No run is finished." in page.text and "Cartpole_naive_mix_reduced_100_4" in page.text
    row = rows_of(tmp_path, "Ant/reduced/100")["naive_mix"]
    assert (row.finished, row.planned) == (2, 5)
    assert np.isfinite(row.final.value) and not row.final.has_interval
    assert row.over_high_only is not None and not row.over_high_only.has_interval
    assert rows_of(tmp_path, "Ant/reduced/100")["default"].failed == 1
    everything = rows_of(tmp_path, "*/*/*")["default"]
    assert (everything.cells, everything.finished, everything.planned) == (2, 9, 20)
    assert "9 of 20, in 2 of 4 places" in summary_table_markdown(tmp_path, DRAWS)


def test_nothing_done_yet(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, contrasts=[("default", "high_only")])
    for path in (tmp_path / "runs").glob("*/*.json*"):
        path.unlink()
    page = Page(build_report(tmp_path, DRAWS).read_text())
    assert "0 runs finished" in page.text and "None can be computed yet" in page.text
    assert (tmp_path / "data" / "curves.csv").is_file()


def test_without_references_returns_are_not_normalised(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, references=0, noise=0.0, tasks=("Ant",))
    page = Page(build_report(tmp_path, DRAWS).read_text())
    assert "Not normalised" in page.text and "this plan has none" in page.text
    row = rows_of(tmp_path, "Ant/reduced/100")["default"]
    assert row.final.value == row.raw.value == pytest.approx(100.0)
    assert np.isnan(row.cost_to_reach)
    together = rows_of(tmp_path, "*/*/*")["default"]
    assert np.isnan(together.final.value)
    assert together.over_high_only is not None and together.over_high_only.value == 1.0  # needs no scale


def test_contrasts(tmp_path: Path) -> None:
    pairs = [("default", "high_only"), ("finetune_50", "high_only"), ("naive_mix", "high_only")]
    write_study(tmp_path, FINALS | {"finetune_50": 0.6}, contrasts=pairs, noise=0.1)
    found = Summary(StudyRecord(tmp_path), repetitions=2000).contrasts()
    assert [(contrast.ours, contrast.theirs) for contrast in found] == pairs
    better, same, worse = found
    assert better.improvement.value > 0.9 and better.adjusted < 0.05
    assert better.difference is not None and better.difference.low < 0.3 < better.difference.high
    assert same.adjusted > 0.05 and same.improvement.low < 0.5 < same.improvement.high
    assert worse.improvement.value < 0.1 and worse.adjusted < 0.05
    assert all(contrast.adjusted >= contrast.p and contrast.cells == 4 for contrast in found)


def test_paired_runs_are_those_of_the_same_seed(tmp_path: Path) -> None:
    """high_only's run of seed 0 is missing: pairs are seeds 1 and 2, in which the first is better and worse."""
    gaps = (("friction_half", "high"),)
    write_study(tmp_path, FINALS, tasks=("Ant",), gaps=gaps, seeds=3, contrasts=[("default", "high_only")])
    runs = {run["id"]: run for run in json.loads((tmp_path / "plan.json").read_text())["runs"]}
    for method, scores in (("default", (0.1, 0.5, 0.6)), ("high_only", (0.9, 0.4, 0.7))):
        for seed, score in enumerate(scores):
            write_run(tmp_path, runs[f"Ant_{method}_friction_half_100_{seed}"], score)
    (tmp_path / "runs" / "Ant_high_only_friction_half_100_0" / "result.json").unlink()
    (contrast,) = Summary(StudyRecord(tmp_path), repetitions=DRAWS).contrasts()
    assert contrast.paired is not None and contrast.paired.value == 0.5
    assert contrast.improvement.value == pytest.approx(2 / 6)


def test_scopes_of_several_budgets(tmp_path: Path) -> None:
    """Budgets of each task are put together by their place, and the whole is there once."""
    write_study(tmp_path, FINALS, references=0, seeds=1)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["tasks"]["Ant"]["budgets"], plan["tasks"]["Cartpole"]["budgets"] = [100.0, 400.0], [5.0, 100.0]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    scopes = {scope.key: [str(cell) for cell in scope.cells] for scope in Summary(StudyRecord(tmp_path)).scopes()}
    assert len(scopes) == 8 + 2 + 2 + 2 + 1
    assert scopes["*/*/2"] == [
        f"{task}, {gap}, {budget} s"
        for task, budget in (("Ant", 400), ("Cartpole", 100))
        for gap in ("reduced", "friction_half")
    ]
    assert len(scopes["*/*/*"]) == 8


def test_one_cell_is_one_scope(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, tasks=("Ant",), gaps=(("reduced", "low"),), seeds=3)
    assert [scope.key for scope in Summary(StudyRecord(tmp_path)).scopes()] == ["Ant/reduced/100"]
    Page(build_report(tmp_path, DRAWS).read_text())


def test_markdown_is_a_table(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, contrasts=[("default", "high_only")])
    lines = summary_table_markdown(tmp_path, DRAWS).splitlines()
    tables = [table.splitlines() for table in "\n".join(lines).split("\n\n")]
    assert len(tables) == 2 and len(tables[0]) == 2 + len(FINALS) and len(tables[1]) == 3
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert re.match(r"\| default \| 20 \| 0\.\d\d \[0\.\d\d, 0\.\d\d\] \|", tables[0][4])


def test_a_method_looks_the_same_everywhere_and_like_no_other() -> None:
    methods = ["high_only", *(f"method_{i}" for i in range(20))]
    looks = [tuple(figures.style(methods, method).values()) for method in methods]
    assert len(set(looks)) == len(methods)
    assert looks[0] == ("black", "-")


def test_many_methods_have_their_bands_in_panels_of_their_own(tmp_path: Path) -> None:
    finals = {"high_only": 0.6} | {f"method_{i}": 0.1 * i for i in range(7)}
    write_study(tmp_path, finals, tasks=("Ant",), gaps=(("reduced", "low"),), seeds=3)
    summary = Summary(StudyRecord(tmp_path), repetitions=DRAWS)
    panels = figures.each_against_high_only(summary, summary.study.cells[0])
    assert panels is not None
    shown = [axes for axes in panels.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [f"method_{i}" for i in range(7)]
    for index, axes in enumerate(shown):
        baseline, own = axes.lines[:2]
        assert baseline.get_color() == "black"
        assert np.asarray(own.get_ydata())[-1] == pytest.approx(0.1 * index, abs=0.15)


@pytest.mark.parametrize("references", [0, 1])
def test_only_scores_are_cut_at_the_left(references: int, tmp_path: Path) -> None:
    """A score of -5 is an arrow at -1; the return of -490 that it is without a reference stands where it is."""
    one_cell: dict[str, Any] = {"tasks": ("Ant",), "gaps": (("reduced", "low"),), "references": references}
    write_study(tmp_path, {"high_only": 0.5, "default": -5.0}, **one_cell, seeds=3, noise=0.0)
    summary = Summary(StudyRecord(tmp_path), repetitions=DRAWS)
    scope = summary.everything
    figure = figures.final_and_area(summary, [(scope, summary.rows(scope))])
    assert figure is not None
    points = {line.get_marker(): float(np.asarray(line.get_xdata())[0]) for line in figure.axes[0].lines}
    expected = {"<": -1.0} if references else {}
    assert {marker: x for marker, x in points.items() if marker == "<"} == expected
    drawn = [float(np.asarray(line.get_xdata())[0]) for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert drawn == pytest.approx([0.5, -1.0] if references else [UNTRAINED + 50, UNTRAINED - 500])
    assert figure.axes[0].get_xlim()[0] < min(drawn)
