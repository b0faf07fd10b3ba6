"""Schemas that may take long are told by their keywords, and not by their words."""

from __future__ import annotations

import json

import pytest

from atomr_infer.runtimes.decoding.schemas import may_take_long


def of(**members: object) -> str:
    return json.dumps({"type": "object", **members})


@pytest.mark.parametrize(
    "schema",
    [
        of(description='A person.\n\nWith a "name".', title="é"),
        of(properties={"format": {"type": "string"}, "not": {}, "contains": {}}),
        of(**{"$defs": {"if": {"type": "null"}}}, items={"$ref": "#/$defs/if"}),
        of(properties={"a": {"enum": ["\\d", {"pattern": "a"}]}}),
        of(properties={"a": {"const": {"oneOf": []}, "default": {"not": {}}}}),
        of(examples=[{"allOf": []}], **{"$comment": {"format": "date"}}),
        of(properties={"default": {"$ref": "#/properties/default"}}),
        of(required=["pattern", "format"], items={"anyOf": [{"type": "null"}]}),
        "true",
    ],
)
def test_what_no_keyword_says_takes_a_moment(schema: str) -> None:
    assert not may_take_long(schema)


@pytest.mark.parametrize(
    "schema",
    [
        of(properties={"format": {"format": "date"}}),
        of(properties={"properties": {"properties": {"a": {"not": {}}}}}),
        of(properties={"a": {"anyOf": [{"type": "null"}, {"items": {"oneOf": []}}]}}),
        of(**{"$defs": {"description": {"pattern": "a"}}}),
        of(additionalProperties={"unevaluatedProperties": False}),
        of(dependentSchemas={}),
        '{"p\\u0061ttern": "a"}',
        # What is no schema where it stands is one for who refers to it.
        of(default={"pattern": "a"}, items={"$ref": "#/default"}),
        of(enum=[{"pattern": "a"}], items={"$ref": "http://a/b#/%65num/0"}),
        of(items={"$ref": "#/properties/properties/const"}),
        of(unknown={"pattern": "a"}),
        of(description="a" * 9000),
        # What cannot be read here.
        '{"type": "string"',
        '{"title": "\\ud800"}',
        "[" * 4000 + "]" * 4000,
    ],
)
def test_what_is_not_known_to_take_a_moment_may_take_long(schema: str) -> None:
    assert may_take_long(schema)
