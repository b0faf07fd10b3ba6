"""A response of OpenAI's Responses API that is passed on as it came.

Pure.

Source: OpenAI API reference, "Streaming events".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from atomr_infer.errors import StreamCutError, UpstreamProtocolError
from atomr_infer.model.batch import FinishReason, RawChunk
from atomr_infer.model.usage import Usage, split_total
from atomr_infer.wire.broken_off import BreaksOff, refuse_unasked
from atomr_infer.wire.openai.upstream import malformed
from atomr_infer.wire.openai.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.openai.upstream_stream import estimate_usage
from atomr_infer.wire.sse import SseReader
from atomr_infer.wire.sse_frames import FrameReader

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.secret import Secret
    from atomr_infer.wire.sse import SseEvent

_JSON = "application/json"
_LAST = ("response.completed", "response.incomplete")
_BROKEN = ("response.failed", "error")
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_CALLS = ("function_call", "custom_tool_call")
"""The items that a client answers."""

_INCOMPLETE = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _InputDetails(msgspec.Struct):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class _Item(msgspec.Struct):
    type: str = ""
    id: str | None = None
    container_id: str | None = None


class _Response(msgspec.Struct):
    id: str | None = None
    object: str | None = None
    status: str | None = None
    model: str | None = None
    usage: _Usage | None = None
    incomplete_details: _Incomplete | None = None
    error: Any = None
    output: list[_Item] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_Response).decode


class ResponsePass(BreaksOff):
    """Passes one response on, and knows what is in it.

    Attributes:
        skipped: events that were malformed.
        ended: True once the answer is over and its last chunk was returned.
    """

    def __init__(self, batch: ExecuteBatch, *, secret: Secret | None = None) -> None:
        """Expect the answer to ``batch``.

        Args:
            batch: what was asked.
            secret: our key, blotted out of the upstream's error messages.
        """
        self._batch = batch
        self._secret = secret
        self._frames = FrameReader()
        self._reader = SseReader()
        self._last: _Response | None = None
        self._model: str | None = None
        self._said = False
        self._output_bytes = 0
        self.skipped = 0
        self.ended = False

    def feed(self, data: bytes) -> list[RawChunk]:
        """Take bytes of the stream; return the whole events in them.

        Raises:
            InferenceError: an error inside the stream, an event beyond its cap,
                or nobody asked for a stream.
        """
        refuse_unasked(self._batch)
        return self._take(self._frames.feed(data))

    def close(self) -> list[RawChunk]:
        """Take the end of the body; return the chunk that ends the answer.

        Raises:
            StreamCutError: neither ``response.completed`` nor ``incomplete`` came.
        """
        rest = self._frames.close()
        chunks = self._take([rest.rstrip(b"\r\n") + b"\n\n"] if rest.strip() else [])
        if not self.ended and self.error is None:
            raise StreamCutError("the upstream's stream ended before its finish")
        return chunks

    def whole(self, body: bytes) -> list[RawChunk]:
        """Take a response that was not streamed; return it.

        Raises:
            InferenceError: it is malformed, or it failed, or a stream was asked
                for: the client's library would see an empty one.
        """
        try:
            response = _decode_response(body)
        except _DECODE_ERRORS as error:
            raise malformed("body") from error
        if response.error or response.object != "response":
            problem = parse_error(body)
            if problem is None and response.object != "response":
                raise malformed("body")
            raise classify(problem or ErrorBody(), secret=self._secret)
        if self._batch.stream:
            raise UpstreamProtocolError(
                "the upstream does not stream an answer that was asked for as events",
                code="unasked_whole",
            )
        self.ended = True
        return [
            RawChunk(
                data=body,
                finish_reason=_finish(response),
                usage=_usage(response) or estimate_usage(self._batch, len(body)),
                model=response.model,
                content_type=_JSON,
                names=_names(response),
            )
        ]

    def _take(self, frames: list[bytes]) -> list[RawChunk]:
        kept = self.take_all(frames, self._one)
        if not kept:
            return []
        last = self._last
        return [
            RawChunk(
                data=b"".join(kept),
                has_content=self._said,
                finish_reason=None if last is None else _finish(last),
                usage=None
                if last is None
                else _usage(last) or estimate_usage(self._batch, self._output_bytes),
                model=self._model,
                names=() if last is None else _names(last),
            )
        ]

    def _one(self, frame: bytes) -> list[bytes]:
        events = self._reader.feed(frame)
        return [frame] if events and self._is_kept(events[0]) else []

    def _is_kept(self, event: SseEvent) -> bool:
        try:
            decoded = _decode_event(event.data)
        except _DECODE_ERRORS:
            self.skipped += 1
            return False
        kind = decoded.type or event.event
        if kind in _BROKEN:
            raise classify(_problem(event.data), secret=self._secret)
        if decoded.response is not None:
            self._model = decoded.response.model or self._model
        if kind in _LAST:
            self.ended = True
            self._last = decoded.response or _Response()
        elif kind.endswith(".delta"):
            self._said = True
            self._output_bytes += len(event.data) // 4
        return True


def _problem(data: bytes) -> ErrorBody:
    """Return the error of a ``response.failed`` or an ``error`` event."""
    found = parse_error(data)
    if found is not None:
        return found
    try:
        members = msgspec.json.decode(data)
        inner = members.get("response", members)
        inner = inner.get("error") or inner
        return ErrorBody(message=inner.get("message"), code=inner.get("code"))
    except (*_DECODE_ERRORS, AttributeError):
        return ErrorBody()


def _finish(response: _Response) -> FinishReason:
    reason = response.incomplete_details and response.incomplete_details.reason
    if reason:
        return _INCOMPLETE.get(reason, FinishReason.LENGTH)
    if any(item.type in _CALLS for item in response.output or ()):
        return FinishReason.TOOL_CALLS
    return FinishReason.STOP


def _names(response: _Response) -> tuple[str, ...]:
    """Return what a later request may name of it."""
    items = response.output or ()
    names = [response.id, *(item.id for item in items)]
    names += [item.container_id for item in items]
    return tuple(dict.fromkeys(name for name in names if name))


def _usage(response: _Response) -> Usage | None:
    said = response.usage
    if said is None or said.input_tokens is said.output_tokens is None:
        return None
    inputs = said.input_tokens_details or _InputDetails()
    outputs = said.output_tokens_details or _OutputDetails()
    uncached, read, written = split_total(
        max(0, said.input_tokens or 0),
        (inputs.cached_tokens, inputs.cache_write_tokens),
    )
    text, reasoning = split_total(
        max(0, said.output_tokens or 0), (outputs.reasoning_tokens,)
    )
    return Usage(
        input_uncached=uncached,
        cache_read=read,
        cache_write_5m=written,
        output_text=text,
        reasoning=reasoning,
    )
