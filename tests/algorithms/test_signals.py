"""The filter of what is measured, by hand."""

from __future__ import annotations

import math

import pytest

from dualfid_robot.algorithms.signals import MEASURED, SignalFilter, Signals, known
from dualfid_robot.errors import NotFiniteError


def test_smoothing_by_hand() -> None:
    filter_ = SignalFilter(64, 0.9)
    assert filter_.signals == filter_.signals and math.isnan(filter_.signals.divergence)
    assert filter_.update({"divergence": 0.3}, 1, 0.1).divergence == 0.3  # the first stands as it is
    signals = filter_.update({"divergence": 0.5, "cost_high": -2.0}, 2, 0.2)
    assert signals.divergence == pytest.approx(0.32)
    assert signals.cost_high == -2.0
    assert math.isnan(signals.cost_low)
    signals = filter_.update({"cost_high": 8.0}, 3, 0.3)
    assert signals.divergence == pytest.approx(0.32)  # not measured: the last stands
    assert signals.cost_high == pytest.approx(-1.0)
    assert (signals.iteration, signals.progress, signals.num_envs) == (3, 0.3, 64)


def test_without_smoothing_the_last_measurement_stands() -> None:
    filter_ = SignalFilter(64, 0.0)
    assert [filter_.update({"divergence_high": x}, 0, 0.0).divergence_high for x in (0.5, -1.0, 2.0)] == [
        0.5,
        -1.0,
        2.0,
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(NotFiniteError, match=f"variance_low is {value}"):
        SignalFilter(64, 0.9).update({"variance_low": value}, 1, 0.1)


def test_a_filter_goes_on_from_its_state() -> None:
    filter_, resumed = SignalFilter(64, 0.9), SignalFilter(64, 0.9)
    filter_.update(dict.fromkeys(MEASURED, 1.0), 1, 0.1)
    resumed.load_state_dict(filter_.state_dict())
    assert resumed.update({"cost_low": 3.0}, 2, 0.2) == filter_.update({"cost_low": 3.0}, 2, 0.2)


def test_known() -> None:
    assert known(2.0) == 2.0 and known(Signals().divergence) == 0.0 and known(math.nan, 1.0) == 1.0
