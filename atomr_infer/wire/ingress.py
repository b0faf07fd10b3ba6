"""What each client dialect must offer to the gateway.

An :class:`Ingress` is one route's format: it reads a request into the canonical
form, and writes answers, streams and errors back.  The gateway drives it and
knows no dialect itself.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import attrs

from atomr_infer.model.asker import ANYBODY, Visitor
from atomr_infer.model.batch import ExecuteBatch, TokenChunk

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.dialect import Dialect

EVENT_STREAM = "text/event-stream; charset=utf-8"
"""The media type of server-sent events."""


@attrs.frozen(kw_only=True)
class Call:
    """A request as it came over HTTP.

    Attributes:
        request_id: ours.
        body: the whole body, decompressed.
        headers: by lower-case name.
        query: by name; the last one of a name that stands twice.
        model: the model's name where the path holds it; None: the body does.
        action: what follows the model in the path (``streamGenerateContent``).
        previous: the items of the stored conversation that it goes on from, a
            JSON array; None: of none.
        visitor: who asks.
    """

    request_id: str
    body: bytes = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    query: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    model: str | None = None
    action: str | None = None
    previous: bytes | None = attrs.field(default=None, repr=False)
    visitor: Visitor = ANYBODY


@attrs.frozen(kw_only=True)
class Asked:
    """A request, read.

    Attributes:
        batch: its canonical form; ``batch.stream`` says whether events are
            wanted.
        include_usage: True when an OpenAI stream shall end with usage.
        warnings: members that were approximated or dropped, in one phrase each.
        stream_type: the media type of a streamed answer.
        previous: the id of the stored response that this one goes on from.
        store: True when the answer may be gone on from later.
        echo: the request's body, where an answer repeats members of it.
    """

    batch: ExecuteBatch
    include_usage: bool = False
    warnings: tuple[str, ...] = ()
    stream_type: str = EVENT_STREAM
    previous: str | None = None
    store: bool = False
    echo: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class AnswerFacts:
    """What an answer says about itself.

    Attributes:
        request_id: ours.
        created_s: Unix time in seconds.
        model: the model that serves.
        prompt_tokens: the best estimate before the upstream tells; at least 1.
        joined: the first and the last piece of the answer that the client has,
            as its upstream wrote them; None: it has none of the upstream's.
    """

    request_id: str
    created_s: int
    model: str
    prompt_tokens: int = 1
    joined: tuple[bytes, bytes] | None = attrs.field(default=None, repr=False)


@attrs.frozen
class ErrorAnswer:
    """An HTTP error answer.

    Attributes:
        status: HTTP status.
        body: the dialect's envelope.
        headers: extra headers, such as ``retry-after``.
    """

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class StreamEncoder(Protocol):
    """Writes one streamed answer; feed it every chunk in order."""

    def encode(self, chunk: TokenChunk) -> bytes:
        """Return the events for a chunk, as bytes to send; b"" for none."""
        ...

    def end(self) -> bytes:
        """Return the events that end a complete answer."""
        ...

    def fail(self, error: InferenceError) -> bytes:
        """Return the event that ends a broken answer; nothing may follow it."""
        ...


class AnswerBuilder(Protocol):
    """Collects one answer that is not streamed; feed it every chunk in order."""

    def add(self, chunk: TokenChunk) -> None:
        """Take the next chunk."""
        ...

    def build(self) -> bytes:
        """Return the whole answer as JSON."""
        ...


class Ingress(Protocol):
    """One client dialect on one route."""

    @property
    def dialect(self) -> Dialect:
        """Whose format it is."""
        ...

    @property
    def keepalive(self) -> bytes:
        """What may be sent during silence without a client noticing (W3)."""
        ...

    def parse(self, call: Call) -> Asked:
        """Read a request.

        Raises:
            InvalidRequestError: with ``param`` naming the member at fault.
        """
        ...

    def glance(self, call: Call) -> Asked | None:
        """Return a request without its conversation, where that can be told at once.

        Returns:
            What :meth:`parse` returns, as far as it matters to a request whose
            bytes are passed on; None: it must be parsed.
        """
        ...

    def stream(self, asked: Asked, facts: AnswerFacts) -> StreamEncoder:
        """Begin a streamed answer."""
        ...

    def whole(self, asked: Asked, facts: AnswerFacts) -> AnswerBuilder:
        """Begin an answer that is not streamed."""
        ...

    def refuse(self, error: InferenceError, request_id: str) -> ErrorAnswer:
        """Return the HTTP answer for an error that precedes the first byte."""
        ...

    def plain(
        self, status: int, message: str, request_id: str, *, code: str | None = None
    ) -> ErrorAnswer:
        """Return an answer for what HTTP itself refuses: 401, 404, 405, 408, 413."""
        ...


class ReadWhole:
    """A route whose requests cannot be told at a glance."""

    def glance(self, call: Call) -> Asked | None:
        """None: it must be parsed."""
        return None
