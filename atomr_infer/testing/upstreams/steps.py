"""What a connection of a fake upstream does, one step at a time.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Headers = tuple[tuple[str, str], ...]

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8"


@attrs.frozen
class Head:
    """Send the status line and headers.

    Attributes:
        status: HTTP status.
        headers: without framing.
        length: of the body in bytes; None: chunked.
    """

    status: int
    headers: Headers
    length: int | None = None


@attrs.frozen
class Body:
    """Send a piece of the body in one write.

    Attributes:
        data: the piece.
        last: True when the same write completes the answer.
    """

    data: bytes
    last: bool = False


@attrs.frozen
class Wait:
    """Wait, in seconds."""

    seconds: float


@attrs.frozen
class Raw:
    """Send bytes as they are, outside of HTTP's framing."""

    data: bytes


@attrs.frozen
class Hang:
    """Send nothing more, until the client leaves."""


@attrs.frozen
class End:
    """Complete the answer; implied where the steps end."""


@attrs.frozen
class Cut:
    """Drop the connection."""


@attrs.frozen
class ShutDown:
    """End the sending side, and keep listening until the client leaves."""


Step = Head | Body | Wait | Raw | End | Hang | Cut | ShutDown


def answer_json(status: int, members: object, headers: Headers = ()) -> Iterator[Step]:
    """Yield the steps of an answer that is one JSON value."""
    body = msgspec.json.encode(members)
    yield Head(status, (("content-type", JSON), *headers), len(body))
    yield Body(body, last=True)


def split(data: bytes, size: int | None) -> Iterator[Body]:
    """Yield ``data`` in pieces of so many bytes; None: in one."""
    step = size or max(1, len(data))
    for start in range(0, len(data), step):
        yield Body(data[start : start + step])
