"""The items of a conversation, as raw JSON.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from atomr_infer.wire.openai.responses_proof import is_marked

if TYPE_CHECKING:
    from atomr_infer.model.parts import RawJson


class _Body(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"[]")


class _Response(msgspec.Struct):
    id: str
    output: msgspec.Raw


class _Event(msgspec.Struct):
    response: msgspec.Raw


class _Named(msgspec.Struct):
    id: str


class _Started(msgspec.Struct):
    response: _Named


class _Item(msgspec.Struct):
    type: object = None
    id: object = None
    encrypted_content: object = None


# An id that we made: OpenAI's have no number behind them.
_OURS = re.compile(r"rs_.+_[0-9]+")

_decode_started = msgspec.json.Decoder(_Started).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_item = msgspec.json.Decoder(_Item).decode
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


def unstored(response: bytes) -> bytes:
    """Return a response object that says it is not stored.

    >>> unstored(b'{"id":"resp_1","store":true}')
    b'{"id":"resp_1","store":false}'
    """
    return _encode({**_decode_members(response), "store": False})


def unstored_stream(events: bytes) -> bytes:
    """Return the events that end a stream, the last of them with such a response."""
    before, mark, data = events.rpartition(b"data: ")
    members = _decode_members(data)
    members["response"] = msgspec.Raw(unstored(bytes(members["response"])))
    return b"%b%b%b\n\n" % (before, mark, _encode(members))


_NUMBER = re.compile(rb'"sequence_number"\s*:\s*([0-9]{1,9})')


def taken_up(first: bytes, last: bytes) -> tuple[str | None, int]:
    """Return the id of a response whose events another has sent, and what is next.

    Args:
        first: the events that it began with.
        last: the events that were sent last.

    Returns:
        The id, None where none was told; and the next event's number.
    """
    # In a text that is quoted, the name would end in a backslash.
    numbers = _NUMBER.findall(last)
    number = int(numbers[-1]) + 1 if numbers else 0
    for line in first.split(b"\n"):
        if line.startswith(b"data:"):
            try:
                return _decode_started(line[5:]).response.id, number
            except (msgspec.DecodeError, UnicodeDecodeError):
                break  # it did not begin as responses do
    return None, number


def joined(*arrays: RawJson | None) -> RawJson:
    """Return arrays of items as one; None counts as an empty one.

    >>> joined(None, b"[1]", b"[]", b"[2, 3]")
    b'[1,2,3]'
    """
    items = [item for array in arrays if array for item in _decode_items(array)]
    return _encode(items)


def readable_there(body: bytes) -> bytes:
    """Return a request without the thoughts of other providers' models.

    OpenAI refuses a proof that is not its own, and does not find a thought that
    has neither a proof nor been stored there.  A request without such thoughts
    is returned as it is.
    """
    if b'"reasoning"' not in body:
        return body
    members = _decode_members(body)
    raw = bytes(members.get("input", b""))
    if not raw.startswith(b"["):
        return body
    items = _decode_items(raw)
    kept = [item for item in items if not _is_foreign(_decode_item(item))]
    if len(kept) == len(items):
        return body
    return _encode({**members, "input": kept})


def _is_foreign(item: _Item) -> bool:
    if item.type != "reasoning":
        return False
    if isinstance(item.encrypted_content, str):
        return is_marked(item.encrypted_content)
    return isinstance(item.id, str) and is_our_thought(item.id)


def is_our_thought(name: str) -> bool:
    """Whether an id is one that we gave to a thought.

    >>> is_our_thought("rs_5f0c_0"), is_our_thought("rs_67cbd2")
    (True, False)
    """
    return _OURS.fullmatch(name) is not None
