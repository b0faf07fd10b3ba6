"""A stream of its own between two services: messages in order, at the reader's pace.

Its messages are bytes of up to 1 MiB; what is in them is the services' affair.  The
stream's HTTP/2 window opens as its reader takes them, so a sender that is faster
than its reader waits in :meth:`LinkStream.send`, and nothing is buffered without a
bound.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from atomr.errors import LinkMessageError, LinkStreamError
from atomr.http2 import frames
from atomr.waking import Parked

if TYPE_CHECKING:
    from atomr.http2.link import Link
    from atomr.http2.outlets import Outlet

BACKLOG_BYTES = 65_536
"""What a stream holds unsent before its sender waits."""


class LinkStream:
    """One stream; one task may send and one may receive, at the same time.

    Attributes:
        link: the link that carries it.
    """

    __slots__ = (
        "_changed",
        "_ended",
        "_ended_here",
        "_error",
        "_held_bytes",
        "_messages",
        "_outlet",
        "_over",
        "_reader",
        "_room",
        "link",
    )

    def __init__(self, link: Link, outlet: Outlet) -> None:
        self.link = link
        self._outlet = outlet
        self._reader = frames.MessageReader()
        self._messages: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._ended_here = False
        self._over = False
        self._error: Exception | None = None
        self._changed = Parked()
        # Apart from who waits for messages: a write concerns them not at all.
        self._room: Parked | None = None

    @property
    def stream_id(self) -> int:
        """Its number in HTTP/2."""
        return self._outlet.stream_id

    async def send(self, message: bytes) -> None:
        """Send a message; waits while the peer does not read.

        Raises:
            LinkMessageError: it is longer than 1 MiB.
            LinkStreamError: the peer broke the stream off.
            LinkDownError: the link ended.
            ValueError: the stream was ended on this side.

        Cancellation: the message was not sent.
        """
        if len(message) > frames.MAX_FRAME_BYTES:
            raise LinkMessageError(
                self.link.peer,
                size_bytes=len(message),
                limit_bytes=frames.MAX_FRAME_BYTES,
            )
        await self.link.pause()
        while len(self._outlet.buffer) >= BACKLOG_BYTES and self._error is None:
            if self._room is None:
                self._room = Parked()
            await self._room.wait()
        if self._error is not None:
            raise self._error
        if self._ended_here:
            raise ValueError("send: this side has ended the stream")
        self._outlet.buffer += frames.framed(message)
        self.link.wake_writer()

    async def receive(self) -> bytes | None:
        """Return the next message; None when the peer has sent its last one.

        Raises:
            LinkStreamError: the peer broke the stream off.
            LinkDownError: the link ended.

        Cancellation: no message is lost.
        """
        await self.link.pause()
        while not self._messages:
            if self._ended:
                return None
            if self._error is not None:
                raise self._error
            await self._changed.wait()
        message = self._messages.popleft()
        if not self._messages and self._held_bytes:
            held, self._held_bytes = self._held_bytes, 0
            self.link.consumed(self, held)
        return message

    def end(self) -> None:
        """Send no more; the peer gets what was sent, and then the end."""
        if not self._ended_here and self._error is None:
            self._ended_here = self._outlet.ending = True
            self.link.wake_writer()

    def close(self, *, wait_for_peer: bool = False) -> None:
        """Let go of it behind what was sent; what comes is dropped.

        Args:
            wait_for_peer: the peer ends it as well; otherwise it is told to.
        """
        self.link.dispatch.streams.leave(self, wait_for_peer=wait_for_peer)

    def abort(self) -> None:
        """Break it off at once: the peer sees it, and what waits is not sent."""
        self.link.dispatch.streams.reset(self)

    # --- for the link -----------------------------------------------------------

    @property
    def flushed(self) -> bool:
        """True when all that was sent is on the wire."""
        return not self._outlet.waits

    @property
    def ended(self) -> bool:
        """True when the peer sends no more."""
        return self._ended

    def begin(self, frame: frames.Frame) -> None:
        """Send the first message, which says what the stream is."""
        frames.append(self._outlet.buffer, frame)

    def feed(self, data: bytes, window_bytes: int) -> None:
        """Take what came.

        Raises:
            FrameError: a message is too long.
        """
        self._messages.extend(self._reader.feed(data))
        if not self._messages or self._over:
            # What is here of one message is bounded by its length, not the window.
            self.link.consumed(self, window_bytes)
            self._messages = self._messages if not self._over else deque()
        else:
            self._held_bytes += window_bytes
        self._changed.wake()

    def take_nowait(self) -> bytes | None:
        """Return a message that is here."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        if not self._messages and self._held_bytes:
            held, self._held_bytes = self._held_bytes, 0
            self.link.consumed(self, held)
        return message

    def finish(self) -> None:
        """Note the peer's end."""
        self._ended = True
        self._changed.wake()

    def breaks(self, error: Exception) -> None:
        """Note that nothing more goes either way."""
        if self._error is None:
            self._error = error
            self._changed.wake()
            if self._room is not None:
                self._room.wake()

    def broken_by_peer(self, code: str) -> None:
        """Note that the peer reset it."""
        self.breaks(LinkStreamError(self.link.peer, code))

    def room(self) -> None:
        """Let a sender look again, where there is room."""
        if self._room is not None and len(self._outlet.buffer) < BACKLOG_BYTES:
            room, self._room = self._room, None
            room.wake()

    def leave(self) -> None:
        """Let go of it on this side: what comes is dropped."""
        self.end()
        self._over = True
        self._messages.clear()
