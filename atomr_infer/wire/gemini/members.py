"""Read objects whose members Google takes in two spellings.

Protocol buffers' JSON accepts ``generationConfig`` and ``generation_config``
alike, and clients send both.  Everything behind this module sees the first.
Only the API's own objects are read so: the arguments of a tool, a schema's
properties and labels are the user's, and keep their names.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from atomr_infer.wire.fields import Fields

if TYPE_CHECKING:
    from msgspec import Raw

_UNDERSCORE = re.compile(r"(?<=[a-z0-9])_+([a-z0-9])")


def camel(name: str) -> str:
    """Return a member's name in the API's spelling.

    >>> camel("top_k"), camel("topK")
    ('topK', 'topK')
    """
    if "_" not in name:
        return name
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def fields_of(raw: Raw, param: str) -> Fields:
    """Return a nested object.

    Raises:
        InvalidRequestError: it is none; ``param`` is its place.
    """
    return Fields.of(raw, param).renamed(camel)


def fields_of_body(body: bytes, *, wanted: str) -> Fields:
    """Return the root object of a request.

    Raises:
        InvalidRequestError: the body is no JSON object.
    """
    return Fields.of_body(body, wanted=wanted).renamed(camel)


def nested(fields: Fields, name: str) -> Fields | None:
    """Take an object; None when it is absent or null."""
    raw = fields.raw(name)
    return None if raw is None else fields_of(raw, fields.path(name))
