"""``POST /v1/chat/completions``: from the body to the last byte of the answer.

Headers wait for the first chunk: an error before it still has its own HTTP
status.  After it, an error is an event of the stream, and the stream then
ends without ``[DONE]``, so that a client never takes half an answer for a
whole one.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.serving.request import run_request
from atomr_infer.wire.openai import error_body
from atomr_infer.wire.openai.chat_answer import ChatAnswerBuilder, ChatStreamEncoder
from atomr_infer.wire.openai.chat_request import ChatRequest, parse_chat_request

if TYPE_CHECKING:
    from atomr_infer.gateway.exchange import Exchange
    from atomr_infer.model.batch import TokenChunk
    from atomr_infer.serving.request import Served
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_MAX_HEADER = 500  # characters; proxies refuse long headers

_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


async def chat_completions(
    serving: Serving, exchange: Exchange, body: bytes, request_id: str
) -> None:
    """Answer one chat completion.

    Args:
        serving: what serves it.
        exchange: where the answer goes.
        body: the request's body.
        request_id: ours; it is in the answer's headers and in the log.

    Raises:
        InferenceError: before the first byte; nothing was sent.
    """
    try:
        request = parse_chat_request(body)
    except InferenceError as error:
        log.info("request %s refused: %s", request_id, error)
        raise
    batch = ExecuteBatch(
        request_id=request_id,
        model=request.model,
        messages=request.messages,
        sampling=request.sampling,
        stream=request.stream,
        extra=request.extra,
    )
    answer: _StreamAnswer | _WholeAnswer
    if request.stream:
        answer = _StreamAnswer(exchange, request, request_id)
    else:
        answer = _WholeAnswer(exchange, request_id)
    await run_request(serving, batch, answer)
    await answer.finish()


async def break_stream(exchange: Exchange, error: InferenceError) -> None:
    """End a stream that has begun with an explicit error event."""
    await exchange.end(_event(error_body.envelope(error)))


class _StreamAnswer:
    """Sends every chunk as server-sent events, as it comes."""

    def __init__(
        self, exchange: Exchange, request: ChatRequest, request_id: str
    ) -> None:
        self._exchange = exchange
        self._include_usage = request.include_usage
        self._request_id = request_id
        self._encoder: ChatStreamEncoder | None = None

    async def begin(self, served: Served) -> None:
        self._encoder = ChatStreamEncoder(
            answer_id=_answer_id(self._request_id),
            created_s=int(time.time()),
            model=served.model,
            include_usage=self._include_usage,
        )
        await self._exchange.start(200, [*_STREAM_HEADERS, *headers(served)])

    async def chunk(self, chunk: TokenChunk) -> None:
        assert self._encoder is not None, "begin() comes first"
        events = self._encoder.encode(chunk)
        if events:
            await self._exchange.write(b"".join(map(_event, events)))

    async def finish(self) -> None:
        assert self._encoder is not None, "begin() comes first"
        await self._exchange.end(b"".join(map(_event, self._encoder.end())))


class _WholeAnswer:
    """Collects every chunk and sends one JSON object."""

    def __init__(self, exchange: Exchange, request_id: str) -> None:
        self._exchange = exchange
        self._request_id = request_id
        self._builder = ChatAnswerBuilder()
        self._served: Served | None = None

    async def begin(self, served: Served) -> None:
        self._served = served

    async def chunk(self, chunk: TokenChunk) -> None:
        self._builder.add(chunk)

    async def finish(self) -> None:
        assert self._served is not None, "begin() comes first"
        body = self._builder.build(
            answer_id=_answer_id(self._request_id),
            created_s=int(time.time()),
            model=self._served.model,
        )
        await self._exchange.answer(200, body, headers(self._served))


def headers(served: Served) -> list[tuple[bytes, bytes]]:
    """Return the headers that say who answered."""
    found = [
        (b"x-request-id", served.request_id.encode()),
        (b"x-atomr-deployment", served.deployment.encode()),
        (b"x-atomr-attempts", str(served.attempts).encode()),
    ]
    if served.ignored:
        ignored = ", ".join(served.ignored)
        warning = f"ignored by this model: {ignored}"
        found.append((b"x-atomr-warnings", _header_text(warning)))
    return found


def _answer_id(request_id: str) -> str:
    return f"chatcmpl-{request_id}"


def _event(data: bytes) -> bytes:
    # In JSON a line break can only be white space; in an event it would end it.
    one_line = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: " + one_line + b"\n\n"


def _header_text(text: str) -> bytes:
    """Make text that a client wrote fit for a header: printable, bounded."""
    shown = text if len(text) <= _MAX_HEADER else text[:_MAX_HEADER] + "..."
    return "".join(c if " " <= c <= "~" else "?" for c in shown).encode("ascii")
