"""Carry every provider's signatures in the one place that Gemini has for them.

A Gemini client gives ``thoughtSignature`` back as it got it, on the same part.
So the signature of another provider, behind whose model such a client may
stand, travels there too: marked with its origin, and as base64, which is what
the member must be.  A signature without our mark is Gemini's own.

>>> told = to_wire(Signature("sig+/=", Dialect.ANTHROPIC))
>>> from_wire(told)
(Signature(text='sig+/=', origin=<Dialect.ANTHROPIC: 'anthropic'>), False)
>>> from_wire("R2VtaW5p")[0].text
'R2VtaW5p'

Pure.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature

_MARK = b"atomr-signature:"
_DATA_MARK = b"atomr-encrypted:"


def to_wire(signature: Signature, *, encrypted: bool = False) -> str:
    """Return what ``thoughtSignature`` says for a signature.

    Args:
        signature: a signature, or an encrypted thought.
        encrypted: True when it is the thought itself.
    """
    if signature.origin is Dialect.GEMINI and not encrypted:
        return signature.text
    mark = _DATA_MARK if encrypted else _MARK
    origin = signature.origin.value.encode()
    return b64encode(mark + origin + b":" + signature.text.encode()).decode()


def from_wire(text: str) -> tuple[Signature, bool]:
    """Return a signature, and whether it is an encrypted thought.

    Bytes may come back in base64's other alphabet, as Google's own libraries
    write them.
    """
    text = standard_base64(text)
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return Signature(text, Dialect.GEMINI), False
    for mark, encrypted in ((_MARK, False), (_DATA_MARK, True)):
        if raw.startswith(mark):
            found = _marked(raw.removeprefix(mark))
            if found is not None:
                return found, encrypted
    return Signature(text, Dialect.GEMINI), False


def _marked(raw: bytes) -> Signature | None:
    name, colon, text = raw.partition(b":")
    try:
        return Signature(text.decode(), Dialect(name.decode())) if colon else None
    except ValueError:
        return None


def standard_base64(text: str) -> str:
    """Return base64 in the standard alphabet, padded: protobuf takes both.

    >>> standard_base64("_-8")
    '/+8='
    """
    text = text.replace("-", "+").replace("_", "/")
    return text + "=" * (-len(text) % 4)
