"""Costs of runs that may never get there, ends, the map of prices, and what is kept abroad, in known studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from synthetic_study import REFERENCE, UNTRAINED, write_run, write_study

from dualfid_robot.studies import statistics
from dualfid_robot.studies.censored import Costs, cost_ratio
from dualfid_robot.studies.comparison_tables import against_rows, kept_rows, sections
from dualfid_robot.studies.comparisons import Comparisons
from dualfid_robot.studies.curves import Cell, StudyRecord
from dualfid_robot.studies.report import build_report
from dualfid_robot.studies.summary import Summary

DRAWS = 2000
FINALS = {"high_only": 1.0, "default": 2.0, "naive_mix": 0.5}
LOW = (("reduced", "low"),)


def comparisons(folder: Path) -> Comparisons:
    return Comparisons(Summary(StudyRecord(folder), repetitions=DRAWS))


def costs(*paid: float, never: tuple[float, ...] = ()) -> Costs:
    return Costs(np.array([*paid, *never]), np.array([True] * len(paid) + [False] * len(never)))


# Censored costs


def test_the_median_is_kaplan_and_meiers() -> None:
    """Against SciPy's survival function: the first cost at which no more than half of the runs are left."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        number = int(generator.integers(1, 9))
        paid, reached = generator.integers(1, 6, number).astype(float), generator.random(number) < 0.7
        survival = stats.ecdf(stats.CensoredData(paid[reached], right=paid[~reached])).sf
        at = survival.quantiles[survival.probabilities <= 0.5 + 1e-12]
        assert Costs(paid, reached).median == (at[0] if at.size else np.inf)


def test_costs_by_hand() -> None:
    """Of three runs two got there; a run that was cut before the others got there says nothing of them."""
    assert costs(1, 3, 5).median == 3 and costs(1, 3, 5).share == 1.0
    assert costs(1, 3, never=(5,)).median == 3
    assert costs(1, never=(5, 5)).median == np.inf
    assert costs(4, 6, 8, never=(2, 2, 2)).median == 6 and costs(4, 6, 8, never=(2, 2, 2)).share == 0.5


def test_a_ratio_of_costs_and_its_bounds() -> None:
    known = cost_ratio(costs(1, 2, 3), costs(4, 8, 12), DRAWS)
    assert known is not None and (known.value, known.bound) == (0.25, "")
    assert known.low == pytest.approx(1 / 12) and known.high == pytest.approx(3 / 4)
    slow = cost_ratio(costs(never=(10, 20)), costs(4, 4, 4), DRAWS)
    assert slow is not None and (slow.value, slow.bound) == (5.0, ">") and np.isnan(slow.low)
    quick = cost_ratio(costs(2, 2), costs(never=(10, 20)), DRAWS)
    assert quick is not None and (quick.value, quick.bound) == (0.1, "<")
    assert cost_ratio(costs(never=(1,)), costs(never=(1,)), DRAWS) is None
    few = cost_ratio(costs(1, 2), costs(4, 8, 12), DRAWS)
    assert few is not None and np.isnan(few.low)
    open_end = cost_ratio(costs(1, 2, never=(9,)), costs(4, 8, 12), DRAWS)
    assert open_end is not None and open_end.value == 0.25 and np.isinf(open_end.high)


def test_a_ratio_of_returns() -> None:
    found = statistics.ratio([np.array([1.0, 2, 3])], [np.array([4.0, 4, 4])], DRAWS)
    assert found.value == 0.5 and found.low == 0.25 and found.high == 0.75
    assert np.isnan(statistics.ratio([np.ones(3)], [-np.ones(3)], DRAWS).value)
    mixed = statistics.ratio([np.ones(3)], [np.array([-1.0, 2, 2])], DRAWS)
    assert mixed.value == 1.0 and not mixed.has_interval


# Comparisons of known studies


def test_costs_and_ends_of_known_runs(tmp_path: Path) -> None:
    """Scores rise linearly to 1, 2 and 0.5 at 100 s, so 0.8 is reached at 80 s, at 40 s and never. The references get
    to 1 at 400 s and reach it at 320 s. They are two of seven runs of high_only."""
    write_study(tmp_path, FINALS, tasks=("Ant",), gaps=LOW, noise=0.0)
    high, ours, mix = comparisons(tmp_path).against
    assert [row.method for row in (high, ours, mix)] == list(FINALS)
    assert high.costs is not None and sorted(high.costs.paid) == pytest.approx([80.0] * 5 + [320.0] * 2)
    assert high.speed is None and high.difference is None
    assert ours.costs is not None and ours.costs.median == pytest.approx(40.0)
    assert ours.speed is not None and ours.speed.value == pytest.approx(0.5) and ours.speed.bound == ""
    assert mix.costs is not None and mix.costs.share == 0.0
    assert mix.speed is not None and mix.speed.value == pytest.approx(100 / 80) and mix.speed.bound == ">"
    span = REFERENCE - UNTRAINED
    assert ours.difference is not None and ours.difference.value == pytest.approx(span)
    assert ours.ratio is not None and ours.ratio.value == pytest.approx((UNTRAINED + 2 * span) / (UNTRAINED + span))


def test_references_do_not_count_where_they_pay_other_prices(tmp_path: Path) -> None:
    """The level is the same, since a price changes nothing that can be learnt; what was paid for it is not."""
    write_study(tmp_path, FINALS, tasks=("Ant",), gaps=(("default", "low"), ("price_10", "price")), noise=0.0)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["runs"] = [run for run in plan["runs"] if not (run["reference"] and run["gap"] == "price_10")]
    plan["budget_factors"] = {"price_10": 2.0}
    plan["gaps"] = [gap | {"price": 10.0 if gap["name"] == "price_10" else 1.0} for gap in plan["gaps"]]
    for run in plan["runs"]:
        if run["gap"] == "price_10":
            run["budget"] = 200.0
            write_run(tmp_path, run, FINALS[run["method"]])
    for path in (tmp_path / "runs").glob("*price_10*reference*/*"):
        path.unlink()
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    found = comparisons(tmp_path)
    cheap, dear = Cell("Ant", "default", 100.0), Cell("Ant", "price_10", 200.0)
    assert StudyRecord(tmp_path).cells == [cheap, dear]
    numbers = {cell: len(found_costs.paid) for cell in (cheap, dear) if (found_costs := found.costs(cell, "high_only"))}
    assert numbers == {cheap: 7, dear: 5}
    dear_costs = found.costs(dear, "default")
    assert dear_costs is not None and dear_costs.median == pytest.approx(80.0)
    assert [(verdict.cell, verdict.price, verdict.best) for verdict in found.verdicts] == [
        (cheap, 1.0, "high_only"),
        (dear, 10.0, "high_only"),
    ]
    assert [verdict.over_best.value for verdict in found.verdicts if verdict.over_best] == pytest.approx([0.5, 0.5])
    page = build_report(tmp_path, DRAWS).read_text()
    assert "default against the best of the others" in page


def write_deployed(folder: Path, values: dict[str, dict[float, tuple[float, float]]]) -> None:
    """Returns at home and in PhysX, by method and dial; a run of seed k has 1 + k / 10 times as much of both."""
    for path in (folder / "runs").glob("*/result.json"):
        run: dict[str, Any] = json.loads((path.parent / "run.json").read_text())
        if run["reference"]:
            continue
        factor = 1 + run["seed"] / 10
        deployed = [
            {"engine": engine, "home": engine != "physx", "dial": dial, "return": factor * value}
            for dial, pair in values[run["method"]].items()
            for engine, value in zip(("mujoco", "physx"), pair, strict=True)
        ]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"deployed": deployed}))


def test_return_kept_by_hand(tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 1.0, "default": 2.0}, tasks=("Ant",), gaps=LOW, seeds=3, noise=0.0)
    write_deployed(tmp_path, {"high_only": {1.0: (100, 40)}, "default": {0.0: (80, 60), 1.0: (120, 54)}})
    high, base, adapted = comparisons(tmp_path).kept
    assert (high.method, high.engine, high.home, high.runs) == ("high_only", "physx", "mujoco", 3)
    assert high.kept.value == pytest.approx(0.4) and high.over_high_only is None
    assert high.kept.low == pytest.approx(0.4) == high.kept.high  # seeds earn differently and keep the same
    assert (base.dial, adapted.dial) == (0.0, 1.0)
    assert base.at_home.value == pytest.approx(88) and base.there.value == pytest.approx(66)
    assert base.kept.value == pytest.approx(0.75) and adapted.kept.value == pytest.approx(0.45)
    assert base.over_high_only is not None and base.over_high_only.value == pytest.approx(1.5)
    assert base.over_high_only.low < 1.5 < base.over_high_only.high


def test_nothing_earned_at_home_is_nothing_kept(tmp_path: Path) -> None:
    write_study(tmp_path, {"high_only": 1.0}, tasks=("Ant",), gaps=LOW, seeds=3)
    write_deployed(tmp_path, {"high_only": {1.0: (-5, 40)}})
    (kept,) = comparisons(tmp_path).kept
    assert np.isnan(kept.kept.value) and kept.there.value == pytest.approx(44)


def test_sections_and_data(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, seeds=3)
    found = comparisons(tmp_path)
    study = StudyRecord(tmp_path)
    titles = [section.title for section in sections(study, found)]
    assert len(titles) == 4 and not any("unseen" in title or "not seen" in title for title in titles)
    for section in sections(study, found):
        assert {len(row) for row in section.rows} == {len(section.headers)}
    speed = sections(study, found)[0]
    assert speed.headers == ["place", "default", "naive_mix"] and speed.image is not None
    assert speed.rows[0][2].startswith("> ") and "(0% got there)" in speed.rows[0][2]
    rows = list(against_rows(found))
    assert len(rows) == len(study.cells) * len(FINALS) and not list(kept_rows(found))
    write_deployed(tmp_path, {method: {1.0: (100, 40)} for method in FINALS})
    page = build_report(tmp_path, DRAWS).read_text()
    assert "Return kept in an engine that no run has seen" in page
    for name in ("comparisons.csv", "kept.csv"):
        assert len((tmp_path / "data" / name).read_text().splitlines()) > len(study.cells)


def test_without_a_reference_ends_alone_are_compared(tmp_path: Path) -> None:
    write_study(tmp_path, FINALS, tasks=("Ant",), gaps=LOW, references=0)
    titles = [section.title for section in sections(StudyRecord(tmp_path), comparisons(tmp_path))]
    assert titles == ["Return at the budget, less that of high_only", "Return at the budget, over that of high_only"]
