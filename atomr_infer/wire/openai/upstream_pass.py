"""An answer of an OpenAI-like upstream that is passed on as it came.

The client speaks the provider's dialect, so its events go to it byte for byte,
with members that nobody here knows.  They are looked at on their way: for
content, the finish, usage, an error and the end.

Four things are not passed on so.  An error becomes an error here, so that the
request can still be made again when nothing was said yet.  A malformed event is
skipped and counted.  And the event that carries nothing but usage is held back
from a client that did not ask for it (W8): we did, for the bill.  Tool calls
that the server numbers wrongly get other numbers (T4).

Pure.

Source: OpenAI API reference, "Chat completion chunk object", "Completions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from atomr_infer.errors import StreamCutError
from atomr_infer.model.batch import FinishReason, RawChunk
from atomr_infer.model.dialect import Dialect
from atomr_infer.wire.broken_off import BreaksOff, refuse_unasked
from atomr_infer.wire.ingress import EVENT_STREAM, AnswerFacts
from atomr_infer.wire.openai.chat_answer import ChatStreamEncoder
from atomr_infer.wire.openai.completions import CompletionStreamEncoder
from atomr_infer.wire.openai.passed_calls import PassedCalls
from atomr_infer.wire.openai.upstream import finish_reason, malformed
from atomr_infer.wire.openai.upstream_errors import ErrorBody, classify, parse_error
from atomr_infer.wire.openai.upstream_stream import ChatAnswer, estimate_usage
from atomr_infer.wire.openai.upstream_usage import decode_usage
from atomr_infer.wire.sse import DONE, SseEvent, SseReader
from atomr_infer.wire.sse_frames import FrameReader

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.ingress import StreamEncoder

_JSON = "application/json"
_NULL = msgspec.Raw(b"null")
_SILENT = (b'""', b"null", b"[]")

_TOOL_CALLS = b'"tool_calls"'
_DATA = b"data: "
_DONE_FRAME = b"data: [DONE]\n\n"

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    delta: msgspec.Raw = _NULL
    message: msgspec.Raw = _NULL
    text: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NULL
    model: str | None = None
    object: str | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode


class ChatPass(BreaksOff):
    """Passes one chat or text completion on, and knows what is in it.

    Attributes:
        skipped: events that were malformed.
        ended: True once the answer is over and its last chunk was returned.
    """

    def __init__(
        self,
        batch: ExecuteBatch,
        *,
        show_usage: bool = True,
        secret: Secret | None = None,
    ) -> None:
        """Expect the answer to ``batch``.

        Args:
            batch: what was asked.
            show_usage: False when the client did not ask for usage.
            secret: our key, blotted out of the upstream's error messages.
        """
        self._batch = batch
        self._show_usage = show_usage
        self._secret = secret
        self._frames = FrameReader()
        self._reader = SseReader()
        self._calls = PassedCalls(batch.request_id)
        self._usage: Usage | None = None
        self._model: str | None = None
        self._unfinished = set(range(batch.sampling.n))
        self._finish: FinishReason | None = None
        self._told_finish = False
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

        Without ``[DONE]``, an answer is complete when each of its choices has
        finished; the client is then sent the ``[DONE]`` that it waits for.

        Raises:
            StreamCutError: there was neither ``[DONE]`` nor every finish.
        """
        rest = self._frames.close()
        chunks = self._take([rest.rstrip(b"\r\n") + b"\n\n"] if rest.strip() else [])
        if self.ended or self.error is not None:
            return chunks
        if self._unfinished:
            raise StreamCutError("the upstream's stream ended before its finish")
        self.ended = True
        return [*chunks, self._chunk(_DONE_FRAME)]

    def whole(self, body: bytes) -> list[RawChunk]:
        """Take an answer that was not streamed; return it.

        A client that asked for events gets events, made of it: its library would
        see an empty stream in a JSON object.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        chunk = self._decoded(SseEvent(body), what="body")
        if chunk is None or not chunk.choices:
            raise malformed("body")
        finish = chunk.choices[0].finish_reason
        self.ended = True
        answer = RawChunk(
            data=body,
            finish_reason=finish_reason(finish or "stop"),
            usage=decode_usage(bytes(chunk.usage))
            or estimate_usage(self._batch, len(body)),
            model=chunk.model,
            content_type=_JSON,
        )
        return [self._streamed(answer) if self._batch.stream else answer]

    def _streamed(self, answer: RawChunk) -> RawChunk:
        batch = self._batch
        facts = AnswerFacts(
            request_id=batch.request_id, created_s=0, model=answer.model or batch.model
        )
        is_chat = batch.dialect is Dialect.OPENAI_CHAT
        kind = ChatStreamEncoder if is_chat else CompletionStreamEncoder
        encoder: StreamEncoder = kind(facts, include_usage=self._show_usage)
        chunks = ChatAnswer(batch, secret=self._secret).whole(answer.data)
        data = b"".join([*map(encoder.encode, chunks), encoder.end()])
        return attrs.evolve(answer, data=data, content_type=EVENT_STREAM)

    def _take(self, frames: list[bytes]) -> list[RawChunk]:
        kept = self.take_all(frames, self._one)
        if not kept and not self.ended:
            return []
        return [self._chunk(b"".join(kept))]

    def _one(self, frame: bytes) -> list[bytes]:
        if frame.startswith(_DATA) and _is_one_line(frame):  # as nearly all are
            events = [SseEvent(frame[len(_DATA) : -2])]
        else:
            events = self._reader.feed(frame)
        if not events or not self._is_kept(events[0]):
            return []
        if _TOOL_CALLS in frame:
            frame = self._calls.renumbered(events[0]) or frame
        self._output_bytes += len(frame)
        return [frame]

    def _is_kept(self, event: SseEvent) -> bool:
        """Look at an event; False when the client must not see it."""
        if event.data == DONE:
            self.ended = True
            self._finish = self._finish or FinishReason.STOP
            return True
        chunk = self._decoded(event, what="event")
        if chunk is None:
            self.skipped += 1
            return False
        self._model = chunk.model or self._model
        if chunk.usage is not _NULL:  # as it is in all events but the last
            self._usage = decode_usage(bytes(chunk.usage)) or self._usage
        for choice in chunk.choices or ():
            self._look(choice)
        return bool(chunk.choices) or self._show_usage

    def _decoded(self, event: SseEvent, *, what: str) -> _Chunk | None:
        try:
            chunk = _decode(event.data)
        except _DECODE_ERRORS as error:
            problem = parse_error(event.data)
            if problem is None and event.event == "error":
                problem = ErrorBody(message=event.data.decode("utf-8", "replace"))
            if problem is not None:
                raise classify(problem, secret=self._secret) from error
            if what == "body":
                raise malformed(what) from error
            return None
        # An empty object is an error as well, of which nothing is known.
        failed = bool(chunk.error) or isinstance(chunk.error, dict)
        if failed or chunk.object == "error" or event.event == "error":
            problem = parse_error(event.data) or ErrorBody()
            raise classify(problem, secret=self._secret)
        return chunk

    def _look(self, choice: _Choice) -> None:
        if choice.finish_reason:
            self._unfinished.discard(choice.index)
            self._finish = self._finish or finish_reason(choice.finish_reason)
        if not self._said:
            self._said = bool(choice.text) or _says(choice.delta)

    def _chunk(self, data: bytes) -> RawChunk:
        finish = None if self._told_finish else self._finish
        self._told_finish = self._told_finish or finish is not None
        usage = None
        if self.ended:
            usage = self._usage or estimate_usage(self._batch, self._output_bytes // 8)
        return RawChunk(
            data=data,
            has_content=self._said,
            finish_reason=finish,
            usage=usage,
            model=self._model,
        )


def _is_one_line(frame: bytes) -> bool:
    """Whether an event is one line, which an empty one follows."""
    return frame.find(b"\n") == len(frame) - 2 and b"\r" not in frame


def _says(delta: msgspec.Raw) -> bool:
    """Whether a delta holds more than the role and empty members."""
    try:
        members = _members(delta) or {}
    except _DECODE_ERRORS:
        return True
    return any(
        bytes(value) not in _SILENT for name, value in members.items() if name != "role"
    )
