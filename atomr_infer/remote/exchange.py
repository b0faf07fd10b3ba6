"""One request and its answer, whatever the version of HTTP that carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from atomr_infer.remote.headers import Headers
from atomr_infer.remote.phases import TRANSPORT_ERRORS, HttpTimeouts, translate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.remote.connection import Http1Connection
    from atomr_infer.remote.http1 import ResponseHead
    from atomr_infer.remote.origin import Origin


@attrs.frozen(kw_only=True)
class Call:
    """A request, as its caller wants it.

    Attributes:
        method: ``GET``, ``POST``, ...
        path: behind the base URL's prefix.
        headers: beside the client's own.
        body: the whole body.
        head: method, path and headers as HTTP/1.1 writes them; checked.
        replay: send again on a fresh connection when a kept one was gone.
        timeouts: the limit of each phase.
        total_at: the instant by which everything must have ended.
    """

    method: str
    path: str
    headers: Headers
    body: bytes
    head: bytes
    replay: bool
    timeouts: HttpTimeouts
    total_at: float


class Exchange(Protocol):
    """An answer whose head is here.

    Attributes:
        head: status and headers.
    """

    head: ResponseHead

    async def receive(self) -> bytes | None:
        """Return the next piece of the body, never empty; None at its end."""

    async def finish(self) -> None:
        """End the exchange: keep the connection, or close what is unfinished."""


class Http1Exchange:
    """An exchange that has a connection to itself; see :class:`Exchange`."""

    __slots__ = ("_connection", "_origin", "_release", "_timeouts", "head")

    def __init__(
        self,
        connection: Http1Connection,
        head: ResponseHead,
        *,
        origin: Origin,
        timeouts: HttpTimeouts,
        release: Callable[[Http1Connection], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._origin = origin
        self._timeouts = timeouts
        self._release = release
        self.head = head

    async def receive(self) -> bytes | None:
        """See :meth:`Exchange.receive`."""
        try:
            return await self._connection.receive()
        except TRANSPORT_ERRORS as error:
            late_in = self._connection.late_in
            raise translate(
                error,
                phase=self._connection.phase,
                late_in=late_in,
                origin=self._origin,
                seconds=self._timeouts.of(late_in),
            ) from error

    async def finish(self) -> None:
        """See :meth:`Exchange.finish`."""
        await self._release(self._connection)
