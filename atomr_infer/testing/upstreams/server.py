"""One connection of a fake upstream: HTTP/1.1 over h11, one step at a time.

While an answer is under way the connection is read as well, for that is how a
client that leaves is noticed at once, as a real server would.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterable, Mapping

import attrs
import h11
import trio

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

_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


@attrs.frozen
class RequestHead:
    """A request, its body included."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ServerConnection:
    """The server's side of one connection.

    Attributes:
        complete: True once the current answer was sent to its end.
        peer_left: True once the client was seen to end or drop it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER)
        self._pending = bytearray()
        self.complete = False
        self.peer_left = False

    async def receive_request(self) -> RequestHead | None:
        """Wait for the next request; None when the client ends the connection."""
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = await self._next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return _request(request, bytes(body))
            else:
                return None

    async def perform(self, steps: Iterable[Step]) -> bool:
        """Answer; True when the connection can take another request.

        Returns early, with False, when the client leaves or a step ends the
        connection.
        """
        kept = self.complete = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._watch_peer()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                kept = await self._take(steps)
            except trio.BrokenResourceError:
                self.peer_left = True
            nursery.cancel_scope.cancel()
        return kept and not self.peer_left

    async def _take(self, steps: Iterable[Step]) -> bool:
        for step in steps:
            if isinstance(step, Cut):
                return False
            await self._do(step)
        await self._end()
        return self._h11.our_state is h11.DONE

    async def _do(self, step: Step) -> None:
        match step:
            case Head(status, headers, length):
                await self._send(_response(status, headers, length))
            case Body(data, last):
                await self._send(h11.Data(data=data), last=last)
            case Raw(data):
                await self._stream.send_all(data)
            case Wait(seconds):
                await trio.sleep(seconds)
            case End():
                await self._end()
            case Hang():
                await trio.sleep_forever()
            case ShutDown():
                await self._end_sending()

    async def _end(self) -> None:
        if not self.complete:
            await self._send(h11.Data(data=b""), last=True)

    async def _end_sending(self) -> None:
        if not isinstance(self._stream, trio.abc.HalfCloseableStream):
            raise TypeError(f"{self._stream!r} cannot end its sending side")
        await self._stream.send_eof()
        await trio.sleep_forever()

    async def _send(
        self, event: h11.Response | h11.Data, *, last: bool = False
    ) -> None:
        data = self._h11.send(event) or b""
        if last:
            data += self._h11.send(h11.EndOfMessage()) or b""
        # A client that has its whole answer may leave at once: where nothing
        # is left to send, there is no moment at which that could interrupt.
        if data:
            await self._stream.send_all(data)
        self.complete = self.complete or last

    async def _watch_peer(self) -> None:
        """Return when the client has ended or dropped the connection."""
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.peer_left = True
                return
            # The front of the next request, sent early.
            self._pending += data

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError:
                await self._refuse()
                return None
            if event is not h11.NEED_DATA:
                return event
            if self._h11.they_are_waiting_for_100_continue:
                informational = h11.InformationalResponse(status_code=100, headers=[])
                await self._stream.send_all(self._h11.send(informational) or b"")
            data, self._pending = bytes(self._pending), bytearray()
            try:
                data = data or bytes(await self._stream.receive_some(_READ_BYTES))
            except trio.BrokenResourceError:
                return None
            self._h11.receive_data(data)

    async def _refuse(self) -> None:
        """Tell a client whose bytes are no HTTP, and have done with it."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.send_all(_NOT_HTTP)


def _request(request: h11.Request, body: bytes) -> RequestHead:
    headers = {
        name.decode("ascii"): value.decode("latin-1") for name, value in request.headers
    }
    return RequestHead(
        request.method.decode("ascii"), request.target.decode("ascii"), headers, body
    )


def _response(
    status: int, headers: tuple[tuple[str, str], ...], length: int | None
) -> h11.Response:
    framing = (
        ("transfer-encoding", "chunked")
        if length is None
        else ("content-length", str(length))
    )
    fields = [
        (name.encode("ascii"), value.encode("latin-1"))
        for name, value in (*headers, framing)
    ]
    reason = http.client.responses.get(status, "")
    return h11.Response(status_code=status, headers=fields, reason=reason.encode())
