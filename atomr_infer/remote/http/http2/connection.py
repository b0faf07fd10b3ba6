"""One HTTP/2 connection: two tasks move its bytes for all of its streams.

The tasks belong to the client's nursery.  They are tasks of their own because
the connection must be read and written whatever becomes of a request: one that
is cancelled in the middle of a write would leave half a frame behind, and one
that stops to read would leave pings and the other streams unanswered.

A request writes at once what the socket takes, and wakes the writer for the
rest.  So a stream that is left is reset before its block's exit returns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from atomr.waking import Wakeup
from atomr_infer.remote.http.http1 import PeerClosedError
from atomr_infer.remote.http.http2.protocol import Http2Protocol, RefusedError
from atomr_infer.remote.http.http2.stream import Http2Stream
from atomr_infer.remote.http.phases import TRANSPORT_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.remote.http.exchange import Call
    from atomr_infer.remote.http.origin import Origin
    from atomr_infer.remote.http.pipe import Pipe
    from atomr_infer.remote.http.watchdog import Watchdog

WRITE_STUCK_S = 60.0
"""A peer that takes no byte for so long is gone."""


class Http2Connection:
    """A connection that many exchanges share.

    Attributes:
        opened_at: when it was opened.
        exchanges: exchanges that ended well.
        read_at: when bytes came last.
        error: what ended it; None while it lives.
        end: the same in a word, for telemetry.
        due_at: when the writer counts as stuck, or the idle connection as old.
    """

    def __init__(
        self,
        pipe: Pipe,
        *,
        origin: Origin,
        watchdog: Watchdog,
        max_age_s: float,
        changed: Callable[[Http2Connection], None],
    ) -> None:
        """Take over a pipe; :meth:`read` and :meth:`write` must be run.

        Args:
            pipe: the connection, nothing written to it yet.
            origin: the upstream, for messages.
            watchdog: keeps the time.
            max_age_s: how long it is kept without a stream.
            changed: called when there is more room, or the connection ended.
        """
        self._pipe = pipe
        self._origin = origin
        self._watchdog = watchdog
        self._max_age_s = max_age_s
        self._changed = changed
        self._protocol = Http2Protocol()
        self._streams: dict[int, Http2Stream] = {}
        self._senders: set[Http2Stream] = set()
        self._unwritten = b""
        self._writing = False
        self._wake_writer = Wakeup()
        self._retired = False
        self.opened_at = self.read_at = trio.current_time()
        self.exchanges = 0
        self.error: Exception | None = None
        self.end = "failed"
        self.due_at = math.inf
        watchdog.watched.add(self)
        self.flush()
        self._rest()

    @property
    def active(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    @property
    def room(self) -> int:
        """How many more streams it takes; 0 when it is to end."""
        if self.error is not None or self._retired:
            return 0
        return max(0, self._protocol.room)

    @property
    def told(self) -> bool:
        """True once the peer has said how many streams it takes."""
        return self._protocol.told

    @property
    def lives(self) -> bool:
        """True while it takes streams, or may again."""
        return self.error is None and not self._retired and not self._protocol.goaway

    def retire(self) -> None:
        """Open no further streams; those that run go on."""
        self._retired = True

    def open(self, call: Call, fields: Sequence[tuple[bytes, bytes]]) -> Http2Stream:
        """Begin an exchange: write its head, and of its body what can be written.

        Args:
            call: the request.
            fields: its head, pseudo-header fields first.

        Raises:
            RefusedError: no further stream can be opened.
        """
        if not self.room:
            raise RefusedError("the connection takes no further stream")
        self.due_at = math.inf
        answer = self._protocol.open(fields, call.body)
        stream = Http2Stream(
            self, answer, call, origin=self._origin, watchdog=self._watchdog
        )
        self._streams[answer.stream_id] = stream
        if answer.unsent:
            self._senders.add(stream)
        self.flush()
        return stream

    def push(self, stream: Http2Stream) -> None:
        """Write more of a request's body; the stream is woken when more can be."""
        answer = stream.answer
        before = -1
        while answer.unsent and len(answer.unsent) != before and not self._writing:
            before = len(answer.unsent)
            self._protocol.push(answer)
            self.flush()
        if not answer.unsent:
            self._senders.discard(stream)

    def take(self, stream: Http2Stream) -> bytes | None:
        """Take what is here of a body, and let the peer send as much again."""
        piece = self._protocol.take(stream.answer)
        if piece:
            self.flush()
        return piece

    def close_stream(self, stream: Http2Stream, *, well: bool) -> None:
        """End an exchange; the peer is told when it was not over."""
        self._streams.pop(stream.answer.stream_id, None)
        self._senders.discard(stream)
        self._protocol.close(stream.answer)
        self.exchanges += well
        if self.error is None:
            self.flush()
        self._rest()
        self._changed(self)

    def flush(self) -> None:
        """Write what is to be written.

        What is alone is written at once.  With other streams about it is left
        to the writer, which runs behind whoever is ready now, and writes for
        all of them.
        """
        if self._writing or not self._protocol.pending:
            return
        if len(self._streams) > 1 or not self._write_nowait(self._protocol.to_send()):
            self._writing = True
            self._wake_writer.set()

    def _flush_last(self) -> None:
        """Write at once what is to be written before the end."""
        if not self._writing and self._protocol.pending:
            self._write_nowait(self._protocol.to_send())

    def _write_nowait(self, data: bytes) -> bool:
        """Write what the socket takes now; True when that was all."""
        try:
            sent = self._pipe.send_nowait(memoryview(data))
        except OSError as error:
            self._end(error)
            return True
        self._unwritten = data[sent:]
        return not self._unwritten

    async def read(self) -> None:
        """Read until the connection ends."""
        try:
            while self.error is None:
                data = await self._pipe.receive()
                if not data:
                    raise PeerClosedError("the peer closed the connection")
                self.read_at = trio.current_time()
                before = (self.told, self.room)
                for stream_id in self._protocol.receive(data):
                    self._tell(stream_id)
                self.flush()
                self._rest()
                if (self.told, self.room) > before:
                    self._changed(self)
        except TRANSPORT_ERRORS as error:
            # What h2 wrote about a mistake of the peer's is worth a try.
            self._flush_last()
            self._end(error)
        finally:
            await self._pipe.close()

    async def write(self) -> None:
        """Write what did not go out at once, until the connection ends."""
        try:
            while self.error is None:
                await self._wake_writer.wait()
                data = self._unwritten or self._protocol.to_send()
                while data and self.error is None:
                    if not self._write_nowait(data):
                        await self._write_rest()
                    data = self._protocol.to_send()
                self._writing = False
                self.due_at = math.inf
                for stream in self._senders:
                    stream.wakeup.set()
                self._rest()
        except TRANSPORT_ERRORS as error:
            self._end(error)
        finally:
            # Which wakes the reader, if it was not what ended the connection.
            await self._pipe.close()

    async def _write_rest(self) -> None:
        self.due_at = trio.current_time() + WRITE_STUCK_S
        self._watchdog.notice(self.due_at)
        await self._pipe.send(memoryview(self._unwritten))
        self._unwritten = b""

    async def expire(self) -> None:
        """End a connection that is stuck, or that was idle for too long."""
        if self._writing:
            self._end(PeerClosedError(f"it took no bytes for {WRITE_STUCK_S:g} s"))
            await self._pipe.close()
        elif not self._streams:
            await self.close(reason="idle")

    async def close(self, *, reason: str) -> None:
        """Close at once; what is open is cut."""
        if self.error is None:
            self.end = reason
            self._protocol.leave()
            self._flush_last()
            self._end(trio.ClosedResourceError("the connection was closed here"))
        await self._pipe.close()

    def _rest(self) -> None:
        """Let the watchdog close a connection without streams, at last."""
        if self._streams or self._writing or self.error is not None:
            return
        if self.due_at == math.inf or not self.lives:
            kept_s = self._max_age_s if self.lives else 0.0
            self.due_at = trio.current_time() + kept_s
            self._watchdog.notice(self.due_at)

    def _tell(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.wakeup.set()

    def _end(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        self._watchdog.watched.discard(self)
        self._protocol.fail(error)
        self._wake_writer.set()
        for stream in self._streams.values():
            stream.wakeup.set()
        self._changed(self)
