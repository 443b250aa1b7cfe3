"""Allocation rules: how the low share follows from what is measured.

A rule is a frozen dataclass. Its fields are its settings, and ``__call__(signals)`` returns the low share ρ in [0, 1].
A new one is one file here, decorated with ``@rule("its_name")``, and one YAML in cfg/allocation. Every module of this
package is imported, so the rule is found by name.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from dualfid_robot.algorithms.signals import MEASURED, Signals
from dualfid_robot.settings import parse_settings, require


class AllocationRule(Protocol):
    """ρ = rule(signals).

    Attributes:
        requires: names of the measurements (of ``Signals``) that the rule reads. Only these are made.
    """

    requires: ClassVar[frozenset[str]]

    def __call__(self, signals: Signals) -> float:
        """Low share in [0, 1]. A measurement is NaN until it has been made once."""
        ...


RULES: dict[str, type[AllocationRule]] = {}
Rule = TypeVar("Rule", bound=type[AllocationRule])


def rule(name: str) -> Callable[[Rule], Rule]:
    """Class decorator: make an allocation rule known under a name."""

    def register(cls: Rule) -> Rule:
        assert cls.requires <= MEASURED, f"{name} requires unknown signals: {sorted(cls.requires - MEASURED)}"
        RULES[name] = cls
        return cls

    return register


def make_rule(settings: Mapping[str, Any]) -> AllocationRule:
    """The rule that ``settings["name"]`` names, with the other entries as its settings."""
    name = settings.get("name")
    require(name in tuple(RULES), "allocation.rule.name", name, f"one of {', '.join(sorted(RULES))}")
    parameters = {key: value for key, value in settings.items() if key != "name"}
    made: AllocationRule = parse_settings(RULES[str(name)], parameters, "allocation.rule")
    return made


for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
