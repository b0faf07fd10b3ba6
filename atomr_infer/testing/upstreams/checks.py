"""Checks that each dialect's reader makes on a request's members.

A check raises :class:`Invalid` with the name of the member and what is wrong
with it; the reader makes the provider's own refusal of that.

Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence

import msgspec

from atomr_infer.testing.upstreams.call import Media, Members


class Invalid(Exception):  # noqa: N818 - a request that is invalid, not our error
    """A request that the provider refuses.

    Attributes:
        param: the member at fault, as the provider writes it; None: the body.
        message: the provider's words.
        code: the provider's code; None: it has none.
        status: the HTTP status.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


def decode_object(body: bytes) -> Members:
    """Return the members of a body.

    Raises:
        Invalid: it is not a JSON object.
    """
    try:
        members = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("The body is not valid JSON") from error
    if not isinstance(members, dict):
        raise Invalid("The body is not a JSON object")
    return members


def type_name(value: object) -> str:
    """Return JSON's name of a value's type.

    >>> [type_name(v) for v in (None, True, 1, 1.5, "", [], {})]
    ['null', 'boolean', 'integer', 'decimal', 'string', 'array', 'object']
    """
    names: dict[type, str] = {
        type(None): "null",
        bool: "boolean",
        int: "integer",
        float: "decimal",
        str: "string",
        list: "array",
        dict: "object",
    }
    return names[type(value)]


def is_number(value: object) -> bool:
    """Whether a JSON value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object, *, least: int = 1) -> bool:
    """Whether a JSON value is a whole number of at least so much."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def objects(value: object) -> Sequence[Members]:
    """Return the objects of an array; what is no array has none."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, Mapping)]


def decode_base64(encoded: object) -> bytes:
    """Return what base64 text holds.

    Raises:
        Invalid: it is not base64.
    """
    try:
        return base64.b64decode(str(encoded), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Invalid("Invalid base64 data") from error


def inline_media(media_type: str, encoded: object) -> Media:
    """Return what base64 text holds, as a part of a prompt.

    Raises:
        Invalid: it is not base64.
    """
    return Media(media_type, len(decode_base64(encoded)))


def media_of_url(url: str) -> Media:
    """Return what an address holds: a ``data:`` URL's bytes, or nothing known.

    Raises:
        Invalid: a ``data:`` URL is not base64.

    >>> media_of_url("data:image/png;base64,AAAA")
    Media(type='image/png', size_bytes=3, url=None)
    >>> media_of_url("https://example.org/a.png").url
    'https://example.org/a.png'
    """
    head, comma, encoded = url.partition(",")
    if not head.startswith("data:") or not comma:
        return Media("", url=url)
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if encoding != "base64":
        raise Invalid("Invalid data URL")
    return inline_media(media_type, encoded)


def sniffed(data: bytes) -> str | None:
    """Return the media type that a picture's first bytes say; None: no picture.

    >>> sniffed(b"GIF89a...")
    'image/gif'
    """
    for prefix, media_type in _MAGIC.items():
        if data.startswith(prefix):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


_MAGIC: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"%PDF-": "application/pdf",
}
