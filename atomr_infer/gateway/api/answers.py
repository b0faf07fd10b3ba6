"""The answer to a generation, streamed or whole, as its client gets it.

Headers wait for the first chunk: an error before it still has its own HTTP
status.  After it, an error is an event of the stream, and the stream then ends
as no complete one does, so that a client never takes half an answer for a
whole one.

An answer in the client's own dialect comes as ``RawChunk`` and leaves byte for
byte as it came.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.gateway.access.conversations import NOT_STORED
from atomr_infer.gateway.exchanges.answer_headers import (
    STREAM_HEADERS,
    cost_comment,
    cost_headers,
    header_text,
    native_finish_headers,
    overhead_headers,
    request_id_headers,
    served_headers,
    warning_comment,
)
from atomr_infer.gateway.exchanges.silences import BUSY
from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.policy.estimates.token_estimate import estimate_prompt_tokens
from atomr_infer.wire.ingress import AnswerFacts, Asked, Ingress
from atomr_infer.wire.openai.responses_items import (
    streamed_response,
    unstored,
    unstored_stream,
)
from atomr_infer.wire.unshown import in_words, unshown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from atomr_infer.errors import InferenceError
    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.gateway.exchanges.silences import Silent
    from atomr_infer.model.cost import Cost
    from atomr_infer.serving.requests.request import Served
    from atomr_infer.wire.ingress import AnswerBuilder, StreamEncoder

__all__ = ["StreamAnswer", "WholeAnswer"]

_EVENTS = "text/event-stream"
_LOADING = b"x-atomr-loading"


class _Answer:
    """What both kinds of answer share.

    Attributes:
        served: who answers; set before the first chunk.
        cost: what it cost; known when it is over.
        keep: stores a response object of ours, and says whether it did; None: it
            is not to be stored.
        note: remembers what the upstream keeps of an answer, and says whether it
            did; None: it need not.
        read_at: when the request was read, in trio's clock.
        room: says what is left of the rate limit of who asks; None: it has none.
    """

    cost: Cost | None = None
    keep: Callable[[bytes], Awaitable[bool]] | None = None
    note: Callable[[tuple[str, ...]], Awaitable[bool]] | None = None
    room: Callable[[], Iterable[tuple[bytes, bytes]]] | None = None
    read_at: float
    _begun_at: float

    def __init__(self, exchange: Exchange, ingress: Ingress, asked: Asked) -> None:
        self._exchange = exchange
        self._ingress = ingress
        self._asked = asked
        self._served: Served | None = None
        self._missed: tuple[str, ...] = ()

    async def begin(self, served: Served) -> None:
        self._begun_at = trio.current_time()
        self._served = served

    @property
    def served(self) -> Served:
        assert self._served is not None, "begin() comes first"
        return self._served

    def _headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer; with its time that was ours, up to now."""
        served = self.served
        before_s = served.asked_at - self.read_at
        since_s = trio.current_time() - self._begun_at
        return [
            *served_headers(served, self._asked, self._ingress.dialect),
            *overhead_headers(before_s + since_s),
            *(() if self.room is None else self.room()),
        ]

    def _passed_on(self) -> None:
        """Take back what would have been dropped: the upstream got all of it."""
        if self._asked.warnings:
            self._asked = attrs.evolve(self._asked, warnings=())

    async def _is_kept(self, response: bytes) -> bool:
        """Store a response, where it is to be; return False when that failed."""
        return self.keep is None or await self.keep(response)

    async def _are_noted(self, names: tuple[str, ...]) -> bool:
        """Remember what the upstream keeps; return False when that failed."""
        return not names or self.note is None or await self.note(names)

    def _miss(self, chunk: TokenChunk) -> None:
        """Note what the client's dialect has no place for."""
        missed = unshown(chunk, self._ingress.dialect)
        self._missed = tuple(dict.fromkeys((*self._missed, *missed)))

    def _warn(self, text: str) -> None:
        """Say it in the headers, which have not gone."""
        self._asked = attrs.evolve(self._asked, warnings=(*self._asked.warnings, text))

    def _facts(self) -> AnswerFacts:
        served = self._served
        return AnswerFacts(
            request_id=self._asked.batch.request_id,
            created_s=int(time.time()),
            model=self._asked.batch.model if served is None else served.model,
            prompt_tokens=estimate_prompt_tokens(self._asked.batch),
        )


class StreamAnswer(_Answer):
    """Sends every chunk as server-sent events, as it comes.

    Attributes:
        quiet: see :class:`~atomr_infer.gateway.exchanges.silences.Silent`.
        watched: the streams that are kept open; it joins them when it begins.
        tells_cost: whether what it cost stands in a comment behind it.
        awaited: says what it waits for before its first chunk; "": for nothing.
    """

    quiet = BUSY
    tells_cost = False
    watched: set[Silent]
    awaited: Callable[[], str] = str
    _warning = b""
    _encoder: StreamEncoder | None = None
    _first: bytes | None = None
    _last = b""

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Send the next chunk."""
        if isinstance(chunk, RawChunk):
            if self._first is None:
                self._first = chunk.data
                self._passed_on()
                await self._start(chunk.content_type)
            if chunk.names and not await self._are_noted(chunk.names):
                self._warning = warning_comment(NOT_STORED)
            data = self._last = chunk.data
        else:
            if chunk.extra:
                self._miss(chunk)
            if self._encoder is None:
                self._encoder = self._ingress.stream(self._asked, self._facts())
                await self._start(self._asked.stream_type)
            data = self._encoder.encode(chunk)
        if data:
            self.quiet = BUSY
            await self._exchange.write(data)
            self.quiet = 0

    def begin_early(self) -> None:
        """Be kept open before the first chunk, too: its status is 200 then."""
        self.quiet = 0
        self.watched.add(self)

    def keep_alive(self) -> None:
        """Send what its client does not see, between two events."""
        keepalive, loading = self._ingress.keepalive, b""
        if self._first is None and self._encoder is None:
            loading = header_text(self.awaited())
        if loading and keepalive.strip():
            keepalive = b": %b: %b\n\n%b" % (_LOADING, loading, keepalive)
        if self._exchange.started:
            self._exchange.nudge(keepalive)
            return
        headers = [
            (b"content-type", self._asked.stream_type.encode("latin-1")),
            *STREAM_HEADERS,
            *request_id_headers(self._asked.batch.request_id, self._ingress.dialect),
        ]
        if loading:
            headers.append((_LOADING, loading))
        self._exchange.begin(200, headers, keepalive)

    async def _start(self, content_type: str) -> None:
        self.tells_cost = self.tells_cost and content_type.startswith(_EVENTS)
        if self._exchange.started:
            return  # while it was silent
        kind = (b"content-type", content_type.encode("latin-1"))
        await self._exchange.start(200, [kind, *STREAM_HEADERS, *self._headers()])
        # What an upstream answers to a stream may be no stream.
        if content_type.startswith(_EVENTS) or not self._ingress.keepalive.strip():
            self.watched.add(self)

    async def finish(self) -> None:
        """End a complete stream."""
        self.quiet = BUSY
        data = b"" if self._encoder is None else self._encoder.end()
        keeps = self.keep is not None and self._encoder is not None
        if keeps and not await self._is_kept(streamed_response(data)):
            data = unstored_stream(data)
            self._warning = warning_comment(NOT_STORED)
        if self._missed and self._ingress.keepalive.strip():
            self._warning += warning_comment(in_words(self._missed))
        data += self._warning
        data += cost_comment(self.cost) if self.tells_cost else b""
        await self._exchange.end(data)

    async def fail(self, error: InferenceError) -> None:
        """End a stream that has begun with an explicit error event."""
        self.quiet = BUSY
        facts = self._facts()
        if self._first is not None:
            facts = attrs.evolve(facts, joined=(self._first, self._last))
        encoder = self._encoder or self._ingress.stream(self._asked, facts)
        await self._exchange.end(encoder.fail(error))


class WholeAnswer(_Answer):
    """Collects every chunk and sends one JSON object."""

    _builder: AnswerBuilder | None = None
    _raw: RawChunk | None = None
    _native: tuple[str, ...] = ()

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        """Take the next chunk."""
        if isinstance(chunk, RawChunk):
            self._passed_on()
            self._raw = chunk
            return
        if self._builder is None:
            self._builder = self._ingress.whole(self._asked, self._facts())
        if chunk.extra:
            self._miss(chunk)
        self._builder.add(chunk)
        if chunk.native_finish is not None:
            self._native += (chunk.native_finish,)

    async def fail(self, error: InferenceError) -> None:
        """End an answer whose head is out but not its body: only a cut tells."""
        raise AssertionError(f"a whole answer is sent at once, yet {error}")

    async def finish(self) -> None:
        """Send what the chunks make up."""
        if self._raw is not None:
            body = self._raw.data
            stored = await self._are_noted(self._raw.names)
        else:
            assert self._builder is not None, "an answer has at least one chunk"
            body = self._builder.build()
            stored = await self._is_kept(body)
            body = body if stored else unstored(body)
        if not stored:
            self._warn(NOT_STORED)
        if self._missed:
            self._warn(in_words(self._missed))
        headers = [*self._headers(), *cost_headers(self.cost)]
        headers += native_finish_headers(self._native, body)
        await self._exchange.answer(200, body, headers)
