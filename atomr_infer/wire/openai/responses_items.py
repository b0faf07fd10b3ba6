"""The items of a stored conversation, as raw JSON.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from atomr_infer.model.parts import RawJson


class _Body(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"[]")


class _Response(msgspec.Struct):
    id: str
    output: msgspec.Raw


class _Event(msgspec.Struct):
    response: msgspec.Raw


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_response = msgspec.json.Decoder(_Response).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def input_items(body: bytes) -> RawJson:
    """Return the ``input`` of a request as an array of items.

    >>> input_items(b'{"input": "hi"}')
    b'[{"role":"user","content":"hi"}]'
    """
    raw = bytes(_decode_body(body).input)
    if raw.startswith(b'"'):
        return b'[{"role":"user","content":%b}]' % raw
    return raw


def output_items(response: bytes) -> tuple[str, RawJson]:
    """Return a response's id, and its ``output``."""
    found = _decode_response(response)
    return found.id, bytes(found.output)


def streamed_response(events: bytes) -> RawJson:
    """Return the response object in the last event of a stream."""
    _, _, data = events.rpartition(b"data: ")
    return bytes(_decode_event(data).response)


def joined(*arrays: RawJson | None) -> RawJson:
    """Return arrays of items as one; None counts as an empty one.

    >>> joined(None, b"[1]", b"[]", b"[2, 3]")
    b'[1,2,3]'
    """
    items = [item for array in arrays if array for item in _decode_items(array)]
    return _encode(items)
