"""JSON Schemas as the Messages API takes them for structured output.

The API wants every object closed and knows no bounds of numbers, texts and
lists.  Bounds are put into words in the description, which the model reads; a
client validates what comes, as it must with any provider.

Pure.

Source: Anthropic API, "Structured outputs", limitations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.errors import InvalidRequestError

if TYPE_CHECKING:
    from atomr_infer.model.parts import RawJson

_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)
_TABLES = ("properties", "$defs", "definitions", "patternProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_NESTED = ("items", "not")

_Schema = dict[str, object]


def closed_schema(raw: RawJson) -> RawJson:
    """Return a schema that the API takes; the same bytes where it takes them.

    Raises:
        InvalidRequestError: it is nested too deeply.

    >>> closed_schema(b'{"type":"integer","minimum":1}')
    b'{"type":"integer","description":"minimum: 1"}'
    """
    try:
        schema = msgspec.json.decode(raw, type=_Schema)
        closed = _closed(schema)
    except RecursionError as error:
        problem = "'response_format' holds a schema that is nested too deeply"
        raise InvalidRequestError(problem, param="response_format") from error
    return raw if closed == schema else msgspec.json.encode(closed)


def _closed(schema: _Schema) -> _Schema:
    closed = {name: _member(name, value) for name, value in schema.items()}
    if closed.get("type") == "object" or "properties" in closed:
        closed["additionalProperties"] = False
    bounds = [name for name in _BOUNDS if name in closed]
    if _is_unknown_minimum(closed.get("minItems")):
        bounds.append("minItems")
    if not bounds:
        return closed
    words = ", ".join(f"{name}: {_word(closed.pop(name))}" for name in bounds)
    said = closed.get("description")
    closed["description"] = f"{said} ({words})" if said else words
    return closed


def _member(name: str, value: object) -> object:
    if name in _TABLES and isinstance(value, dict):
        return {key: _nested(inner) for key, inner in value.items()}
    if name in _LISTS and isinstance(value, list):
        return [_nested(inner) for inner in value]
    return _nested(value) if name in _NESTED else value


def _nested(value: object) -> object:
    return _closed(value) if isinstance(value, dict) else value


def _is_unknown_minimum(value: object) -> bool:
    return value is not None and value not in (0, 1)


def _word(value: object) -> str:
    return msgspec.json.encode(value).decode()
