"""Remembers the signatures of calls for clients that cannot carry them.

Anthropic's dialect has no place for a call's signature, and many clients of
OpenAI's drop what they do not know.  Such a client gives the call back with its
id; so the signature is found again by that, and by what was called, since an
id alone may not be unique.

Bounded by bytes, the oldest first out: who waits too long has his call sent as
one whose signature is not to be had.  Of what was called only a digest is kept,
since an agent's arguments can be whole files.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import msgspec

MAX_BYTES = 16 * 1024 * 1024
"""Default cap; a signature has some hundred bytes to some thousand."""

ENTRY_BYTES = 200
"""What a call costs beside its signature: its digest, and a place in the table."""


class SignatureMemory:
    """Signatures by call.

    >>> memory = SignatureMemory()
    >>> memory.put("1", name="f", arguments='{"a":1}', signature="sig")
    >>> memory.get("1", name="f", arguments='{ "a" : 1 }')
    'sig'
    >>> memory.get("1", name="f", arguments="{}")
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        """Remember nothing yet.

        Args:
            max_bytes: of all signatures together, with :data:`ENTRY_BYTES` each.
        """
        self._max_bytes = max_bytes
        self._bytes = 0
        self._signatures: OrderedDict[bytes, str] = OrderedDict()

    def put(self, call_id: str, *, name: str, arguments: str, signature: str) -> None:
        """Remember a call's signature."""
        key = _key(call_id, name, arguments)
        old = self._signatures.pop(key, None)
        if old is not None:
            self._bytes -= len(old) + ENTRY_BYTES
        self._signatures[key] = signature
        self._bytes += len(signature) + ENTRY_BYTES
        while self._bytes > self._max_bytes:
            _, oldest = self._signatures.popitem(last=False)
            self._bytes -= len(oldest) + ENTRY_BYTES

    def get(self, call_id: str, *, name: str, arguments: str) -> str | None:
        """Return a call's signature; None: it is not known, or is no more."""
        return self._signatures.get(_key(call_id, name, arguments))


def _key(call_id: str, name: str, arguments: str) -> bytes:
    """Return what a call is known by, however its arguments are written."""
    try:
        value = msgspec.json.decode(arguments or "{}")
        written = msgspec.json.encode(value, order="sorted")
    except (msgspec.DecodeError, RecursionError):
        written = arguments.encode()
    known = msgspec.json.encode((call_id, name, len(written))) + written
    return blake2b(known, digest_size=32).digest()
