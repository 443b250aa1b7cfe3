"""The metadata's JSON Schema, from its types: `python -m dualfid_robot.onboard.schema`."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from dualfid_robot.onboard.metadata import SCHEMA_VERSION, Metadata

_SIMPLE = {float: "number", int: "integer", str: "string", bool: "boolean", type(None): "null"}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of policy.json."""
    schema = _schema_of(Metadata)
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": "Metadata of a policy exported by dualfid_robot"} | schema


def _schema_of(expected: Any) -> dict[str, Any]:
    if expected is Any:
        return {}
    if expected in _SIMPLE:
        return {"type": _SIMPLE[expected]}
    origin, inner = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        return {"type": "array", "items": _schema_of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema_of(inner[1])}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(option) for option in inner]}
    hints = typing.get_type_hints(expected)
    names = [field.name for field in dataclasses.fields(expected)]
    properties = {name: _schema_of(hints[name]) for name in names}
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))
