"""One HTTP request and its answer, over ASGI: the only place that speaks it.

Source: ASGI specification 3.0, "HTTP connection scope".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
import trio

from atomr_infer.gateway.guarded_stream import STREAM, GuardedStream

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")


# A body may be large and its line slow; a byte now and then is no upload.
_BODY_FACTOR = 10

_LOOK_EVERY_S = 1.0


class ClientGoneError(Exception):
    """The client closed its connection; nobody waits for an answer."""


@attrs.frozen
class BodyTooLargeError(Exception):
    """The body is larger than the gateway takes.

    Attributes:
        limit_bytes: the largest that it takes.
    """

    limit_bytes: int


class Exchange:
    """An HTTP request to read and its answer to write."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path = _origin_form(scope["path"])
        self._stream: GuardedStream | None = scope.get("state", {}).get(STREAM)
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._receive = receive
        self._send = send
        self.started = False
        self.ended = False

    def header(self, name: bytes) -> bytes | None:
        """Return a request header by its lower-case name; None when absent."""
        return next((value for key, value in self._headers if key == name), None)

    async def read_body(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """Return the whole request body.

        Args:
            limit_bytes: the largest body that is taken.
            timeout_s: longest silence between two pieces; ten times as long
                for the whole body.

        Raises:
            BodyTooLargeError: it is, or says it will be, larger.
            trio.TooSlowError: the client stopped sending.
            ClientGoneError: the client left.
        """
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

    async def client_gone(self) -> None:
        """Wait until the client closes its connection; read the body first."""
        while True:
            with trio.move_on_after(_LOOK_EVERY_S):
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    return
            # A pipelined request keeps the server from reading the end of file.
            if self._stream is not None and self._stream.client_closed():
                return

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers; once per exchange."""
        await self._send(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )
        self.started = True

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; it is on its way when this returns."""
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": True}
        )

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.ended = True
        await self._send(
            {"type": "http.response.body", "body": data, "more_body": False}
        )

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole JSON answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [JSON, length, *headers])
        await self.end(body)


def _origin_form(target: str) -> str:
    """Return the path of a target that may name scheme and host (RFC 9112, 3.2.2)."""
    for scheme in ("http://", "https://"):
        if target.lower().startswith(scheme):
            _, slash, path = target[len(scheme) :].partition("/")
            return slash + path or "/"
    return target
