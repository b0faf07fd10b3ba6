"""Streams of their own: opened by either side, served by tasks of the link.

HTTP/2 lets only the side that dialed open one.  The other side asks for it on
``ctl``, and the stream comes back with the number it asked with: one round trip more.
The first message on a stream says what it is for.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import trio

from atomr.errors import LinkError
from atomr.http2 import frames
from atomr.http2.core import log
from atomr.http2.events import (
    Lane,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from atomr.http2.problems import NoStreamError, PeerError
from atomr.http2.setup import MAX_STREAMS
from atomr.http2.streams import LinkStream
from atomr.waking import Parked

if TYPE_CHECKING:
    from atomr.http2.core import Core
    from atomr.http2.dispatch import Dispatch
    from atomr.http2.frames import Frame
    from atomr.http2.link import Link
    from atomr.http2.services import Service

STREAMS_EACH = MAX_STREAMS // 2
"""Each side opens at most so many at once; more of them wait."""


class OwnStreams:
    """The streams of one link that are no lanes."""

    def __init__(self, core: Core, link: Link, dispatch: Dispatch) -> None:
        self._core = core
        self._link = link
        self._dispatch = dispatch
        self._streams: dict[int, LinkStream] = {}
        self._fresh: set[int] = set()
        self._ours: set[int] = set()
        self._leaving: dict[int, bool] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        self._slots = trio.Semaphore(STREAMS_EACH)
        self._invites: dict[int, LinkStream | None] = {}
        self._invite_numbers = itertools.count(1)
        self._invited = Parked()
        core.at_end(self._fail_all)

    def __len__(self) -> int:
        return len(self._streams)

    async def open(self, first: Frame) -> LinkStream:
        """Open a stream; waits while too many are open.

        Args:
            first: what it is for.

        Raises:
            LinkDownError: the link ended.

        Cancellation: none was opened, or it is reset when it comes.
        """
        await self._slots.acquire()
        try:
            self._core.check()
            stream = self._dial() if self._core.protocol.dialed else await self._ask()
        except BaseException:
            self._slots.release()
            raise
        self._ours.add(stream.stream_id)
        stream.begin(first)
        self._core.wakeup.set()
        return stream

    def _dial(self) -> LinkStream:
        try:
            outlet = self._core.protocol.open()
        except NoStreamError as error:
            # Each side keeps to its half: a peer that allows less is another kind.
            raise self._core.down() from error
        return self._add(outlet.stream_id)

    async def _ask(self) -> LinkStream:
        number = next(self._invite_numbers)
        self._invites[number] = None
        try:
            self._core.put(Lane.CTL, frames.Invite(number))
            while (stream := self._invites[number]) is None:
                self._core.check()
                await self._invited.wait()
        except BaseException:
            late = self._invites.pop(number)
            if late is not None:
                self.reset(late)
            raise
        del self._invites[number]
        return stream

    def leave(self, stream: LinkStream, *, wait_for_peer: bool) -> None:
        """Let go of a stream behind what was sent on it.

        Args:
            stream: nobody uses it any more.
            wait_for_peer: the peer ends it as well; otherwise it is told to.
        """
        if self._streams.get(stream.stream_id) is not stream:
            return
        stream.leave()
        self._leaving[stream.stream_id] = wait_for_peer
        self._settle(stream)

    def reset(self, stream: LinkStream) -> None:
        """Break a stream off at once; the peer sees it."""
        if self._streams.get(stream.stream_id) is not stream:
            return
        stream.leave()
        if not self._core.is_down:
            self._core.protocol.reset(stream.stream_id)
            self._core.wakeup.set()
        self._forget(stream)

    def written(self) -> None:
        """Look what a write has made possible."""
        for stream in tuple(self._streams.values()):
            stream.room()
        for stream_id in tuple(self._leaving):
            self._settle(self._streams[stream_id])

    def consumed(self, stream: LinkStream, window_bytes: int) -> None:
        """Let the peer send so much more."""
        if not self._core.is_down:
            self._core.protocol.consumed(stream.stream_id, window_bytes)
            self._core.wakeup.set()

    def _settle(self, stream: LinkStream) -> None:
        wait_for_peer = self._leaving.get(stream.stream_id)
        if wait_for_peer is None or not stream.flushed:
            return
        if stream.ended:
            self._core.protocol.forget(stream.stream_id)
            self._forget(stream)
        elif not wait_for_peer:
            self.reset(stream)

    def _add(self, stream_id: int) -> LinkStream:
        outlet = self._core.protocol.outlets.own[stream_id]
        stream = LinkStream(self._link, outlet)
        self._streams[stream_id] = stream
        return stream

    def _forget(self, stream: LinkStream) -> None:
        stream_id = stream.stream_id
        self._streams.pop(stream_id, None)
        self._fresh.discard(stream_id)
        self._leaving.pop(stream_id, None)
        if stream_id in self._ours:
            self._ours.discard(stream_id)
            self._slots.release()

    def _fail_all(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.breaks(self._core.down())
            self._forget(stream)
        self._invited.wake()

    # --- what the peer does -----------------------------------------------------

    def on_opened(self, event: StreamOpened) -> None:
        """Begin a stream of the peer's."""
        self._add(event.stream_id)
        self._fresh.add(event.stream_id)

    def on_invite(self, frame: frames.Invite) -> None:
        """Open a stream for the peer, which cannot.

        Raises:
            PeerError: it asks for more than it may have, or could do it itself.
        """
        if not self._core.protocol.dialed:
            raise PeerError("it asks for a stream that it can open")
        # The end of an earlier one may be on the wire already, and not noted yet.
        self.written()
        if len(self._streams) - len(self._ours) >= STREAMS_EACH:
            raise PeerError("it asks for more streams than it may have", flood=True)
        stream = self._dial()
        self._fresh.add(stream.stream_id)
        stream.begin(frames.Invited(frame.id))

    def on_data(self, event: StreamData) -> None:
        """Take bytes of a stream.

        Raises:
            PeerError: they are nonsense.
        """
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.feed(event.data, event.window_bytes)
        if event.stream_id in self._fresh:
            first = stream.take_nowait()
            if first is not None:
                self._fresh.discard(event.stream_id)
                self._on_first(stream, frames.decode(first))

    def on_ended(self, event: StreamEnded) -> None:
        """Note the end of what the peer sends on a stream."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.finish()
            if event.stream_id in self._fresh:
                self.leave(stream, wait_for_peer=False)
            self._settle(stream)

    def on_reset(self, event: StreamReset) -> None:
        """End a stream that the peer broke off, and whoever serves it."""
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.broken_by_peer(event.code)
        self._core.protocol.forget(event.stream_id)
        self._forget(stream)
        scope = self._scopes.get(event.stream_id)
        if scope is not None:
            scope.cancel()

    def _on_first(self, stream: LinkStream, frame: Frame) -> None:
        match frame:
            case frames.Open():
                self._on_open(stream, frame)
            case frames.Call() | frames.Reply():
                self._dispatch.handle(frame)
                self.leave(stream, wait_for_peer=True)
            case frames.Invited() if not self._core.protocol.dialed:
                self._on_invited(stream, frame.id)
            case _:
                raise PeerError("it opened a stream for nothing that we know")

    def _on_invited(self, stream: LinkStream, number: int) -> None:
        if number in self._invites:
            self._invites[number] = stream
            self._invited.wake()
        else:
            # Whoever asked for it has left.
            self.reset(stream)

    def _on_open(self, stream: LinkStream, frame: frames.Open) -> None:
        service = self._core.services.get(frame.service)
        if service is None or service.stream is None:
            self._core.drop(frame.service)
            self.reset(stream)
            return
        message = self._dispatch.decoded(service, frame.body)
        self._core.spawn(self._serve, stream, service, message)

    async def _serve(
        self, stream: LinkStream, service: Service[Any], message: object
    ) -> None:
        assert service.stream is not None
        with trio.CancelScope() as scope:
            self._scopes[stream.stream_id] = scope
            try:
                await service.stream(stream, message)
            except LinkError as error:
                log.debug("stream of %s: %s", self._core.peer, error)
                self.reset(stream)
            except Exception:  # noqa: BLE001 - a boundary: reported
                log.exception("stream of %s failed", self._core.peer)
                self.reset(stream)
            finally:
                del self._scopes[stream.stream_id]
        self.leave(stream, wait_for_peer=False)
