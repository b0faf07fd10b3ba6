"""One answer of an upstream, as its request's ``with`` block sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import UpstreamError, UpstreamProtocolError
from atomr_infer.remote.http.http1 import ResponseHead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.remote.http.exchange import Exchange

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Default cap of a body that is read as a whole; the largest answers (images
as base64) stay below it."""


class HttpResponse:
    """The answer to one request, valid inside its ``with`` block.

    Attributes:
        status: 200 to 599.
        headers: by lower-case name; repeated ones are joined with a comma.
    """

    __slots__ = ("_exchange", "_read", "headers", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._read = False  # the whole body
        self.status = exchange.head.status
        self.headers = exchange.head.headers

    async def receive(self) -> bytes | None:
        """Return the next piece of the body, never empty; None at its end.

        Raises:
            UpstreamTimeoutError: nothing came for ``idle_s``.
            StreamCutError: the connection was lost inside the body.
            UpstreamProtocolError: the body's framing is broken.
        """
        return await self._exchange.receive()

    def due_by(self, instant: float) -> None:
        """Let every wait from here on end at an instant of trio's clock.

        It takes the place of the one before, and of ``HttpTimeouts.total_s``:
        what comes too late is an ``UpstreamTimeoutError``, ``total_timeout``.
        """
        self._exchange.due_by(instant)

    def end(self) -> None:
        """Let go of the exchange: its connection may carry another one now."""
        self._exchange = _ENDED

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """Iterate over the pieces of the body as they come; see :meth:`receive`."""
        return _Pieces(self)

    async def read(self, *, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamProtocolError: it is longer than ``limit_bytes``.
        """
        pieces: list[bytes] = []
        size = 0
        while (piece := await self._exchange.receive()) is not None:
            size += len(piece)
            if size > limit_bytes:
                raise UpstreamProtocolError(
                    f"the answer is longer than {limit_bytes} bytes",
                    code="body_too_long",
                )
            pieces.append(piece)
        self._read = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def skip_rest(self, *, limit_bytes: int, within_s: float) -> None:
        """Read on to the end of the body, so that the connection can be kept.

        For a reader who has what it wants but has not seen the body's last
        frame.  Gives up, and lets the block's end close the connection, when
        the rest is longer or slower than said or is broken.
        """
        if self._read:
            return
        self.due_by(trio.current_time() + within_s)
        try:
            await self.read(limit_bytes=limit_bytes)
        except UpstreamError:
            # What was wanted is here; a connection that is in no state to be
            # kept is closed at the end of the block.
            return


class _Ended:
    """What is behind the end of a ``with`` block."""

    head = ResponseHead(0, {})

    async def receive(self) -> bytes | None:
        raise RuntimeError("an answer is read inside its with block only")

    def due_by(self, instant: float) -> None:
        raise RuntimeError("an answer is read inside its with block only")


_ENDED = _Ended()


class _Pieces:
    def __init__(self, response: HttpResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._response.receive()
        if piece is None:
            raise StopAsyncIteration
        return piece
