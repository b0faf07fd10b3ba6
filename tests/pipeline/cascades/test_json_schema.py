"""Whether an answer has the form that was asked for."""

from __future__ import annotations

import time

import pytest

from atomr_infer.pipeline.cascades.json_schema import problems

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": ["integer", "null"]},
                "inner": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    ("value", "schema", "found"),
    [
        (1, True, []),
        (1, False, ["$ is not allowed"]),
        (True, {"type": "integer"}, ["$ is no integer"]),
        (2.0, {"type": "integer"}, []),
        (10**400, {"type": "integer"}, []),
        ("x", {"type": ["integer", "null"]}, ["$ is no integer or null"]),
        ("x", {"type": "colour"}, []),
        ("red", {"enum": ["red"]}, []),
        (1, {"enum": [True]}, ["$ is none of the values that it may be"]),
        (1, {"const": 2}, ["$ is not the value that it must be"]),
        (3, {"minimum": 3, "exclusiveMaximum": 3}, ["$ breaks exclusiveMaximum: 3"]),
        ("abc", {"maxLength": 2}, ["$ breaks maxLength: 2"]),
        ([], {"minItems": 1}, ["$ breaks minItems: 1"]),
        ([1, 2], {"prefixItems": [{}], "items": {"type": "null"}}, ["$[1] is no null"]),
        ({}, {"required": ["a"]}, ["$ lacks 'a'"]),
        ({"b": 1}, {"additionalProperties": False}, ["$.b is not allowed"]),
        (1, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, []),
        (1, {"anyOf": [{"type": "string"}]}, ["$ is none of the forms that it may be"]),
        (1, {"oneOf": [{}, {}]}, ["$ is not one of the forms that it may be"]),
        (1, {"allOf": [{"minimum": 2}]}, ["$ breaks minimum: 2"]),
        ({"value": 1, "inner": [{"value": None}]}, TREE, []),
        ({"value": 1, "inner": [{"valu": 2}]}, TREE,
         ["$.inner[0] lacks 'value'", "$.inner[0].valu is not allowed"]),
        (1, {"type": [["integer"], {}]}, []),
        ({}, {"required": [["a"], {}, 1]}, []),
        (1, {"$ref": "#/nowhere"}, []),
        (1, {"$ref": "https://elsewhere.test/schema"}, []),
    ],
)  # fmt: skip
def test_a_value_is_held_against_its_schema(
    value: object, schema: object, found: list[str]
) -> None:
    assert list(problems(value, schema)) == found


def test_a_schema_that_refers_to_itself_twice_ends_soon() -> None:
    # Every step makes two more: a client could keep the gateway busy for ever.
    bad = {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 2}}}

    began = time.process_time()
    assert list(problems(1, bad)) == []
    assert time.process_time() - began < 5.0
