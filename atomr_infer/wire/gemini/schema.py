"""A schema in Google's older spelling (OpenAPI 3.0), as JSON Schema.

Types are upper-case there, ``nullable`` stands for a type of its own, and
numbers of items may be strings, as protocol buffers write 64-bit integers.

Pure.

Source: Gemini API reference, "Schema".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.wire.fields import decode, invalid
from atomr_infer.wire.gemini.members import camel

if TYPE_CHECKING:
    from atomr_infer.model.parts import RawJson

_COUNTS = frozenset(
    {
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
    }
)
_MAPS = frozenset({"properties", "$defs"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset({"items", "not", "additionalProperties"})
_DIGITS = re.compile("[0-9]{1,18}")
# Google's order of properties is a hint to its own models, and no JSON Schema.
_DROPPED = frozenset({"nullable", "propertyOrdering", "example"})
_RENAMED = {"defs": "$defs", "ref": "$ref"}
_MAX_DEPTH = 200

_Schema = dict[str, Any]


def json_schema(raw: RawJson, param: str) -> RawJson:
    """Return an OpenAPI schema as JSON Schema.

    Raises:
        InvalidRequestError: it is no schema; ``param`` names it.

    >>> json_schema(b'{"type":"STRING","nullable":true}', "s")
    b'{"type":["string","null"]}'
    """
    schema = decode(param, msgspec.Raw(raw), dict[str, Any], wanted="a schema")
    return msgspec.json.encode(_converted(schema, param=param, depth=_MAX_DEPTH))


def _converted(schema: object, *, param: str, depth: int) -> object:
    if not isinstance(schema, dict):
        raise invalid(param, "must be a schema: an object")
    if not depth:
        raise invalid(param, "is nested too deeply")
    members = {camel(name): value for name, value in schema.items()}
    converted: _Schema = {}
    for name, value in members.items():
        if name not in _DROPPED:
            told = _RENAMED.get(name, name)
            converted[told] = _member(told, value, param=param, depth=depth - 1)
    return _with_null(converted) if members.get("nullable") is True else converted


def _member(name: str, value: object, *, param: str, depth: int) -> object:
    if name == "type" and isinstance(value, str):
        return value.lower()
    if name in _MAPS and isinstance(value, dict):
        parts = value.items()
        return {k: _converted(part, param=param, depth=depth) for k, part in parts}
    if name in _LISTS and isinstance(value, list):
        return [_converted(part, param=param, depth=depth) for part in value]
    if name in _SCHEMAS and isinstance(value, dict):
        return _converted(value, param=param, depth=depth)
    if name in _COUNTS and isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    return value


def _with_null(schema: _Schema) -> _Schema:
    kind = schema.get("type")
    if isinstance(kind, str):
        schema["type"] = [kind, "null"]
        if isinstance(schema.get("enum"), list):
            schema["enum"] = [*schema["enum"], None]
    elif isinstance(schema.get("anyOf"), list):
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
