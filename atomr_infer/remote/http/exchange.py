"""One request and its answer, whatever the version of HTTP that carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from atomr_infer.remote.http.headers import Headers
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from atomr_infer.remote.http.http1 import ResponseHead


@attrs.define(kw_only=True)
class Call:
    """A request, as its caller wants it; not frozen, which would cost a microsecond.

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
    headers: Headers = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    head: bytes = attrs.field(repr=False)
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

    def due_by(self, instant: float) -> None:
        """Let every wait from here on end at an instant, at the latest."""
