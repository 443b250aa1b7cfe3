"""Checks of settings, with one form of message."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from dualfid_robot.errors import ConfigError

Settings = TypeVar("Settings")


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ConfigError naming the key, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key} = {value!r}: must be {allowed}")


def require_number(key: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    """Raise ConfigError unless value is a number in [low, high], or in (low, high] with ``open_low``."""
    allowed = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(is_number, key, value, allowed)
    assert isinstance(value, (int, float))
    require((low < value if open_low else low <= value) and value <= high, key, value, allowed)


def require_integer(key: str, value: object, low: int) -> None:
    """Raise ConfigError unless value is an integer of at least ``low``."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    require(is_integer and value >= low, key, value, f"an integer of at least {low}")  # type: ignore[operator]


def from_mapping(cls: type[Settings], mapping: Mapping[str, Any], where: str) -> Settings:
    """A settings dataclass from a mapping whose keys are its fields; ConfigError for an unknown or missing key."""
    assert dataclasses.is_dataclass(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for key in mapping:
        require(key in fields, f"{where}.{key}", mapping[key], f"one of the keys {', '.join(fields)}")
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in mapping:
            raise ConfigError(f"{where}.{name} is missing: {cls.__name__} needs {', '.join(fields)}")
    return cls(**mapping)
