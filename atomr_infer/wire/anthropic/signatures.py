"""Signatures in a thinking block, also those of other providers.

A client gives back what it was given, byte for byte.  A thinking block has one
place for a signature and none for whose it is, so one that is not Anthropic's
travels with its origin in front, and is told apart when it comes back.  It
never reaches Anthropic, which would refuse it.

Pure.
"""

from __future__ import annotations

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature

# No signature of Anthropic's has a colon in it: they are base64.
_PREFIX = "atomr:"

_ORIGINS = {dialect.value: dialect for dialect in Dialect}


def write_signature(signature: Signature) -> str:
    """Return the text that a client carries.

    >>> write_signature(Signature("abc", Dialect.GEMINI))
    'atomr:gemini:abc'
    >>> write_signature(Signature("abc", Dialect.ANTHROPIC))
    'abc'
    """
    if signature.origin is Dialect.ANTHROPIC:
        return signature.text
    return f"{_PREFIX}{signature.origin.value}:{signature.text}"


def read_signature(text: str) -> Signature | None:
    """Return what a client gave back; None for the empty text of an unsigned one.

    >>> read_signature("atomr:gemini:abc").origin
    <Dialect.GEMINI: 'gemini'>
    """
    if not text:
        return None
    if text.startswith(_PREFIX):
        name, _, rest = text.removeprefix(_PREFIX).partition(":")
        if name in _ORIGINS:
            return Signature(rest, _ORIGINS[name])
    return Signature(text, Dialect.ANTHROPIC)
