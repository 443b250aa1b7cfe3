"""Allocation rules: how the low share follows from the divergence.

A rule is a frozen dataclass whose fields are its settings and whose ``__call__(divergence, iteration)`` returns the low
share ρ in [0, 1]. A new one is one file here, decorated with ``@rule("its_name")``, and one YAML in cfg/allocation;
every module of this package is imported, so it is found by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from dualfid_robot.settings import parse_settings, require


class AllocationRule(Protocol):
    """ρ = rule(divergence, iteration)."""

    def __call__(self, divergence: float, iteration: int) -> float:
        """Low share in [0, 1] for a divergence ≥ 0 (per action dimension) at an iteration ≥ 0."""
        ...


RULES: dict[str, type[AllocationRule]] = {}
Rule = TypeVar("Rule", bound=type[AllocationRule])


def rule(name: str) -> Callable[[Rule], Rule]:
    """Class decorator: make an allocation rule known under a name."""

    def register(cls: Rule) -> Rule:
        RULES[name] = cls
        return cls

    return register


def make_rule(settings: Mapping[str, Any]) -> AllocationRule:
    """The rule that ``settings["name"]`` names, with the other entries as its settings."""
    name = settings.get("name")
    require(name in RULES, "allocation.rule.name", name, f"one of {', '.join(sorted(RULES))}")
    parameters = {key: value for key, value in settings.items() if key != "name"}
    made: AllocationRule = parse_settings(RULES[str(name)], parameters, "allocation.rule")
    return made


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
