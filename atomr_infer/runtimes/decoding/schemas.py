"""JSON Schemas that llguidance keeps answers to: how they are read, and which are slow.

ONNX Runtime's answers and mistral.rs's are kept to schemas by the same library.  What
it works out before the first token takes a moment for most schemas, and without end
for a few.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

ANY_OBJECT = '{"type": "object"}'

BLANKS = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
"""On one line, as most JSON is that a model was shown in answers: one that likes blanks
would write them until its answer is full, and a small one at odd places."""

_SURE_BYTES = 8 * 1024
"""So few can be worked out in a moment, unless a keyword of these is among them: what
is the case for two rules at once is looked for among all combinations of their
parts."""

_UNSURE = re.compile(
    r"allOf|oneOf|not|if|dependent\w*|pattern\w*|propertyNames|format|contains"
    r"|unevaluated\w*|\$dynamicRef|multipleOf"
)

_BY_NAME = frozenset({"properties", "$defs", "definitions", "dependencies"})
"""What is in these has names of the client's own, and schemas behind them."""

_NO_SCHEMA = frozenset(
    {"title", "description", "$comment", "default", "examples", "enum", "const"}
)
"""What is in these may be anything, and is no schema."""


def may_take_long(schema: str) -> bool:
    r"""Whether a schema may take more than a moment to be worked out.

    One that cannot be read here may: nothing is known of it.

    >>> may_take_long('{"type": "string"}'), may_take_long('{"pattern": "^a+$"}')
    (False, True)
    >>> may_take_long('{"properties": {"pattern": {"description": "one\\n"}}}')
    False
    """
    if len(schema) > _SURE_BYTES:
        return True
    try:
        root = msgspec.json.decode(schema)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return True
    return any(
        _UNSURE.fullmatch(keyword) or (keyword == "$ref" and _leaves_schemas(value))
        for keyword, value in _keywords(root)
    )


def _keywords(root: object) -> Iterator[tuple[str, Any]]:
    """Yield each keyword of a schema and of those in it, with what is behind it."""
    left = [root]
    while left:
        schema = left.pop()
        if isinstance(schema, list):
            left += schema
        if not isinstance(schema, dict):
            continue
        for keyword, value in schema.items():
            yield keyword, value
            if keyword in _BY_NAME and isinstance(value, dict):
                left += value.values()
            elif keyword not in _NO_SCHEMA:
                left.append(value)


def _leaves_schemas(reference: object) -> bool:
    """Whether a reference makes a schema of what is none elsewhere."""
    _, _, pointer = unquote(str(reference)).partition("#")
    parts = iter(pointer.split("/")[1:])
    for part in parts:
        if part in _BY_NAME:
            next(parts, None)
        elif part in _NO_SCHEMA:
            return True
    return False
