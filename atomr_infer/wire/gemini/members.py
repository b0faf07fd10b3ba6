"""Read objects whose members Google takes in two spellings.

Protocol buffers' JSON accepts ``generationConfig`` and ``generation_config``
alike, and clients send both.  Everything behind this module sees the first.
Only the API's own objects are read so: the arguments of a tool, a schema's
properties and labels are the user's, and keep their names.

Pure.
"""

from __future__ import annotations

import re

from msgspec import Raw

from atomr_infer.wire.fields import Fields, decode

_UNDERSCORE = re.compile(r"(?<=[a-z0-9])_+([a-z0-9])")


def camel(name: str) -> str:
    """Return a member's name in the API's spelling.

    >>> camel("top_k"), camel("topK")
    ('topK', 'topK')
    """
    return _UNDERSCORE.sub(lambda match: match[1].upper(), name)


def fields_of(raw: Raw, param: str) -> Fields:
    """Return a nested object.

    Raises:
        InvalidRequestError: it is none; ``param`` is its place.
    """
    members = decode(param, raw, dict[str, Raw], wanted="an object")
    return Fields({camel(name): value for name, value in members.items()}, param)


def fields_of_body(body: bytes, *, wanted: str) -> Fields:
    """Return the root object of a request.

    Raises:
        InvalidRequestError: the body is no JSON object.
    """
    members = Fields.of_body(body, wanted=wanted).rest()
    return Fields({camel(name): Raw(value) for name, value in members.items()})


def nested(fields: Fields, name: str) -> Fields | None:
    """Take an object; None when it is absent or null."""
    raw = fields.raw(name)
    return None if raw is None else fields_of(raw, fields.path(name))
