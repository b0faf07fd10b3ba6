"""The answers of ``:countTokens``, written and read.

Pure.
"""

from __future__ import annotations

import msgspec


def counted(tokens: int) -> bytes:
    """Return the answer of ``:countTokens``."""
    details = [{"modality": "TEXT", "tokenCount": tokens}]
    return msgspec.json.encode({"totalTokens": tokens, "promptTokensDetails": details})


class _Counted(msgspec.Struct, rename="camel"):
    total_tokens: int


_decode = msgspec.json.Decoder(_Counted).decode


def decode_count(body: bytes) -> int | None:
    """Return the tokens that an upstream counted; None: it is no such answer.

    >>> decode_count(b'{"totalTokens": 3}')
    3
    """
    try:
        tokens = _decode(body).total_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return tokens if tokens >= 0 else None
