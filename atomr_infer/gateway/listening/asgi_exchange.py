"""An exchange over ASGI: the only place that speaks it.

Source: ASGI specification 3.0, "HTTP connection scope".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from atomr_infer.gateway.exchanges.exchange import (
    BodyTooLargeError,
    ClientGoneError,
    Exchange,
    Headers,
    Notes,
    Work,
)
from atomr_infer.gateway.exchanges.guarded_stream import STREAM, GuardedStream

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A body may be large and its line slow; a byte now and then is no upload.
_BODY_FACTOR = 10

_LOOK_EVERY_S = 1.0


class AsgiExchange(Exchange):
    """An exchange of an ASGI server's."""

    __slots__ = (
        "_begun",
        "_nudging",
        "_nursery",
        "_receive",
        "_send",
        "_stream",
        "_working",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method = scope["method"]
        self.path = _origin_form(scope["path"])
        self.query = scope["query_string"]
        self.headers = scope["headers"]
        self.started = False
        self.status = 0
        self.ended = False
        self.extra = ()
        self.notes = Notes()
        self._stream: GuardedStream | None = scope.get("state", {}).get(STREAM)
        self._receive = receive
        self._send = send
        self._working: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        self._nudging = False
        self._begun: trio.Event | None = None

    async def read_body(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Return the whole request body; see :class:`Exchange`."""
        declared = self.header(b"content-length")
        if declared is not None and int(declared) > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        pieces: list[bytes] = []
        size = 0
        give_up_at = trio.current_time() + _BODY_FACTOR * timeout_s
        while True:
            deadline = min(trio.current_time() + timeout_s, give_up_at)
            with trio.fail_at(deadline):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit_bytes:
                raise BodyTooLargeError(limit_bytes)
            if not message.get("more_body", False):
                return b"".join(pieces)

    async def run(self, work: Work, *, stopped: Work) -> None:
        """Do the work beside a task that watches the client."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
            with trio.CancelScope() as self._working:
                await work()
            if self._working.cancelled_caught and not self.ended:
                await stopped()
            nursery.cancel_scope.cancel()
        if not self.ended:
            raise ClientGoneError

    def interrupt(self) -> None:
        """Cancel the work; does not wait."""
        # One that sends its last bytes is as good as done; see below.
        if self._working is not None and not self.ended:
            self._working.cancel()

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, *self.extra],
            }
        )
        self.started = True
        self.status = status

    def begin(self, status: int, headers: Headers, data: bytes) -> None:
        """Begin the answer and send a first piece of its body; does not wait."""
        assert self._nursery is not None, "run() comes first"
        self.started = True
        self.status = status
        self._begun = trio.Event()
        self._nursery.start_soon(self._begin, self._begun, status, headers, data)

    async def _begin(
        self, begun: trio.Event, status: int, headers: Headers, data: bytes
    ) -> None:
        await self.start(status, headers)
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )
        self._begun = None
        begun.set()

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._begun is not None:
            await self._begun.wait()
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    def nudge(self, data: bytes) -> None:
        """Send a piece of the body now, or not at all; by a task of its own."""
        if self._nursery is not None and not self._nudging:
            self._nudging = True
            self._nursery.start_soon(self._nudge, data)

    async def _nudge(self, data: bytes) -> None:
        if not self.ended:
            await self.write(data)
        self._nudging = False

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        if self._begun is not None:
            await self._begun.wait()
        self.ended = True
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": False}
        )

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        await self._client_gone()
        # The server reports a disconnect behind every answer too, from inside our
        # last send: a cancellation would then cut its own clean-up short, and the
        # connection would never be closed or used again.
        if not self.ended:
            scope.cancel()

    async def _client_gone(self) -> None:
        while True:
            with trio.move_on_after(_LOOK_EVERY_S):
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return
            # A pipelined request keeps the server from reading the end of file.
            if self._stream is not None and self._stream.client_closed():
                return


def _origin_form(target: str) -> str:
    """Return the path of a target that may name scheme and host (RFC 9112, 3.2.2)."""
    for scheme in ("http://", "https://"):
        if target.lower().startswith(scheme):
            _, slash, path = target[len(scheme) :].partition("/")
            return slash + path or "/"
    return target
