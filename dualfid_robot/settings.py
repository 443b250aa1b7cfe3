"""Settings: a mapping from a YAML file or the command line becomes a typed dataclass or one clear error."""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dualfid_robot.errors import ConfigError, KeysError

_TYPES = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", dict: "a mapping"}


def parse_settings(cls: type, settings: Mapping[str, Any], where: str) -> Any:
    """Build the dataclass `cls` from a mapping, refusing unknown keys, missing ones and values of another type.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    types_ = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        key = f"{where}.{unknown[0]}={settings[unknown[0]]}"
        raise KeysError(f"{key}: no such setting; {alternatives(str(unknown[0]), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in settings:
            raise KeysError(f"{where}.{name}: is required")
    values = {key: _checked(value, types_[key], f"{where}.{key}") for key, value in settings.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from error


def alternatives(name: str, known: Iterable[str]) -> str:
    """What an unknown name may have meant, else every name that there is."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"allowed are {sorted(known)}"


def counted(number: int, noun: str) -> str:
    """A number of things in words, such as "1 joint" or "2 joints"."""
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _checked(value: Any, expected: Any, key: str) -> Any:
    origin = typing.get_origin(expected)
    if origin is typing.Literal:
        if value not in typing.get_args(expected):
            raise ConfigError(f"{key}={value}: allowed are {list(typing.get_args(expected))}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _checked_union(value, typing.get_args(expected), key)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ConfigError(f"{key}={value}: a list is expected")
        return tuple(_checked(item, typing.get_args(expected)[0], key) for item in value)
    if dataclasses.is_dataclass(expected):
        return parse_settings(typing.cast(type, expected), require_mapping(key, value), key)
    if origin is dict or origin is Mapping:
        if isinstance(value, Mapping):
            return {name: _checked(item, typing.get_args(expected)[1], f"{key}.{name}") for name, item in value.items()}
        expected = origin
    if expected is Any:
        return value
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise ConfigError(f"{key}={value}: must be from {-sys.maxsize} to {sys.maxsize}")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{key}={value}: a number is expected")
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ConfigError(f"{key}={value}: {_TYPES.get(expected, expected.__name__)} is expected")
    return value


def _checked_union(value: Any, options: tuple[Any, ...], key: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is not type(None):
            try:
                return _checked(value, option, key)
            except ConfigError as error:
                errors.append(str(error))
    raise ConfigError("; or ".join([errors[0], *(text.removeprefix(f"{key}={value}: ") for text in errors[1:])]))


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise ConfigError naming the key, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value}: must be {allowed}")


def require_mapping(key: str, value: object) -> Mapping[str, Any]:
    """A mapping.

    Raises:
        ConfigError: value is something else.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}={value}: a mapping is expected")
    return value


def require_number(key: str, value: Any, low: float, high: float, *, open_low: bool = False) -> float:
    """A finite number in [low, high], or in (low, high] with `open_low`; True is none.

    Raises:
        ConfigError: value is another one, or no number.
    """
    if low == -math.inf:
        allowed = "a number"
    elif high == math.inf:
        allowed = f"a number {'above' if open_low else 'of at least'} {low:g}"
    else:
        allowed = f"a number in {'(' if open_low else '['}{low:g}, {high:g}]"
    finite = is_number(value) and abs(value) <= sys.float_info.max
    require(finite and (low < value if open_low else low <= value) and value <= high, key, value, allowed)
    return float(value)


def require_integer(key: str, value: Any, low: int, high: int | None = None) -> int:
    """A whole number of at least `low` and, where that is given, at most `high`; True is none.

    Raises:
        ConfigError: value is another one, or no whole number.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if high is None and whole and value > sys.maxsize:
        high = sys.maxsize
    allowed = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    require(whole and low <= value and (high is None or value <= high), key, value, allowed)
    return int(value)


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float, NaN included; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
