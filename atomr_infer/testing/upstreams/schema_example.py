"""The plainest value that fits a JSON Schema: what a fake answers when asked for one.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonValue = Any
"""A JSON value, decoded; it has no narrower type."""

_PLAIN: dict[str, JsonValue] = {
    "string": "text",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "null": None,
}


def example_of(
    schema: Mapping[str, Any], root: Mapping[str, Any] | None = None
) -> JsonValue:
    """Return a value that fits ``schema``.

    It understands what structured outputs allow: types, ``enum``, ``const``,
    ``anyOf``, ``allOf`` of one, ``$ref`` inside the schema, objects with all of
    their properties, arrays of ``minItems``, at least one.  Gemini's upper-case
    types are types too.

    Args:
        schema: the schema.
        root: what ``$ref`` looks in; None: ``schema``.

    >>> example_of({"type": "object", "properties": {"n": {"type": "INTEGER"}}})
    {'n': 1}
    """
    root = schema if root is None else root
    if "$ref" in schema:
        return example_of(_resolve(schema["$ref"], root), root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return example_of(schema[union][0], root)
    return _of_type(schema, root)


def _of_type(schema: Mapping[str, Any], root: Mapping[str, Any]) -> JsonValue:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    name = str(kind[0] if isinstance(kind, list) else kind).lower()
    if name == "object":
        properties = schema.get("properties") or {}
        return {key: example_of(part, root) for key, part in properties.items()}
    if name == "array":
        item = example_of(schema.get("items") or {}, root)
        return [item] * max(1, schema.get("minItems", 1))
    return _PLAIN[name]


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        found = found[name] if name else found
    if not isinstance(found, Mapping):
        raise TypeError(f"{reference} is no schema")
    return found
