"""What two nodes say to each other: typed messages with a length before each.

A message is a u32 with its length and a msgpack array: a tag that says what it is,
and its fields.  Only these tags are known, and only these types are made: nothing
that a peer sends names a class or a function.  What is inside a body is the
service's, decoded by its own type.

Where a message ends has nothing to do with where a DATA frame does.

A depth of nesting that the interpreter does not take is a :class:`FrameError` like
any other nonsense.

Pure.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

VERSION = 1

MAX_FRAME_BYTES = 1024 * 1024
"""The longest message; a longer one has to be a stream of several."""

_LENGTH_BYTES = 4

MAX_NAME_CHARACTERS = 128

Name: TypeAlias = Annotated[
    str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)
]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=1024)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Proof: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class FrameError(Exception):
    """The peer's bytes are no messages; the text quotes none of them."""


class _Frame(
    msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True
):
    pass


class Hello(_Frame, tag=1, frozen=True):
    """The first message of either side, on ``ctl``.

    Attributes:
        version: of this module.
        cluster: the sender's cluster.
        node: its name.
        boot: its boot id.
        proof: see ``atomr.http2.identity.Seal``.
    """

    version: Number
    cluster: Name
    node: Name
    boot: Number
    proof: Proof


class Tell(_Frame, tag=2, frozen=True):
    """A message that nobody answers."""

    service: Name
    body: msgspec.Raw


class Call(_Frame, tag=3, frozen=True):
    """A message that one :class:`Reply` or :class:`Fail` with its id answers."""

    id: Number
    service: Name
    body: msgspec.Raw


class Reply(_Frame, tag=4, frozen=True):
    """The answer to a call."""

    id: Number
    body: msgspec.Raw


class Fail(_Frame, tag=5, frozen=True):
    """There is no answer to a call, and why."""

    id: Number
    code: Name
    detail: Text


class Cancel(_Frame, tag=6, frozen=True):
    """Nobody waits for the answer any more."""

    id: Number


class Probe(_Frame, tag=7, frozen=True):
    """Asks whether the process still does its work.

    Attributes:
        id: numbers of a sender go up.
        seen: of the sender's last probe that was answered; 0: none.
        round_trip_us: how long that took, in microseconds; 0: unknown.
    """

    id: Number
    seen: Number = 0
    round_trip_us: Number = 0


class Probed(_Frame, tag=8, frozen=True):
    """It does."""

    id: Number


class Goodbye(_Frame, tag=9, frozen=True):
    """The sender ends the link on purpose."""

    reason: Name


class Invite(_Frame, tag=10, frozen=True):
    """Asks the side that dialed to open a stream: the other side cannot."""

    id: Number


class Invited(_Frame, tag=11, frozen=True):
    """The first message on a stream that was asked for."""

    id: Number


class Open(_Frame, tag=12, frozen=True):
    """The first message on a stream between services."""

    service: Name
    body: msgspec.Raw


Frame: TypeAlias = (
    Hello
    | Tell
    | Call
    | Reply
    | Fail
    | Cancel
    | Probe
    | Probed
    | Goodbye
    | Invite
    | Invited
    | Open
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def raw(message: object) -> msgspec.Raw:
    """Return a message as a body.

    Raises:
        TypeError: it cannot be encoded.
    """
    return msgspec.Raw(_encoder.encode(message))


def append(buffer: bytearray, frame: Frame) -> int:
    """Write a message with its length behind what is in the buffer.

    Returns:
        The bytes that were written.
    """
    start = len(buffer)
    buffer += b"\0\0\0\0"
    _encoder.encode_into(frame, buffer, start + _LENGTH_BYTES)
    written = len(buffer) - start
    buffer[start : start + 4] = (written - _LENGTH_BYTES).to_bytes(4, "big")
    return written


def decode(message: bytes) -> Frame:
    """Return a message from its bytes, without its length.

    Raises:
        FrameError: it is not one of ours.
    """
    try:
        return _decoder.decode(message)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError("a message is malformed") from error


def framed(body: bytes) -> bytes:
    """Return bytes with their length before them."""
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


class MessageReader:
    """Takes bytes as they come, and gives whole messages.

    Cost: linear in the bytes, however they are cut.
    """

    __slots__ = ("_held", "_limit", "_needed")

    def __init__(self, *, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        """Begin at the start of a message.

        Args:
            limit_bytes: the longest message, at least 1.
        """
        self._held = bytearray()
        self._needed = _LENGTH_BYTES
        self._limit = limit_bytes

    @property
    def held_bytes(self) -> int:
        """What is here of a message that is not complete."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now, without their lengths.

        Raises:
            FrameError: a message is longer than the limit.
        """
        held = self._held
        if held:
            held += data
            if len(held) < self._needed:
                return []
            data = bytes(held)
            held.clear()
        elif len(data) < self._needed:
            held += data
            return []
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        messages: list[bytes] = []
        at, end = 0, len(data)
        self._needed = _LENGTH_BYTES
        while end - at >= _LENGTH_BYTES:
            start = at + _LENGTH_BYTES
            size = int.from_bytes(data[at:start], "big")
            if size > self._limit:
                raise FrameError(f"a message is longer than {self._limit} bytes")
            if end - start < size:
                self._needed = _LENGTH_BYTES + size
                break
            at = start + size
            messages.append(data[start:at])
        self._held += data[at:]
        return messages
