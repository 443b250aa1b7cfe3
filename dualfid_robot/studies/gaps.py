"""What a gap between the two simulators (a file of cfg/gap) changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Sides = Literal["low", "high", "both", "price"]
_OF_SIDES = ("simulator", "low_reward_factor")


def changed_sides(gap: Mapping[str, Any], plain: Mapping[str, Any]) -> Sides:
    """The side that a gap changes. A run that uses only the other side is the same with and without the gap.

    A gap that leaves E_high alone is on the low side, even if it names the present E_low. One that changes only prices
    changes what runs cost, and not what they can learn.

    Args:
        gap: a configuration with the gap, resolved to plain values.
        plain: the same without.
    """

    def differs(read: Any) -> bool:
        return bool(read(gap) != read(plain))

    if differs(lambda settings: settings) and not differs(_without_prices):
        return "price"

    if differs(lambda settings: {key: value for key, value in settings.items() if key not in _OF_SIDES}):
        return "both"
    if not differs(lambda settings: settings["simulator"]["high"]):
        return "low"
    low = differs(lambda settings: (settings["simulator"]["low"], settings.get("low_reward_factor")))
    return "both" if low else "high"


def _without_prices(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration but for what a second of its engines and its learner costs."""
    simulator = settings["simulator"]
    low = {name: {**engine, "price": None} for name, engine in simulator["low"].items()}
    return {**settings, "learner_price": None, "simulator": {"low": low, "high": {**simulator["high"], "price": None}}}
