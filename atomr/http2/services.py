"""What a node does with the messages of its peers, by the name of a service.

A service says of what type its messages are; nothing else is decoded for it, and a
peer that sends something else is cut off.

What is told is handled in the order in which it came, in the task that reads the
link: a handler must be quick and must not wait.  It puts the message into a mailbox,
mostly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
import msgspec
import trio

from atomr.http2.frames import MAX_NAME_CHARACTERS

if TYPE_CHECKING:
    from atomr.http2.link import Link  # noqa: TC004 - it imports this module
    from atomr.http2.streams import LinkStream  # noqa: TC004

M = TypeVar("M")


def check_service(name: str) -> None:
    """Refuse a name that the peer would take for an attack.

    Raises:
        ValueError: it is empty or longer than 128 characters.
    """
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        raise ValueError(
            f"a name of {len(name)} characters: expected 1 to {MAX_NAME_CHARACTERS}"
        )


class IncomingCall:
    """A call of a peer that was not answered yet.

    Attributes:
        link: where it came from.
        cancelled: the caller waits no longer; an answer would be dropped.
    """

    __slots__ = ("_number", "_on_cancel", "cancelled", "link")

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.cancelled = False
        self._number = number
        self._on_cancel: Callable[[], None] | None = None

    def reply(self, message: object) -> bool:
        """Answer it.

        Returns:
            False where nobody waits any more: it was answered, the caller left, or
            the link is down.

        Raises:
            LinkMessageError: the answer is too long; the call still waits.
            TypeError: the answer cannot be encoded; the call still waits.
        """
        return self.link.answer(self._number, message)

    def fail(self, code: str, detail: str) -> bool:
        """Let the caller get a ``LinkCallError``; returns as :meth:`reply`.

        Args:
            code: one word, at most 128 characters.
            detail: for people; cut to 1,024 characters.

        Raises:
            ValueError: the code is empty or too long; the call still waits.
        """
        check_service(code)
        return self.link.refuse(self._number, code, detail[:1024])

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Have a function called when the caller leaves or the link ends."""
        if self.cancelled:
            stop()
        else:
            self._on_cancel = stop

    def cancel(self) -> None:
        """Note that the caller has left; for the link."""
        self.cancelled = True
        if self._on_cancel is not None:
            self._on_cancel()


@attrs.frozen
class Service(Generic[M]):
    """What is done with the messages for one name.

    A peer that uses what is not given is told so: its call fails with
    ``no_service``, its stream is reset, and what it told is dropped, counted
    and logged once.

    Attributes:
        messages: their type: a ``msgspec.Struct``, or a union of tagged ones.
        tell: takes a message; quick, does not wait.
        call: takes a call, which may be answered at once or later; the same.
        answer: answers a call in a task of its own, which ends with the caller's
            wait; in place of ``call``.
        stream: serves a stream in a task of its own; the stream ends with it.
    """

    messages: type[M] | UnionType
    tell: Callable[[Link, M], None] | None = None
    call: Callable[[IncomingCall, M], None] | None = None
    answer: Callable[[Link, M], Awaitable[object]] | None = None
    stream: Callable[[LinkStream, M], Awaitable[None]] | None = None
    decode: Callable[[bytes | msgspec.Raw], M] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Refuse a service that answers in two ways.

        Raises:
            ValueError: both ``call`` and ``answer`` are given.
        """
        if self.call is not None and self.answer is not None:
            raise ValueError("a service takes calls by call= or by answer=, not both")
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(self.messages)
        object.__setattr__(self, "decode", decoder.decode)


async def run_answer(
    call: IncomingCall, answer: Callable[[Link, M], Awaitable[object]], message: M
) -> None:
    """Answer a call in the task that runs this; ends when the caller leaves."""
    with trio.CancelScope() as scope:
        call.on_cancel(scope.cancel)
        call.reply(await answer(call.link, message))
