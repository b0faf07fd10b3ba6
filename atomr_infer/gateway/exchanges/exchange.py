"""One HTTP request and its answer: what the routes see, whatever carries it.

There are two carriers: our own HTTP/1.1 (``atomr_infer.gateway.http1``) and
ASGI (``atomr_infer.gateway.listening.asgi_exchange``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable

import attrs

Headers = Iterable[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")

Work = Callable[[], Awaitable[None]]


class Notes:
    """What the routes have worked out of a head, to be used again.

    Attributes:
        known: theirs; None: nothing yet.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: object = None


class ClientGoneError(Exception):
    """The client closed its connection; nobody waits for an answer."""


@attrs.frozen
class BodyTooLargeError(Exception):
    """The body is larger than the gateway takes.

    Attributes:
        limit_bytes: the largest that it takes.
    """

    limit_bytes: int


class Exchange(ABC):
    """An HTTP request to read and its answer to write.

    Attributes:
        method: in upper case.
        path: percent-decoded, without the query.
        query: the raw bytes behind the question mark.
        headers: names in lower case and values, in order.
        started: status and headers are on their way, or sent.
        status: of the answer; 0: it has not begun.
        ended: the whole answer is.
        extra: headers of its answer, whichever it is.
        notes: what is worked out of its head, for others with the same one.
    """

    # Slots: one is made for each request.
    __slots__ = (
        "ended",
        "extra",
        "headers",
        "method",
        "notes",
        "path",
        "query",
        "started",
        "status",
    )

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    started: bool
    status: int
    ended: bool
    extra: Headers
    notes: Notes

    def header(self, name: bytes) -> bytes | None:
        """Return a request header by its lower-case name; None when absent."""
        return next((value for key, value in self.headers if key == name), None)

    @abstractmethod
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

    @abstractmethod
    async def run(self, work: Work, *, stopped: Work) -> None:
        """Do the work of an answer; read the body first.

        Work whose client has left is cancelled, and so is work that is
        interrupted.  The latter's client is then told by ``stopped``.

        Raises:
            ClientGoneError: the client has left; where it leaves in the middle
                of the work, this may be a cancellation from outside as well.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Cancel the work of :meth:`run`; does not wait."""

    @abstractmethod
    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer; its head leaves with the first piece of its body.

        Names are in lower case.  Once per exchange.
        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send a piece of the body; it is on its way when this returns."""

    @abstractmethod
    def begin(self, status: int, headers: Headers, data: bytes) -> None:
        """Begin the answer and send a first piece of its body; does not wait."""

    @abstractmethod
    def nudge(self, data: bytes) -> None:
        """Send a piece of the body now, or not at all; does not wait.

        Nothing is sent to a client that has not read what it has.  For an
        answer of which a piece has been sent, and none is being sent.
        """

    @abstractmethod
    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""

    async def answer(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole answer; JSON, where no header names another kind."""
        length = (b"content-length", b"%d" % len(body))
        kind = () if any(name == JSON[0] for name, _ in headers) else (JSON,)
        await self.start(status, [*kind, length, *headers])
        await self.end(body)
