"""Rules against hand-computed numbers; guards as properties of any sequence of divergences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfid_robot.algorithms.allocation import AllocationConfig, Allocator
from dualfid_robot.algorithms.rules import RULES, make_rule, rule
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings

CFG = Path(__file__).parents[2] / "cfg" / "allocation"
FREE = {"rho_min": 0.0, "rho_max": 1.0, "warmup_iterations": 0, "smoothing": 0.0, "rate_limit": 1.0, "block_size": 1}


@pytest.mark.parametrize(
    ("settings_", "divergence", "iteration", "expected"),
    [
        ({"name": "exponential", "alpha": 0.5}, 0.0, 0, 1.0),
        ({"name": "exponential", "alpha": 0.5}, 2.0, 0, 0.36787944),
        ({"name": "exponential", "alpha": 0.5}, 1.8, 9, 0.40656966),
        ({"name": "inverse_sigmoid", "alpha": 1.0, "k": 3.0}, 0.0, 0, 0.75),
        ({"name": "inverse_sigmoid", "alpha": 2.0, "k": 3.0}, math.log(3.0) / 2.0, 0, 0.5),
        ({"name": "inverse_sigmoid", "alpha": 1.0, "k": 3.0}, math.log(9.0), 0, 0.25),
        ({"name": "inverse_sigmoid", "alpha": 17.0, "k": 20.0}, 1e9, 0, 0.0),
        ({"name": "fixed", "rho": 0.3}, 5.0, 7, 0.3),
        ({"name": "schedule", "start": 0.9, "end": 0.1, "iterations": 10}, 5.0, 0, 0.9),
        ({"name": "schedule", "start": 0.9, "end": 0.1, "iterations": 10}, 5.0, 5, 0.5),
        ({"name": "schedule", "start": 0.9, "end": 0.1, "iterations": 10}, 5.0, 99, 0.1),
    ],
)
def test_rules_by_hand(settings_: dict[str, Any], divergence: float, iteration: int, expected: float) -> None:
    assert make_rule(settings_)(divergence, iteration) == pytest.approx(expected, abs=1e-8)


def test_allocator_by_hand() -> None:
    """N = 100, exp(−D), blocks of 10, change ≤ 0.1, D smoothed by ½, two warm-up iterations at 0.5."""
    config = AllocationConfig(
        rule={"name": "exponential", "alpha": 1.0},
        warmup_iterations=2,
        smoothing=0.5,
        rate_limit=0.1,
        block_size=10,
    )
    allocator = Allocator(100, config)
    assert allocator.n_low == 50
    assert allocator.update(0.2) == 50  # D = 0.2, second warm-up iteration
    assert allocator.update(0.4) == 60  # D = 0.3, target 0.741, ρ = 0.6
    assert allocator.update(0.3) == 70  # D = 0.3, target 0.741, ρ = 0.7
    assert allocator.update(None) == 70  # no measurement: D stands; ρ = 0.741
    assert allocator.rho == pytest.approx(math.exp(-0.3))
    assert allocator.update(4.0) == 60  # D = 2.15, target 0.1165, ρ = 0.641
    assert allocator.metrics() == pytest.approx(
        {
            "allocation/rho": math.exp(-0.3) - 0.1,
            "allocation/rho_target": math.exp(-2.15),
            "allocation/n_low": 60.0,
            "allocation/n_high": 40.0,
            "allocation/divergence_smoothed": 2.15,
        }
    )


configs = st.builds(
    lambda rho_min, width, warmup, where, smoothing, rate, block, name: AllocationConfig(
        rule={"name": name},
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
    st.sampled_from(["exponential", "inverse_sigmoid", "schedule", "fixed"]),
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
    allocator = Allocator(num_envs, config)
    previous = allocator.rho
    for divergence in [None, *sequence]:
        n_low = allocator.update(divergence)
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
    allocator, resumed = Allocator(num_envs, config), Allocator(num_envs, config)
    for divergence in before:
        allocator.update(divergence)
    resumed.load_state_dict(allocator.state_dict())
    assert resumed.n_low == allocator.n_low
    for divergence in after:
        assert resumed.update(divergence) == allocator.update(divergence)
    assert resumed.state_dict() == allocator.state_dict()


def test_the_loop_leaves_the_trap_at_zero_divergence() -> None:
    """With D = 0 for ever, the high fidelity still keeps its share, so the adapter can learn and D can rise."""
    allocator = Allocator(4096, AllocationConfig())
    for _ in range(500):
        allocator.update(0.0)
    assert allocator.n_high == pytest.approx(0.1 * 4096, abs=16)


def test_divergence_may_be_a_tensor_but_not_nan() -> None:
    allocator = Allocator(100, AllocationConfig())
    allocator.update(torch.tensor(0.25))
    assert allocator.state_dict()["divergence"] == 0.25
    with pytest.raises(FloatingPointError, match="nan"):
        allocator.update(math.nan)


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
        allocator.update(3.0)
        assert allocator.n_low == pytest.approx(n_low_share * num_envs, abs=16.5)


def test_every_rule_has_a_configuration_and_its_defaults() -> None:
    with initialize_config_dir(str(CFG), version_base=None):
        for name in RULES:
            config = parse_settings(AllocationConfig, compose(name), "allocation")  # type: ignore[arg-type]
            assert make_rule(config.rule) == make_rule({"name": name})
        exponential = parse_settings(AllocationConfig, compose("exponential"), "allocation")  # type: ignore[arg-type]
    defaults = AllocationConfig()
    for key in ("rho_min", "rho_max", "warmup_iterations", "warmup_rho", "smoothing", "rate_limit", "block_size"):
        assert getattr(exponential, key) == getattr(defaults, key)


def test_a_new_rule_is_one_class() -> None:
    @rule("always_third")
    @dataclass(frozen=True)
    class AlwaysThird:
        def __call__(self, divergence: float, iteration: int) -> float:
            return 1.0 / 3.0

    try:
        assert make_rule({"name": "always_third"})(0.0, 0) == 1.0 / 3.0
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
        ({"rule": {"name": "linear"}}, ("allocation.rule.name", "linear", "exponential, fixed, inverse_sigmoid")),
        ({"rule": {"name": "exponential", "alpha": -1.0}}, ("allocation.rule.alpha", "-1.0", "(0, inf]")),
        ({"rule": {"name": "exponential", "beta": 1.0}}, ("allocation.rule.beta", "1.0", "alpha")),
        ({"rule": {"name": "fixed", "rho": True}}, ("allocation.rule.rho", "True", "a number")),
        ({"rho": 0.5}, ("allocation.rho", "0.5", "rho_min")),
    ],
)
def test_bad_settings_are_named(settings_: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        Allocator(100, parse_settings(AllocationConfig, settings_, "allocation"))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_one_environment_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="num_envs = 1"):
        Allocator(1, AllocationConfig())
    assert Allocator(1, AllocationConfig(**{**FREE, "rule": {"name": "fixed", "rho": 1.0}, "rho_min": 1.0})).n_low == 1
