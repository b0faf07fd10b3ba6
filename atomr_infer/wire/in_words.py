"""Ask for JSON in words, where a model has no member for it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr_infer.model.parts import RawJson

_OBJECT = "Answer with one JSON object and nothing else: no prose, no code fence."

WARNING = "the response format was asked for in words"
"""What the client is told of it."""


def json_in_words(schema: RawJson | None = None) -> str:
    """Return the instruction.

    Args:
        schema: the JSON Schema that the answer must match; None: any object.
    """
    if schema is None:
        return _OBJECT
    return f"{_OBJECT} It must match this JSON Schema: {schema.decode()}"
