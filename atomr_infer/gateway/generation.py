"""One generation, from the request's body to the last byte of its answer.

The same for every dialect: an ``Ingress`` reads and writes, this drives.

Headers wait for the first chunk: an error before it still has its own HTTP
status.  After it, an error is an event of the stream, and the stream then ends
as no complete one does, so that a client never takes half an answer for a
whole one.

An answer in the client's own dialect comes as ``RawChunk`` and leaves byte for
byte as it came.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError, InternalError
from atomr_infer.gateway.answer_headers import (
    STREAM_HEADERS,
    cost_comment,
    cost_headers,
    failed_headers,
    native_finish_headers,
    overhead_headers,
    request_id_headers,
    served_headers,
)
from atomr_infer.gateway.client_wishes import (
    tells_cost,
    timeout_of,
    wants_early_stream,
    with_wishes,
)
from atomr_infer.gateway.conversations import Conversations, is_kept
from atomr_infer.gateway.silences import BUSY, Silences
from atomr_infer.gateway.tenants import Tenants
from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.policy.token_estimate import estimate_prompt_tokens
from atomr_infer.serving.request import run_request
from atomr_infer.serving.shared import Serving
from atomr_infer.serving.straight import OrdinaryWayError, straight
from atomr_infer.wire.ingress import AnswerFacts, Asked, Call, Ingress
from atomr_infer.wire.openai.responses_items import streamed_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.gateway.exchange import Exchange
    from atomr_infer.gateway.silences import Silent
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import Cost
    from atomr_infer.serving.request import Served
    from atomr_infer.serving.straight import Failed
    from atomr_infer.wire.ingress import AnswerBuilder, StreamEncoder

log = logging.getLogger(__name__)

_EVENTS = "text/event-stream"


@attrs.frozen
class Backing:
    """What all requests of a gateway share.

    Attributes:
        serving: what serves them.
        conversations: what responses go on from.
        silences: what keeps silent streams open.
        tenants: tells the clients apart; None: there is nobody to tell apart.
    """

    serving: Serving
    conversations: Conversations
    silences: Silences
    tenants: Tenants | None = None


class Generation:
    """A request to generate, and its answer."""

    def __init__(
        self,
        backing: Backing,
        exchange: Exchange,
        *,
        ingress: Ingress,
        call: Call,
        owner: bytes,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            backing: what serves it.
            exchange: where the answer goes.
            ingress: the route's dialect.
            call: the request.
            owner: who asks.
        """
        self._silences = backing.silences
        self._conversations = backing.conversations
        self._tenants = backing.tenants
        self._owner = owner
        self._serving = backing.serving
        self._exchange = exchange
        self._ingress = ingress
        self._call = call
        self._answer: _StreamAnswer | _WholeAnswer | None = None
        self._read_at = trio.current_time()

    async def run(self) -> None:
        """Answer it, whatever comes of it; its client is always told.

        Cancellation: ends the generation; nothing more is sent.
        """
        request_id = self._call.request_id
        try:
            await self._generate()
        except InferenceError as error:
            await self.fail(error)
        except Exception:
            # The last boundary before the socket: a bug of ours must reach the
            # client as an explicit error, in a stream too, and us by the log.
            log.exception("request %s: internal error", request_id)
            await self.fail(InternalError(f"internal error; request id {request_id}"))
        finally:
            if isinstance(self._answer, _StreamAnswer):
                self._silences.watched.discard(self._answer)

    async def _generate(self) -> None:
        failed = None
        glanced = self._glance()
        if glanced is not None:
            if self._tenants is not None:
                await self._tenants.check(self._call, owner=self._owner)
            reread = partial(_conversation, self._ingress, self._call)
            way = straight(self._serving, glanced.batch, reread=reread)
            if way is not None:
                answer = self._answer_to(glanced)
                try:
                    answer.cost = await way.run(answer)
                except OrdinaryWayError as ordinary:
                    failed = ordinary.failed
                else:
                    await answer.finish()
                    return
        await self._ordinary(failed)

    def _glance(self) -> Asked | None:
        """Return the request, when it can be told at once that it is a usual one."""
        glanced = self._ingress.glance(self._call)
        headers = self._call.headers
        if glanced is None or wants_early_stream(headers):
            return None
        timeout_s = timeout_of(headers)
        if timeout_s is None:
            return glanced
        batch = attrs.evolve(glanced.batch, timeout_s=timeout_s)
        return attrs.evolve(glanced, batch=batch)

    def _answer_to(self, asked: Asked) -> _StreamAnswer | _WholeAnswer:
        answer: _StreamAnswer | _WholeAnswer
        if asked.batch.stream:
            answer = _StreamAnswer(self._exchange, self._ingress, asked)
            answer.watched = self._silences.watched
            answer.tells_cost = tells_cost(asked.batch.dialect, self._call.headers)
        else:
            answer = _WholeAnswer(self._exchange, self._ingress, asked)
        answer.read_at = self._read_at
        if self._tenants is not None:
            answer.note = partial(self._tenants.note, owner=self._owner)
        self._answer = answer
        return answer

    async def _ordinary(self, failed: Failed | None) -> None:
        """Answer it in the ordinary way, prepared for whatever may go wrong."""
        try:
            asked = self._ingress.parse(self._call)
        except InferenceError as error:
            log.info("request %s refused: %s", self._call.request_id, error)
            raise
        if asked.previous is not None:
            asked = await self._resumed(asked)
        if self._tenants is not None:
            await self._tenants.check(self._call, owner=self._owner)
        batch = with_wishes(self._serving, asked.batch, self._call.headers)
        if batch is not asked.batch:
            asked = attrs.evolve(asked, batch=batch)
        answer = self._answer_to(asked)
        if isinstance(answer, _StreamAnswer) and wants_early_stream(self._call.headers):
            answer.begin_early()
        if is_kept(asked):
            answer.keep = partial(
                self._conversations.keep, self._call, owner=self._owner
            )
        served = await run_request(self._serving, batch, answer, failed)
        answer.cost = served.cost
        await answer.finish()

    async def _resumed(self, asked: Asked) -> Asked:
        asked, self._call = await self._conversations.resume(
            self._ingress, self._call, asked, owner=self._owner
        )
        return asked

    async def fail(self, error: InferenceError) -> None:
        """Tell the client that it failed: by status, or inside its stream."""
        if self._exchange.started:
            assert self._answer is not None, "only an answer starts an exchange"
            await self._answer.fail(error)
            return
        request_id = self._call.request_id
        refusal = self._ingress.refuse(error, request_id)
        headers = [
            *refusal.headers,
            *request_id_headers(request_id, self._ingress.dialect),
            *failed_headers(error),
        ]
        await self._exchange.answer(refusal.status, refusal.body, headers)


def _conversation(ingress: Ingress, call: Call) -> ExecuteBatch:
    return ingress.parse(call).batch


class _Answer:
    """What both kinds of answer share.

    Attributes:
        served: who answers; set before the first chunk.
        cost: what it cost; known when it is over.
        keep: stores a response object of ours; None: it is not stored.
        note: remembers what the upstream keeps of an answer; None: it need not.
        read_at: when the request was read, in trio's clock.
    """

    cost: Cost | None = None
    keep: Callable[[bytes], Awaitable[None]] | None = None
    note: Callable[[tuple[str, ...]], Awaitable[None]] | None = None
    read_at: float
    _begun_at: float

    def __init__(self, exchange: Exchange, ingress: Ingress, asked: Asked) -> None:
        self._exchange = exchange
        self._ingress = ingress
        self._asked = asked
        self._served: Served | None = None

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
        ]

    def _passed_on(self) -> None:
        """Take back what would have been dropped: the upstream got all of it."""
        self._asked = attrs.evolve(self._asked, warnings=())

    def _facts(self) -> AnswerFacts:
        served = self._served
        return AnswerFacts(
            request_id=self._asked.batch.request_id,
            created_s=int(time.time()),
            model=self._asked.batch.model if served is None else served.model,
            prompt_tokens=estimate_prompt_tokens(self._asked.batch),
        )


class _StreamAnswer(_Answer):
    """Sends every chunk as server-sent events, as it comes.

    Attributes:
        quiet: see :class:`~atomr_infer.gateway.silences.Silent`.
        watched: the streams that are kept open; it joins them when it begins.
        tells_cost: whether what it cost stands in a comment behind it.
    """

    quiet = BUSY
    tells_cost = False
    watched: set[Silent]
    _encoder: StreamEncoder | None = None
    _first: bytes | None = None
    _last = b""

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        if isinstance(chunk, RawChunk):
            if self._first is None:
                self._first = chunk.data
                self._passed_on()
                await self._start(chunk.content_type)
            if chunk.names and self.note is not None:
                await self.note(chunk.names)
            data = self._last = chunk.data
        else:
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
        keepalive = self._ingress.keepalive
        if self._exchange.started:
            self._exchange.nudge(keepalive)
            return
        kind = (b"content-type", self._asked.stream_type.encode("latin-1"))
        known = request_id_headers(self._asked.batch.request_id, self._ingress.dialect)
        self._exchange.begin(200, [kind, *STREAM_HEADERS, *known], keepalive)

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
        self.quiet = BUSY
        data = b"" if self._encoder is None else self._encoder.end()
        if self.keep is not None and self._encoder is not None:
            await self.keep(streamed_response(data))
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


class _WholeAnswer(_Answer):
    """Collects every chunk and sends one JSON object."""

    _builder: AnswerBuilder | None = None
    _raw: RawChunk | None = None
    _native: tuple[str, ...] = ()

    async def chunk(self, chunk: TokenChunk | RawChunk) -> None:
        if isinstance(chunk, RawChunk):
            self._passed_on()
            self._raw = chunk
            return
        if self._builder is None:
            self._builder = self._ingress.whole(self._asked, self._facts())
        self._builder.add(chunk)
        if chunk.native_finish is not None:
            self._native += (chunk.native_finish,)

    async def fail(self, error: InferenceError) -> None:
        """End an answer whose head is out but not its body: only a cut tells."""
        raise AssertionError(f"a whole answer is sent at once, yet {error}")

    async def finish(self) -> None:
        if self._raw is not None:
            body = self._raw.data
            if self._raw.names and self.note is not None:
                await self.note(self._raw.names)
        else:
            assert self._builder is not None, "an answer has at least one chunk"
            body = self._builder.build()
            if self.keep is not None:
                await self.keep(body)
        headers = [*self._headers(), *cost_headers(self.cost)]
        headers += native_finish_headers(self._native, body)
        await self._exchange.answer(200, body, headers)
