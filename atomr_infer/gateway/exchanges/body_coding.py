"""Undo a request body's ``content-encoding``, within a bound.

A few bytes can unfold to gigabytes, so no more than the bound is ever unfolded.

Pure.

Source: RFC 9110, 8.4.
"""

from __future__ import annotations

import zlib

_GZIP = 16 + zlib.MAX_WBITS
_EITHER = 32 + zlib.MAX_WBITS

_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _EITHER}


class UnknownCodingError(Exception):
    """The encoding is none that is taken; the message names it."""


class BadCodingError(Exception):
    """The bytes are not what their encoding says."""


class UnfoldsTooFarError(Exception):
    """The body is larger than the bound once it is unfolded."""


def decoded(body: bytes, coding: str | None, *, limit_bytes: int) -> bytes:
    """Return a body without its encoding.

    Args:
        body: as it was received.
        coding: the ``content-encoding``; None: none.
        limit_bytes: the largest that is taken.

    Raises:
        UnknownCodingError: it is not gzip, deflate or identity.
        BadCodingError: the bytes are broken or end too early.
        UnfoldsTooFarError: it is larger.

    >>> import gzip
    >>> decoded(gzip.compress(b"{}"), "gzip", limit_bytes=10)
    b'{}'
    """
    name = (coding or "identity").strip().lower()
    if name == "identity":
        return body
    if name not in _WINDOWS:
        raise UnknownCodingError(f"the content-encoding {name[:60]!r} is not taken")
    unfolding = zlib.decompressobj(wbits=_WINDOWS[name])
    try:
        plain = unfolding.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise BadCodingError(f"the body is no {name}: {error}") from error
    if len(plain) > limit_bytes:
        raise UnfoldsTooFarError
    if not unfolding.eof or unfolding.unused_data:
        raise BadCodingError(f"the body is not one whole {name} stream")
    return plain
