"""Metadata survives its file to the last digit, and nothing but itself is taken for it."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualfid_robot.errors import ConfigError
from dualfid_robot.onboard.metadata import SCHEMA_VERSION, Metadata
from dualfid_robot.onboard.schema import json_schema

ROOT = Path(__file__).parents[2]

_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_INTEGERS = st.integers(-sys.maxsize, sys.maxsize)  # what the program counts
_LEAVES = {float: _FLOATS, int: _INTEGERS, str: st.text(), bool: st.booleans(), Any: _JSON, type(None): st.none()}


def values_of(expected: Any) -> st.SearchStrategy[Any]:
    """Any value of a type of the metadata."""
    if expected in _LEAVES:
        return _LEAVES[expected]
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        return st.lists(values_of(inner[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(st.text(), values_of(inner[1]), max_size=3)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values_of, inner))
    hints = typing.get_type_hints(expected)
    fields = {name: values_of(hint) for name, hint in hints.items()}
    if expected is Metadata:
        fields["schema_version"] = st.just(SCHEMA_VERSION)
    return st.builds(expected, **fields)


METADATA = values_of(Metadata)
_SLOW_DATA = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


@_SLOW_DATA
@given(METADATA)
def test_what_is_written_is_read_to_the_last_digit(metadata: Metadata) -> None:
    read = Metadata.from_json(metadata.to_json(), "policy")
    assert read == metadata
    assert repr(read) == repr(metadata)  # the sign of zero too


def one() -> dict[str, Any]:
    """Some metadata as a mapping."""
    leaves: dict[Any, Any] = {float: 0.1, int: 2, str: "text", bool: True, Any: [1]}

    def build(expected: Any) -> Any:
        if expected in leaves:
            return leaves[expected]
        origin, inner = typing.get_origin(expected), typing.get_args(expected)
        if origin is typing.Literal:
            return inner[0]
        if origin is tuple:
            return [build(inner[0])]
        if origin is dict:
            return {"key": build(inner[1])}
        if origin in (typing.Union, types.UnionType):
            return build(inner[0])
        return {name: build(hint) for name, hint in typing.get_type_hints(expected).items()}

    values: dict[str, Any] = build(Metadata) | {"schema_version": SCHEMA_VERSION}
    return values


def mappings(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all mappings that stand for a dataclass of the metadata."""
    free = {("training", "engines"), ("training", "versions"), ("training", "calibration"), ("evaluations",)}
    if path in free or (len(path) == 3 and path[0] == "evaluations" and path[2] == "simulator"):
        return [] if path != ("evaluations",) else mappings(values["key"], ("evaluations", "key"))
    if isinstance(values, dict):
        return [path, *(found for key, value in values.items() for found in mappings(value, (*path, key)))]
    if isinstance(values, list):
        return [found for i, value in enumerate(values) for found in mappings(value, (*path, i))]
    return []


@pytest.mark.parametrize("path", mappings(one()), ids=lambda path: ".".join(map(str, path)) or "top")
def test_a_missing_key_and_an_added_one_are_refused_wherever_they_are(path: tuple[Any, ...]) -> None:
    Metadata.from_json(json.dumps(one()), "policy")
    for change in ("lacks", "adds"):
        values = one()
        place = values
        for key in path:
            place = place[key]
        key = "extra" if change == "adds" else next(name for name in place if name != "schema_version")
        if change == "adds":
            place["extra"] = 1
        else:
            del place[key]
        with pytest.raises(ConfigError) as refused:
            Metadata.from_json(json.dumps(values), "policy.onnx")
        assert "policy.onnx" in str(refused.value) and key in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_is_refused_before_anything_else(version: object) -> None:
    with pytest.raises(ConfigError, match=f"schema_version={version}: this version reads {SCHEMA_VERSION}"):
        Metadata.from_json(json.dumps({"schema_version": version}), "policy")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"schema_version": 1'])
def test_what_is_no_metadata_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Metadata.from_json(text, "policy")


@given(st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_numbers_that_json_lacks_are_not_written(value: float) -> None:
    metadata = Metadata.from_json(json.dumps(one()), "policy")
    timing = dataclasses.replace(metadata.timing, control_dt=value)
    with pytest.raises(ValueError, match="JSON compliant"):
        dataclasses.replace(metadata, timing=timing).to_json()


def test_the_published_schema_is_that_of_the_types() -> None:
    published = json.loads((ROOT / "docs" / "policy_format.schema.json").read_text())
    assert published == json_schema()


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "policy_format.md").read_text()

    def keys(schema: dict[str, Any]) -> set[str]:
        inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
        inner += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
        return set(schema.get("properties", {})).union(*map(keys, inner))

    missing = {key for key in keys(json_schema()) if f"`{key}`" not in text}
    assert not missing
