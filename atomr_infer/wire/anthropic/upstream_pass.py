"""An answer of the Messages API that is passed on as it came.

The client speaks the provider's dialect, so its events go to it byte for byte,
those of a kind that nobody here knows too.  They are looked at on their way:
for content, the finish, usage, an error and the end.

Two things are not passed on.  An error becomes an error here, so that the
request can still be made again when nothing was said yet.  A malformed event is
skipped and counted, since client libraries stop at one.  An event without a
name is given its name, because client libraries pass over those.

A ping waits for the next event: a proxy sends them before a hung engine too, so
they are no sign of life, and we keep our own client's connection open.

Pure.

Source: Anthropic API, "Streaming Messages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import StreamCutError
from atomr_infer.model.batch import FinishReason, RawChunk
from atomr_infer.wire.anthropic.answer_stream import MessageStreamEncoder
from atomr_infer.wire.anthropic.reasons import finish_reason
from atomr_infer.wire.anthropic.upstream_events import (
    Event,
    decode_event,
    decode_message,
    lone_delta,
)
from atomr_infer.wire.anthropic.upstream_stream import (
    MessageAnswer,
    usage_or_estimate,
)
from atomr_infer.wire.anthropic.usage import Counts, decode_counts
from atomr_infer.wire.broken_off import BreaksOff, refuse_unasked
from atomr_infer.wire.ingress import AnswerFacts
from atomr_infer.wire.sse import SseReader
from atomr_infer.wire.sse_frames import FrameReader

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"

# A block of these kinds begins empty: nothing is said before its first delta.
_BEGIN_EMPTY = frozenset({"text", "thinking"})


class MessagePass(BreaksOff):
    """Passes one answer on, and knows what is in it.

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
        self._counts = Counts()
        self._model: str | None = None
        self._finish: FinishReason | None = None
        self._told_finish = False
        self._held: list[bytes] = []
        self._output_bytes = 0
        self._has_content = False
        self._is_alive = False
        self._said = ""
        self.skipped = 0
        self.ended = False

    @property
    def counted(self) -> Usage | None:
        """What has been counted: the prompt, from the answer's first event on."""
        return self._counts.usage

    def feed(self, data: bytes) -> list[RawChunk]:
        """Take bytes of the stream; return the whole events in them.

        Raises:
            InferenceError: an error inside the stream, an event beyond its cap,
                or nobody asked for a stream.
        """
        refuse_unasked(self._batch)
        if not (self._frames.pending or self._held or self.ended):
            delta = lone_delta(data)
            if delta is not None:
                said = _text(delta)
                self._output_bytes += len(said)
                return [RawChunk(data=data, model=self._model, text=said)]
        return self._take(self._frames.feed(data))

    def close(self) -> list[RawChunk]:
        """Take the end of the body; return the chunk that ends the answer.

        Raises:
            StreamCutError: there was no ``message_stop``.
        """
        rest = self._frames.close()
        chunks = self._take([rest.rstrip(b"\r\n") + b"\n\n"] if rest else [])
        if not self.ended and self.error is None:
            raise StreamCutError("the upstream's stream ended before its finish")
        return chunks

    def whole(self, body: bytes) -> list[RawChunk]:
        """Take an answer that was not streamed; return it.

        A client that asked for events gets events, made of it.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        message = decode_message(body, secret=self._secret)
        self.ended = True
        counts = decode_counts(bytes(message.usage))
        answer = RawChunk(
            data=body,
            finish_reason=finish_reason(message.stop_reason or "end_turn"),
            usage=usage_or_estimate(counts, self._batch, len(body)),
            model=message.model,
            content_type=_JSON,
        )
        return [self._streamed(answer) if self._batch.stream else answer]

    def _streamed(self, answer: RawChunk) -> RawChunk:
        facts = AnswerFacts(
            request_id=self._batch.request_id,
            created_s=0,
            model=answer.model or self._batch.model,
            prompt_tokens=answer.usage.prompt_tokens if answer.usage else 1,
        )
        encoder = MessageStreamEncoder(facts)
        chunks = MessageAnswer(self._batch, secret=self._secret).whole(answer.data)
        events = [*map(encoder.encode, chunks), encoder.end()]
        data = b"".join(events)
        return attrs.evolve(answer, data=data, content_type=_EVENTS)

    def _take(self, frames: list[bytes]) -> list[RawChunk]:
        self._has_content, self._is_alive, self._said = False, False, ""
        self._held += self.take_all(frames, self._one)
        if not self._is_alive:
            return []
        data = b"".join(self._held)
        self._held.clear()
        return [self._chunk(data, has_content=self._has_content)]

    def _one(self, frame: bytes) -> list[bytes]:
        events = self._reader.feed(frame)
        if not events:
            return []  # a comment: we keep our own client's connection open
        decoded = decode_event(events[0], secret=self._secret)
        if decoded is None:
            self.skipped += 1
            return []
        self._look(decoded)
        self._has_content = self._has_content or _says_something(decoded)
        self._is_alive = self._is_alive or decoded.type != "ping"
        if events[0].event:
            return [frame]
        return [b"event: %b\n" % decoded.type.encode(), frame]

    def _look(self, event: Event) -> None:
        match event.type:
            case "content_block_delta":
                said = _text(event)
                self._said += said
                self._output_bytes += len(said)
            case "message_start" if event.message is not None:
                self._model = event.message.model
                self._counts = decode_counts(bytes(event.message.usage))
            case "message_delta":
                self._counts = self._counts.updated(decode_counts(bytes(event.usage)))
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._finish = finish_reason(event.delta.stop_reason)
            case "message_stop":
                self._finish = self._finish or FinishReason.STOP
                self.ended = True

    def _chunk(self, data: bytes, *, has_content: bool) -> RawChunk:
        finish = None if self._told_finish else self._finish
        self._told_finish = self._told_finish or finish is not None
        usage = None
        if self.ended:
            usage = usage_or_estimate(self._counts, self._batch, self._output_bytes)
        return RawChunk(
            data=data,
            has_content=has_content,
            finish_reason=finish,
            usage=usage,
            model=self._model,
            text=self._said,
        )


def _says_something(event: Event) -> bool:
    if event.type != "content_block_start" or event.content_block is None:
        return event.type == "content_block_delta"
    block = event.content_block
    return block.type not in _BEGIN_EMPTY or bool(block.text or block.thinking)


def _text(event: Event) -> str:
    """Return what an event adds: of an answer that breaks off, it is billed."""
    delta = event.delta
    if delta is None:
        return ""
    return delta.text or delta.thinking or delta.partial_json or ""
