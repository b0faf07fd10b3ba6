"""The events and the message of an answer, decoded.

One flat form for every event: a member that an event does not have is empty.
So an event of a kind that is newer than this code is known as such, and is not
mistaken for a malformed one.

Pure.

Source: Anthropic API, "Streaming Messages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.errors import UpstreamProtocolError
from atomr_infer.wire.anthropic.upstream_errors import classify
from atomr_infer.wire.openai.upstream_errors import ErrorBody, parse_error

if TYPE_CHECKING:
    from atomr_infer.model.secret import Secret
    from atomr_infer.wire.sse import SseEvent

NULL = msgspec.Raw(b"null")


class Block(msgspec.Struct):
    """A content block, at its beginning or whole."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = NULL


class StopDetails(msgspec.Struct):
    """Why an answer was refused."""

    explanation: str | None = None


class Delta(msgspec.Struct):
    """What an event adds to a block, or to the message."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class Message(msgspec.Struct):
    """A message: whole, or as a stream begins it."""

    type: str | None = None
    model: str | None = None
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: msgspec.Raw = NULL


class Event(msgspec.Struct):
    """Any event."""

    type: str = ""
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: msgspec.Raw = NULL
    object: str | None = None


_decode_event = msgspec.json.Decoder(Event).decode
_decode_message = msgspec.json.Decoder(Message).decode

_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


_DELTA_TYPE = "content_block_delta"
_DELTA = b"event: content_block_delta\ndata: "
_BORDER = b"\n\n"


def lone_delta(data: bytes) -> Event | None:
    """Return the event of a read that is one delta and nothing else.

    Nearly every read of a stream is, and is then cut into lines by nobody.
    None: this one is not, or not for certain, and is to be looked at with care.

    Args:
        data: bytes that begin where an event does.
    """
    if not data.startswith(_DELTA) or data.find(_BORDER) != len(data) - len(_BORDER):
        return None
    try:
        event = _decode_event(data[len(_DELTA) : -len(_BORDER)])
    except _ERRORS:
        return None
    return event if event.type == _DELTA_TYPE and event.object != "error" else None


def decode_event(event: SseEvent, *, secret: Secret | None = None) -> Event | None:
    """Return an event; None when it is malformed.

    Its ``type`` may stand in the event's name only, as some servers write it.

    Raises:
        InferenceError: the upstream reports an error in its stream.
    """
    try:
        decoded = _decode_event(event.data)
    except _ERRORS as error:
        # An error's other members need not have the types of an answer's.
        if event.event == "error" or parse_error(event.data) is not None:
            raise _reported(event.data, secret) from error
        return None
    decoded.type = decoded.type or event.event
    if "error" in (decoded.type, decoded.object, event.event):
        raise _reported(event.data, secret)
    if not decoded.type:
        said = parse_error(event.data)
        if said is None:
            return None
        raise classify(said, secret=secret)
    return decoded


def decode_message(body: bytes, *, secret: Secret | None = None) -> Message:
    """Return a whole answer.

    Raises:
        UpstreamProtocolError: ``malformed_body``; it is not a message.
        InferenceError: it is an error, though its status said otherwise.
    """
    said = parse_error(body)
    if said is not None:
        raise classify(said, secret=secret)
    try:
        message = _decode_message(body)
    except _ERRORS as error:
        raise _malformed() from error
    if message.content is None:
        raise _malformed()
    return message


def _reported(data: bytes, secret: Secret | None) -> Exception:
    said = parse_error(data) or ErrorBody(message=data.decode("utf-8", "replace"))
    return classify(said, secret=secret)


def _malformed() -> UpstreamProtocolError:
    return UpstreamProtocolError(
        "the upstream's body is not a message", code="malformed_body"
    )
