"""One link to another node, and what one can do with it.

A link ends once, for one reason; then every call and stream of it gets that reason
in a ``LinkDownError``.  What was under way may have taken effect over there, or not:
a message is handled at most once, and messages of one lane in their order.
"""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

import msgspec
import trio

from atomr.errors import LinkBusyError, LinkCallError, LinkMessageError
from atomr.http2 import frames
from atomr.http2.dispatch import Dispatch
from atomr.http2.events import Lane, Reason
from atomr.http2.outlets import LIMITS
from atomr.http2.problems import LaneFullError
from atomr.http2.services import check_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable
    from types import UnionType

    from atomr.crdt.origin import Origin
    from atomr.errors import LinkDownError
    from atomr.http2.calls import Pending
    from atomr.http2.core import Core
    from atomr.http2.frames import Frame
    from atomr.http2.streams import LinkStream

R = TypeVar("R")

SMALL_BYTES = 65_536
"""A call's message or answer above this gets a stream of its own."""

MAX_LARGE_BYTES = 32 * 1024 * 1024
"""Answers above it that wait for their streams; then callers are told ``busy``."""


class Link:
    """A connection to one life of one node."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._large_bytes = 0
        self.dispatch = Dispatch(core, self)

    def __repr__(self) -> str:
        state = "down" if self._core.is_down else "up"
        return f"<Link {self._core.peer} {state}>"

    @property
    def peer(self) -> Origin:
        """The other node, in its present life."""
        return self._core.peer

    @property
    def dialed(self) -> bool:
        """True when we opened the connection."""
        return self._core.protocol.dialed

    @property
    def down(self) -> LinkDownError | None:
        """Why the link ended; None while it is up."""
        return self._core.down() if self._core.is_down else None

    @property
    def round_trip_s(self) -> float | None:
        """How long the last probe took; None before the first."""
        return self._core.heartbeat.round_trip_s

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent on the lanes."""
        return self._core.protocol.outlets.queued_bytes

    @property
    def dropped(self) -> int:
        """Messages of the peer for a service that we do not have."""
        return self._core.dropped

    def tell(self, service: str, message: object, *, lane: Lane = Lane.MSG) -> None:
        """Send a message that nobody answers; does not wait.

        It arrives at most once, behind what was told before on that lane.  It may
        be lost when the link ends.

        Args:
            service: who handles it over there.
            message: of that service's type, at most 1 MiB encoded.
            lane: which stream carries it.

        Raises:
            LinkBusyError: too much waits on that lane; nothing was sent.
            LinkMessageError: it is too long; nothing was sent.
            LinkDownError: the link ended; nothing was sent.
            TypeError: it cannot be encoded; nothing was sent.
            ValueError: the service's name is empty or longer than 128 characters.
        """
        self._check(service)
        self._offer(lane, frames.Tell(service, cast(msgspec.Raw, message)))

    async def room(self, lane: Lane = Lane.MSG) -> None:
        """Wait until less than half of what may wait on a lane does.

        Raises:
            LinkDownError: the link ended.
        """
        await trio.lowlevel.checkpoint()
        buffer = self._core.protocol.outlets.lanes[lane].buffer
        self._core.check()
        while len(buffer) >= LIMITS[lane] // 2:
            await self._core.drained.wait()
            self._core.check()

    @overload
    async def call(
        self, service: str, message: object, *, returns: type[R], timeout_s: float = ...
    ) -> R: ...

    @overload
    async def call(
        self,
        service: str,
        message: object,
        *,
        returns: UnionType,
        timeout_s: float = ...,
    ) -> object: ...

    async def call(
        self, service: str, message: object, *, returns: Any, timeout_s: float = 5.0
    ) -> object:
        """Send a message and wait for its answer.

        One of more than 64 KiB goes on a stream of its own, and may overtake what
        was told before, or be overtaken; so may an answer.

        Args:
            service: who answers it over there.
            message: of that service's type, at most 1 MiB encoded.
            returns: the type of the answer, or a union of several.
            timeout_s: how long to wait.

        Raises:
            LinkTimeoutError: no answer came; the peer was told to stop.
            LinkCallError: the peer has no answer.
            LinkBusyError: too much waits already; nothing was sent.
            LinkMessageError: the message is too long; nothing was sent.
            LinkDownError: the link ended; the call may have taken effect, or not.
            TypeError: the message cannot be encoded; nothing was sent.

        Cancellation: the peer is told to stop; nothing is left behind.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        core = self._core
        self._check(service)
        pending = core.calls.begin(service, timeout_s)
        frame = frames.Call(pending.number, service, cast(msgspec.Raw, message))
        try:
            size = self._offer(Lane.MSG, frame, most=SMALL_BYTES)
        except BaseException:
            core.calls.forget(pending)
            raise
        core.keep_by(pending.due_at)
        if not size:
            body = await self._call_large(pending, frame)
            return _decoded(self, service, body, returns)
        try:
            body = await core.calls.wait(pending)
        except trio.Cancelled:
            core.put(Lane.MSG, frames.Cancel(pending.number))
            raise
        return _decoded(self, service, body, returns)

    async def _call_large(self, pending: Pending, frame: Frame) -> bytes:
        core = self._core
        streams = self.dispatch.streams
        stream: LinkStream | None = None
        try:
            with trio.move_on_at(pending.due_at):
                stream = await streams.open(frame)
                streams.leave(stream, wait_for_peer=True)
            return await core.calls.wait(pending)
        except BaseException:
            core.calls.forget(pending)
            if stream is not None:
                streams.reset(stream)
            core.put(Lane.MSG, frames.Cancel(pending.number))
            raise

    @asynccontextmanager
    async def open_stream(
        self, service: str, message: object
    ) -> AsyncIterator[LinkStream]:
        """Open a stream to a service; leaving the block ends it.

        What was sent arrives before the end; an exception breaks the stream off at
        once.  At most 256 are open at the same time: one more waits.

        Args:
            service: who serves it over there.
            message: of that service's type, says what is wanted.

        Raises:
            LinkMessageError: the message is too long.
            LinkDownError: the link ended.
        """
        stream = await self.begin_stream(service, message)
        try:
            yield stream
        except BaseException:
            stream.abort()
            raise
        stream.close()

    async def begin_stream(self, service: str, message: object) -> LinkStream:
        """Open a stream for whoever cannot use a block; it must be ended.

        By its ``close`` or its ``abort``; else as :meth:`open_stream`.

        Cancellation: none was opened.
        """
        self._check(service)
        body = frames.raw(message)
        self._check_length(len(bytes(body)))
        return await self.dispatch.streams.open(frames.Open(service, body))

    def on_down(self, tell: Callable[[], None]) -> None:
        """Have a function called in the moment when the link ends.

        Args:
            tell: quick; must neither wait nor raise.  Called now where it has ended.
        """
        if self._core.is_down:
            tell()
        else:
            self._core.at_end(tell)

    async def wait_down(self) -> LinkDownError:
        """Wait until the link ends, and return why."""
        await trio.lowlevel.checkpoint()
        while not self._core.is_down:
            await self._core.ended.wait()
        return self._core.down()

    async def close(self, *, flush_timeout_s: float = 1.0) -> None:
        """Send what was told, say goodbye and end the link.

        Args:
            flush_timeout_s: what is not sent by then is lost.
        """
        with trio.move_on_after(flush_timeout_s):
            while self.queued_bytes and not self._core.is_down:
                await self._core.drained.wait()
        self._core.end(Reason.CLOSED, "it was closed here")
        await trio.lowlevel.checkpoint()

    # --- for services and streams -----------------------------------------------

    def answer(self, number: int, message: object) -> bool:
        """Answer a call of the peer's: see ``IncomingCall.reply``."""
        core = self._core
        if number not in core.incoming:
            return False
        reply = frames.Reply(number, cast(msgspec.Raw, message))
        size = core.put(Lane.MSG, reply)
        if size > SMALL_BYTES:
            core.protocol.outlets.withdraw(Lane.MSG, size)
            self._check_length(size)
            self._answer_large(number, message, size)
        core.incoming.pop(number, None)
        return True

    def refuse(self, number: int, code: str, detail: str) -> bool:
        """Let a call of the peer's fail: see ``IncomingCall.fail``."""
        if self._core.incoming.pop(number, None) is None:
            return False
        self._core.put(Lane.MSG, frames.Fail(number, code, detail))
        return True

    def end(self, reason: Reason, detail: str, *, fault: bool = False) -> None:
        """End the link at once."""
        self._core.end(reason, detail, fault=fault)

    async def pause(self) -> None:
        """Be a checkpoint that finds out whether the link is up."""
        await trio.lowlevel.checkpoint()

    def wake_writer(self) -> None:
        """Have what was queued written."""
        self._core.wakeup.set()

    def consumed(self, stream: LinkStream, window_bytes: int) -> None:
        """Let the peer send so much more on a stream."""
        self.dispatch.streams.consumed(stream, window_bytes)

    def _answer_large(self, number: int, message: object, size: int) -> None:
        if self._large_bytes + size > MAX_LARGE_BYTES:
            detail = "too many long answers wait here already"
            self._core.put(Lane.MSG, frames.Fail(number, "busy", detail))
            return
        self._large_bytes += size
        reply = frames.Reply(number, frames.raw(message))
        self._core.spawn(self._send_large, reply, size)

    async def _send_large(self, reply: frames.Reply, size: int) -> None:
        streams = self.dispatch.streams
        try:
            stream = await streams.open(reply)
            streams.leave(stream, wait_for_peer=True)
        finally:
            self._large_bytes -= size

    def _offer(self, lane: Lane, frame: Frame, *, most: int | None = None) -> int:
        """Queue a message of ours; 0 when it is longer than ``most``."""
        outlets = self._core.protocol.outlets
        try:
            size = outlets.offer(lane, frame)
        except LaneFullError as error:
            raise LinkBusyError(
                self.peer,
                queued_bytes=error.queued_bytes,
                limit_bytes=error.limit_bytes,
            ) from error
        if size > SMALL_BYTES:
            long = size - 4 > frames.MAX_FRAME_BYTES
            if long or (most is not None and size > most):
                outlets.withdraw(lane, size)
                self._check_length(size)
                return 0
        self._core.written(lane)
        return size

    def _check(self, service: str) -> None:
        self._core.check()
        check_service(service)

    def _check_length(self, size: int) -> None:
        limit = frames.MAX_FRAME_BYTES - FRAME_HEAD_BYTES
        if size > limit:
            raise LinkMessageError(self.peer, size_bytes=size, limit_bytes=limit)


FRAME_HEAD_BYTES = 256
"""What is around a body, at most: its length, a number and a service's name."""


@functools.lru_cache(maxsize=256)
def _decoder(returns: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(cast(type[Any], returns))


def _decoded(link: Link, service: str, body: bytes, returns: Hashable) -> object:
    try:
        answer: object = _decoder(returns).decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LinkCallError(
            link.peer, service, "bad_reply", f"it is no {returns}"
        ) from error
    return answer
