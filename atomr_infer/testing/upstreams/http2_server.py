"""One HTTP/2 connection of a fake upstream: its requests side by side, over h2.

A step that drops the connection drops its stream alone (``RST_STREAM``), as the
front of a provider does, and one that ends the sending side says ``GOAWAY``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import attrs
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import trio

from atomr_infer.testing.upstreams.server import RequestHead
from atomr_infer.testing.upstreams.steps import (
    Body,
    Cut,
    End,
    Hang,
    Head,
    Raw,
    ShutDown,
    Step,
    Wait,
)

_READ_BYTES = 65536

Answer = Callable[[RequestHead, "Http2Stream"], Awaitable[None]]


class Http2Connection:
    """The server's side of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self._stream = stream
        self._sending = trio.Lock()
        self.h2 = h2.connection.H2Connection(config)
        self.streams: dict[int, Http2Stream] = {}

    async def serve(self, answer: Answer) -> None:
        """Answer requests until either side ends the connection."""
        self.h2.initiate_connection()
        await self.flush()
        async with trio.open_nursery() as nursery:
            while data := await self._receive():
                try:
                    events = self.h2.receive_data(data)
                except h2.exceptions.ProtocolError:
                    # It goes on after our GOAWAY; whoever asked has seen that.
                    break
                for event in events:
                    self._take(event, nursery, answer)
                await self.flush()
            for stream in self.streams.values():
                stream.leave()

    async def flush(self) -> None:
        """Send what h2 has to send."""
        async with self._sending:
            data = self.h2.data_to_send()
            if data:
                await self._stream.send_all(data)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(_READ_BYTES))
        except trio.BrokenResourceError:
            return b""

    def _take(
        self, event: h2.events.Event, nursery: trio.Nursery, answer: Answer
    ) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=number, headers=fields):
                self.streams[number] = Http2Stream(self, number, _texts(fields))
            case h2.events.DataReceived(stream_id=number, data=data):
                self.streams[number].body += data
                self.h2.acknowledge_received_data(len(data), number)
            case h2.events.StreamEnded(stream_id=number):
                stream = self.streams[number]
                nursery.start_soon(answer, stream.head(), stream)
            case h2.events.StreamReset(stream_id=number):
                self.streams[number].leave()
            case h2.events.WindowUpdated():
                for stream in self.streams.values():
                    stream.widen()


def _texts(fields: Iterable[tuple[str | bytes, str | bytes]]) -> dict[str, str]:
    """Return header fields by name; the configuration has decoded them."""
    return {str(name): str(value) for name, value in fields}


@attrs.define(eq=False)
class Http2Stream:
    """One request of a connection, and its answer.

    Attributes:
        complete: True once the answer was sent to its end.
        peer_left: True once the client was seen to reset it, or to go away.
    """

    _connection: Http2Connection
    _number: int
    _fields: dict[str, str]
    body: bytearray = attrs.field(factory=bytearray)
    complete: bool = False
    peer_left: bool = False
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _wider: trio.Event = attrs.field(factory=trio.Event)

    def head(self) -> RequestHead:
        """Return the request, its body included."""
        plain = {k: v for k, v in self._fields.items() if not k.startswith(":")}
        plain.setdefault("host", self._fields.get(":authority", ""))
        return RequestHead(
            self._fields[":method"], self._fields[":path"], plain, bytes(self.body)
        )

    def leave(self) -> None:
        """Take the news that the client has gone."""
        if not self.complete:
            self.peer_left = True
            self._scope.cancel()

    def widen(self) -> None:
        """Take the news that more may be sent."""
        self._wider.set()
        self._wider = trio.Event()

    async def perform(self, steps: Iterable[Step]) -> bool:
        """Answer; True when it was sent to its end."""
        with self._scope:
            try:
                await self._take(steps)
            except (trio.BrokenResourceError, h2.exceptions.StreamClosedError):
                self.complete = False
                self.peer_left = True
        return self.complete

    async def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Cut):
                if self.complete:
                    return
                h2_side = self._connection.h2
                code = h2.errors.ErrorCodes.INTERNAL_ERROR
                h2_side.reset_stream(self._number, error_code=code)
                await self._connection.flush()
                return
            await self._do(step)
        await self._end()

    async def _do(self, step: Step) -> None:
        match step:
            case Head(status, headers, length):
                sized = () if length is None else (("content-length", str(length)),)
                fields = [(":status", str(status)), *headers, *sized]
                self._connection.h2.send_headers(self._number, fields)
                await self._connection.flush()
            case Body(data, last):
                await self._send(data, last=last)
            case Wait(seconds):
                await trio.sleep(seconds)
            case End():
                await self._end()
            case ShutDown():
                self._connection.h2.close_connection()
                await self._connection.flush()
                await trio.sleep_forever()
            case Hang() | Raw():
                # Outside of frames nothing can be sent.
                await trio.sleep_forever()

    async def _send(self, data: bytes, *, last: bool) -> None:
        h2_side = self._connection.h2
        while data:
            room = h2_side.local_flow_control_window(self._number)
            size = min(len(data), room, h2_side.max_outbound_frame_size)
            if size <= 0:
                await self._wider.wait()
                continue
            piece, data = data[:size], data[size:]
            h2_side.send_data(self._number, piece, end_stream=last and not data)
            await self._connection.flush()
        self.complete = self.complete or last

    async def _end(self) -> None:
        if not self.complete:
            self._connection.h2.end_stream(self._number)
            self.complete = True
            await self._connection.flush()
