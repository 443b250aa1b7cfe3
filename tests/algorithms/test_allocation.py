"""Rules against hand-computed numbers; guards as properties of any sequence of signals."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from default_settings import allocation_config, guards
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.algorithms.allocation import AllocationConfig, Allocator
from dualfid_robot.algorithms.rules import RULES, make_rule, rule
from dualfid_robot.algorithms.signals import SignalFilter, Signals
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings

CFG = Path(__file__).parents[2] / "cfg" / "allocation"
SCALED = {"name": "scaled", "alpha": 4.0, "hold": 0.4, "until": 1.0}
FREE = {"rho_min": 0.0, "rho_max": 1.0, "warmup_iterations": 0, "smoothing": 0.0, "rate_limit": 1.0, "block_size": 1}


class Loop:
    """An allocator behind the filter of its measurements, as in the trainer."""

    def __init__(self, num_envs: int, config: AllocationConfig) -> None:
        self.allocator = Allocator(num_envs, config)
        self.filter = SignalFilter(num_envs, config.smoothing)

    def update(self, divergence: float | None, progress: float = 0.0) -> int:
        measured = {} if divergence is None else {"divergence": divergence}
        signals = self.filter.update(measured, self.filter.signals.iteration + 1, progress)
        return self.allocator.update(signals)


@pytest.mark.parametrize(
    ("settings_", "signals", "expected"),
    [
        ({"name": "exponential", "alpha": 0.5}, {}, 1.0),
        ({"name": "exponential", "alpha": 0.5}, {"divergence": 2.0}, 0.36787944),
        ({"name": "exponential", "alpha": 0.5}, {"divergence": 1.8, "iteration": 9}, 0.40656966),
        ({"name": "inverse_sigmoid", "alpha": 1.0, "k": 3.0}, {}, 0.75),
        ({"name": "inverse_sigmoid", "alpha": 2.0, "k": 3.0}, {"divergence": math.log(3.0) / 2.0}, 0.5),
        ({"name": "inverse_sigmoid", "alpha": 1.0, "k": 3.0}, {"divergence": math.log(9.0)}, 0.25),
        ({"name": "inverse_sigmoid", "alpha": 17.0, "k": 20.0}, {"divergence": 1e9}, 0.0),
        ({"name": "fixed", "rho": 0.3}, {"divergence": 5.0, "iteration": 7}, 0.3),
        ({"name": "schedule", "start": 0.9, "end": 0.1}, {"divergence": 5.0}, 0.9),
        ({"name": "schedule", "start": 0.9, "end": 0.1}, {"progress": 0.5}, 0.5),
        ({"name": "schedule", "start": 0.9, "end": 0.1}, {"progress": 1.0}, 0.1),
        ({"name": "switch", "at": 0.25}, {"progress": 0.2499}, 1.0),
        ({"name": "switch", "at": 0.25}, {"progress": 0.25}, 0.0),
        ({**SCALED, "top": 0.9}, {}, 0.9),
        ({**SCALED, "top": 0.9}, {"progress": 0.4}, 0.9),
        ({**SCALED, "top": 0.8}, {"progress": 0.7}, 0.4),
        ({**SCALED, "top": 0.8, "hold": 0.0, "until": 0.8}, {"progress": 0.2}, 0.6),
        ({**SCALED, "top": 0.8, "until": 0.5}, {"progress": 0.6, "gap": 3.0}, 0.0),
        ({**SCALED, "top": 0.9, "alpha": 2.0}, {"gap": 0.5}, 0.9 * math.exp(-1.0)),
        ({**SCALED, "top": 0.75}, {"price": 4.0}, 0.75),  # a quarter of E_high's rows: in every fourth iteration
        ({**SCALED, "top": 0.75}, {"price": 4.0, "iteration": 3}, 1.0),
        ({**SCALED, "top": 0.75}, {"price": 4.0, "iteration": 4}, 0.75),
        ({**SCALED, "top": 0.75}, {"price": 4.0, "progress": 0.7, "iteration": 1}, 0.46875),
        ({**SCALED, "top": 0.9}, {"price": 0.5}, 0.8),
        ({**SCALED, "top": 0.9}, {"price": 0.0}, 0.0),
        ({**SCALED, "top": 0.9}, {"evidence": math.nan}, 1.0 - 0.1 ** (1 / 3)),  # nothing is known yet
        ({**SCALED, "top": 0.9}, {"evidence": 1.0}, 1.0 - 0.1**0.5),
        ({**SCALED, "top": 0.9}, {"evidence": -2.0}, 0.0),
        ({**SCALED, "top": 0.9}, {"evidence": -9.0}, 0.0),
        ({**SCALED, "top": 0.75}, {"price": 4.0, "evidence": 1.0}, 0.75),
        ({**SCALED, "top": 1.0}, {"evidence": 1.0}, 1.0),
    ],
)
def test_rules_by_hand(settings_: dict[str, Any], signals: dict[str, Any], expected: float) -> None:
    assert make_rule(settings_)(Signals(**{"evidence": 4.0, **signals})) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("price", [1.0, 2.5, 10.0, 30.0])
def test_an_e_high_so_many_times_dearer_has_so_many_times_fewer_rows(price: float) -> None:
    scaled = make_rule({**SCALED, "top": 0.95})
    shares = [1.0 - scaled(Signals(price=price, iteration=i, evidence=4.0)) for i in range(3000)]
    assert sum(shares) / len(shares) == pytest.approx(0.05 / price, rel=1e-2)
    assert {round(share, 9) for share in shares} <= {0.0, 0.05}


def test_allocator_by_hand() -> None:
    """N = 100, exp(−D), blocks of 10, change ≤ 0.1, D smoothed by ½, two warm-up iterations at 0.5."""
    config = allocation_config(
        rule={"name": "exponential", "alpha": 1.0},
        warmup_iterations=2,
        smoothing=0.5,
        rate_limit=0.1,
        block_size=10,
    )
    loop = Loop(100, config)
    allocator = loop.allocator
    assert allocator.n_low == 50
    assert loop.update(0.2) == 50  # D = 0.2, second warm-up iteration
    assert loop.update(0.4) == 60  # D = 0.3, target 0.741, ρ = 0.6
    assert loop.update(0.3) == 70  # D = 0.3, target 0.741, ρ = 0.7
    assert loop.update(None) == 70  # no measurement: D stands; ρ = 0.741
    assert allocator.rho == pytest.approx(math.exp(-0.3))
    assert loop.update(4.0) == 60  # D = 2.15, target 0.1165, ρ = 0.641
    assert loop.filter.signals.divergence == pytest.approx(2.15)
    assert allocator.metrics() == pytest.approx(
        {
            "allocation/rho": math.exp(-0.3) - 0.1,
            "allocation/rho_target": math.exp(-2.15),
            "allocation/n_low": 60.0,
            "allocation/n_high": 40.0,
        }
    )


configs = st.builds(
    lambda rho_min, width, warmup, where, smoothing, rate, block, rule_: allocation_config(
        rule=rule_,
        rho_min=rho_min,
        rho_max=min(rho_min + width, 1.0),
        warmup_iterations=warmup,
        warmup_rho=rho_min + where * (min(rho_min + width, 1.0) - rho_min),
        smoothing=smoothing,
        rate_limit=rate,
        block_size=block,
    ),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.integers(0, 4),
    st.floats(0.0, 0.999),
    st.floats(0.0, 0.99),
    st.floats(0.001, 1.0),
    st.integers(1, 300),
    st.sampled_from(
        [
            {"name": "exponential", "alpha": 4.0},
            {"name": "inverse_sigmoid", "alpha": 17.0, "k": 20.0},
            {"name": "schedule", "start": 0.9, "end": 0.1},
            {"name": "fixed", "rho": 0.5},
        ]
    ),
)
divergences = st.lists(st.one_of(st.none(), st.floats(0.0, 1e6)), max_size=30)


def best_distance(allocator: Allocator, config: AllocationConfig) -> float:
    """Distance from ρ N to the nearest allowed N_low, by trying all of them."""
    total, block = allocator.num_envs, allocator.block_size
    low = block if config.rho_min > 0.0 else 0
    high = total - block if config.rho_max < 1.0 else total
    allowed = [n for n in range(0, total + 1, block) if low <= n <= high] + [total] * (allocator.rho == 1.0)
    return min(abs(n - allocator.rho * total) for n in allowed)


@settings(deadline=None, max_examples=500)
@given(num_envs=st.integers(2, 5000), config=configs, sequence=divergences)
def test_guards_hold_for_any_divergences(num_envs: int, config: AllocationConfig, sequence: list[float | None]) -> None:
    loop = Loop(num_envs, config)
    allocator, previous = loop.allocator, loop.allocator.rho
    for divergence in [None, *sequence]:
        n_low = loop.update(divergence)
        assert n_low == allocator.n_low and n_low + allocator.n_high == num_envs
        assert 0 <= n_low <= num_envs
        assert n_low <= allocator.max_n_low and allocator.n_high <= allocator.max_n_high
        if config.rho_min > 0.0:
            assert n_low >= 1
        if config.rho_max < 1.0:
            assert allocator.n_high >= 1
        assert config.rho_min - 1e-9 <= allocator.rho <= config.rho_max + 1e-9
        assert abs(allocator.rho - previous) <= config.rate_limit + 1e-9
        assert n_low % allocator.block_size == 0 or n_low == num_envs
        assert abs(n_low - allocator.rho * num_envs) == pytest.approx(best_distance(allocator, config), abs=1e-6)
        previous = allocator.rho


@settings(deadline=None, max_examples=50)
@given(num_envs=st.integers(2, 500), config=configs, before=divergences, after=divergences)
def test_state_round_trip(
    num_envs: int, config: AllocationConfig, before: list[float | None], after: list[float | None]
) -> None:
    loop, resumed = Loop(num_envs, config), Loop(num_envs, config)
    for divergence in before:
        loop.update(divergence)
    resumed.allocator.load_state_dict(loop.allocator.state_dict())
    resumed.filter.load_state_dict(loop.filter.state_dict())
    assert resumed.allocator.n_low == loop.allocator.n_low
    for divergence in after:
        assert resumed.update(divergence) == loop.update(divergence)
    assert resumed.allocator.state_dict() == loop.allocator.state_dict()


def test_the_loop_leaves_the_trap_at_zero_divergence() -> None:
    """With D = 0 for ever, the high fidelity still keeps its share, so the adapter can learn and D can rise."""
    loop = Loop(4096, allocation_config())
    for _ in range(500):
        loop.update(0.0)
    assert loop.allocator.n_high == pytest.approx(0.1 * 4096, abs=16)


@pytest.mark.parametrize("num_envs", [16, 1000, 4096])
@pytest.mark.parametrize(
    ("name", "n_low_share"), [("high_only", 0.0), ("low_only", 1.0), ("fixed", 0.5), ("schedule", 0.9)]
)
def test_configurations_start_as_named(name: str, n_low_share: float, num_envs: int) -> None:
    with initialize_config_dir(str(CFG), version_base=None):
        allocator = Allocator(num_envs, parse_settings(AllocationConfig, compose(name), "allocation"))  # type: ignore[arg-type]
    assert allocator.n_low == pytest.approx(n_low_share * num_envs, abs=16.5)
    if name != "schedule":
        assert allocator.max_n_low == allocator.min_n_low == allocator.n_low  # no environment is built in vain
        allocator.update(Signals(divergence=3.0, iteration=1, num_envs=num_envs))
        assert allocator.n_low == pytest.approx(n_low_share * num_envs, abs=16.5)


def test_a_new_rule_is_one_class() -> None:
    @rule("always_third")
    @dataclass(frozen=True)
    class AlwaysThird:
        requires: ClassVar[frozenset[str]] = frozenset()

        def __call__(self, signals: Signals) -> float:
            return 1.0 / 3.0

    try:
        assert make_rule({"name": "always_third"})(Signals()) == 1.0 / 3.0
    finally:
        del RULES["always_third"]


@pytest.mark.parametrize(
    ("settings_", "parts"),
    [
        ({"rho_min": -0.1}, ("allocation.rho_min", "-0.1", "[0, 1]")),
        ({"rho_min": 0.6, "rho_max": 0.5}, ("allocation.rho_max", "0.5", "[0.6, 1]")),
        ({"warmup_rho": 0.95}, ("allocation.warmup_rho", "0.95", "[0.1, 0.9]")),
        ({"warmup_iterations": 2.5}, ("allocation.warmup_iterations", "2.5", "a whole number")),
        ({"smoothing": 1.0}, ("allocation.smoothing", "1.0", "less than 1")),
        ({"rate_limit": 0.0}, ("allocation.rate_limit", "0.0", "(0, 1]")),
        ({"rate_limit": math.nan}, ("allocation.rate_limit", "nan", "a number")),
        ({"block_size": 0}, ("allocation.block_size", "0", "at least 1")),
        ({"rule": {"name": "linear"}}, ("allocation.rule.name", "linear", "exponential, fixed")),
        ({"rule": {"name": "exponential", "alpha": -1.0}}, ("allocation.rule.alpha", "-1.0", "above 0")),
        ({"rule": {"name": "exponential", "beta": 1.0}}, ("allocation.rule.beta", "1.0", "alpha")),
        ({"rule": {"name": "fixed", "rho": True}}, ("allocation.rule.rho", "True", "a number")),
        ({"rho": 0.5}, ("allocation.rho", "0.5", "rho_min")),
    ],
)
def test_bad_settings_are_named(settings_: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        Allocator(100, parse_settings(AllocationConfig, guards() | settings_, "allocation"))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_one_environment_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="num_envs = 1"):
        Allocator(1, allocation_config())
    assert Allocator(1, allocation_config(**{**FREE, "rule": {"name": "fixed", "rho": 1.0}, "rho_min": 1.0})).n_low == 1


def configured(name: str, *overrides: str) -> AllocationConfig:
    with initialize_config_dir(str(CFG), version_base=None):
        config: AllocationConfig = parse_settings(AllocationConfig, compose(name, list(overrides)), "allocation")  # type: ignore[arg-type]
    return config


def test_switch_jumps_from_all_low_to_all_high() -> None:
    loop = Loop(100, configured("switch", "rule.at=0.3"))
    allocator = loop.allocator
    assert (allocator.n_low, allocator.max_n_low, allocator.max_n_high) == (100, 100, 100)
    assert [loop.update(0.5, progress) for progress in (0.1, 0.2, 0.3, 0.4)] == [100, 100, 0, 0]


def test_published_has_no_guard() -> None:
    """It follows exp(−4 D) at once; that it begins at 1, where there is no high data, is its trap."""
    loop = Loop(1000, configured("published", "block_size=1"))
    assert loop.allocator.n_low == 1000
    assert [loop.update(divergence) for divergence in (0.0, 0.1, 1.0, 0.0)] == [1000, 670, 18, 1000]


def write_log(path: Path, shares: list[Any]) -> str:
    path.write_text("".join(json.dumps({"iteration": i, "allocation/rho": rho}) + "\n" for i, rho in enumerate(shares)))
    return str(path)


def test_replay_has_the_shares_of_the_run_in_another_order(tmp_path: Path) -> None:
    shares = [round(0.1 + 0.01 * i, 2) for i in range(50)]
    settings_ = {"name": "replay", "file": write_log(tmp_path / "metrics.jsonl", shares)}
    replayed = [make_rule({**settings_, "seed": 3})(Signals(progress=i / 50)) for i in range(50)]
    assert replayed != shares and sorted(replayed) == shares
    assert replayed == [make_rule({**settings_, "seed": 3})(Signals(progress=(i + 0.5) / 50)) for i in range(50)]
    assert replayed != [make_rule({**settings_, "seed": 4})(Signals(progress=i / 50)) for i in range(50)]
    assert make_rule({**settings_, "seed": 3})(Signals(progress=1.0)) == replayed[-1]
    loop = Loop(100, configured("replay", f"rule.file={settings_['file']}", "rule.seed=3", "block_size=1"))
    assert loop.allocator.n_low == round(100 * replayed[0])
    assert loop.update(None, 0.02) == round(100 * replayed[1])  # without a guard in the way


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "No such file"),
        ("", "is empty"),
        ('{"allocation/rho": 0.5}\n{"iteration": 2}\n', "a line has no allocation/rho"),
        ('{"allocation/rho": 0.5}\n{"allocation/', "must be the metrics.jsonl of a run"),
        ("[1]\n", "must be the metrics.jsonl of a run"),
        ('{"allocation/rho": 1.5}\n', "1.5"),
        ('{"allocation/rho": "a"}\n', "must be the metrics.jsonl of a run"),
        ("\x00\xff", "must be the metrics.jsonl of a run"),
    ],
)
def test_what_cannot_be_replayed_is_named(text: str | None, part: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError) as error:
        make_rule({"name": "replay", "file": str(path), "seed": 0})
    assert f"allocation.rule.file={path}" in str(error.value) and part in str(error.value)
    assert "\n" not in str(error.value)


def test_replay_needs_a_file() -> None:
    with pytest.raises(ConfigError, match=r"allocation\.rule\.file=: must be the metrics\.jsonl"):
        Allocator(100, configured("replay"))
