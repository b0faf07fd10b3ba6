"""One answer of the Messages API, from its bytes to the contract's chunks.

*   ``message_stop`` ends the stream; without it the stream was cut, whatever
    it said before.
*   ``ping`` and events of a kind that is not known are passed over.
*   An event that is malformed is skipped and counted; if the stream then
    completes, the answer stands.
*   A block's index counts text and thoughts too, so the index of a tool call is
    given anew, in order of appearance.
*   Counts are cumulative: a later report replaces an earlier one.  Usage leaves
    here once, on the last chunk; when the upstream said nothing it is
    estimated, and marked so.

Pure.

Source: Anthropic API, "Streaming Messages".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import StreamCutError
from atomr_infer.model.batch import (
    FinishReason,
    ReasoningDelta,
    TokenChunk,
    ToolCallDelta,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import Signature
from atomr_infer.wire.anthropic.reasons import finish_reason
from atomr_infer.wire.anthropic.upstream_events import (
    Block,
    Delta,
    Event,
    Message,
    decode_event,
    decode_message,
    lone_delta,
)
from atomr_infer.wire.anthropic.usage import Counts, decode_counts
from atomr_infer.wire.broken_off import BreaksOff
from atomr_infer.wire.openai.upstream_stream import estimate_usage
from atomr_infer.wire.sse import SseEvent, SseReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage

_EMPTY = (b"", b"null", b"{}")


@attrs.define(eq=False)
class _Open:
    """A block that was begun.

    Attributes:
        kind: its type; ``json`` for the tool that stands for the answer's text.
        number: which of its kind it is, counted from 0.
        input: the arguments with which it began; "" for none.
        said: True once a piece of arguments came.
    """

    kind: str
    number: int = 0
    input: str = ""
    said: bool = False


class MessageAnswer(BreaksOff):
    """Collects what must be known at an answer's end; gives chunks meanwhile.

    Attributes:
        skipped: events that were malformed.
        ended: True once the answer is over and its last chunk was returned.
    """

    def __init__(
        self,
        batch: ExecuteBatch,
        *,
        json_tool: str | None = None,
        secret: Secret | None = None,
    ) -> None:
        """Expect the answer to ``batch``.

        Args:
            batch: what was asked.
            json_tool: the tool whose arguments are the answer's text.
            secret: our key, blotted out of the upstream's error messages.
        """
        self._batch = batch
        self._json_tool = json_tool
        self._secret = secret
        self._reader = SseReader()
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._counts = Counts()
        self._finish: TokenChunk | None = None
        self._model: str | None = None
        self._output_bytes = 0
        self.skipped = 0
        self.ended = False

    @property
    def counted(self) -> Usage | None:
        """What has been counted: the prompt, from the answer's first event on."""
        return self._counts.usage

    def feed(self, data: bytes) -> list[TokenChunk]:
        """Take bytes of the stream; return the chunks that they complete.

        Raises:
            InferenceError: an error inside the stream, or an event beyond
                its cap.
        """
        if not (self._reader.pending or self.ended):
            event = lone_delta(data)
            if event is not None:
                return self._event(event)
        return self._take(self._reader.feed(data))

    def close(self) -> list[TokenChunk]:
        """Take the end of the body; return the chunks that end the answer.

        Raises:
            StreamCutError: there was no ``message_stop``.
        """
        last = self._reader.close()
        chunks = self._take([] if last is None else [last])
        if not self.ended and self.error is None:
            raise StreamCutError("the upstream's stream ended before its finish")
        return chunks

    def whole(self, body: bytes) -> list[TokenChunk]:
        """Take an answer that was not streamed; return all its chunks.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        message = decode_message(body, secret=self._secret)
        self._begin(message)
        chunks: list[TokenChunk] = []
        for index, block in enumerate(message.content or ()):
            chunks += self._start(index, block)
            chunks += self._stop(index)
        self._finish = self._finished(message)
        return [*chunks, *self._end()]

    def _take(self, events: Iterable[SseEvent]) -> list[TokenChunk]:
        return self.take_all(events, self._one)

    def _one(self, event: SseEvent) -> list[TokenChunk]:
        decoded = decode_event(event, secret=self._secret)
        if decoded is None:
            self.skipped += 1
            return []
        return self._event(decoded)

    def _event(self, event: Event) -> list[TokenChunk]:
        match event.type:
            case "content_block_delta" if event.delta is not None:
                return self._delta(event.index, event.delta)
            case "content_block_start" if event.content_block is not None:
                return self._start(event.index, event.content_block)
            case "content_block_stop":
                return self._stop(event.index)
            case "message_start" if event.message is not None:
                self._begin(event.message)
            case "message_delta":
                self._counts = self._counts.updated(decode_counts(bytes(event.usage)))
                if event.delta is not None and event.delta.stop_reason is not None:
                    self._finish = self._finished(event.delta)
            case "message_stop":
                return self._end()
        return []

    def _begin(self, message: Message) -> None:
        self._model = message.model
        self._counts = decode_counts(bytes(message.usage))

    # --- blocks -----------------------------------------------------------------

    def _start(self, index: int, block: Block) -> list[TokenChunk]:
        opened = self._opened(block)
        self._blocks[index] = opened
        if opened.kind == "tool_use":
            call = ToolCallDelta(
                index=opened.number, id=block.id or "", name=block.name or ""
            )
            return [self._chunk(tool_calls=(call,))]
        if opened.kind == "redacted_thinking":
            data = Signature(block.data or "", Dialect.ANTHROPIC)
            return self._think(opened, data=data)
        # A block may begin with what a delta would say.
        return self._delta(
            index,
            Delta(text=block.text, thinking=block.thinking, signature=block.signature),
        )

    def _opened(self, block: Block) -> _Open:
        kind = block.type
        given = bytes(block.input)
        text = "" if given in _EMPTY else given.decode("utf-8", "replace")
        if kind == "tool_use" and block.name and block.name == self._json_tool:
            return _Open("json", input=text)
        if kind == "tool_use":
            self._calls += 1
            return _Open(kind, self._calls - 1, input=text)
        if kind in {"thinking", "redacted_thinking"}:
            self._thoughts += 1
            return _Open(kind, self._thoughts - 1)
        return _Open(kind)

    def _delta(self, index: int, delta: Delta) -> list[TokenChunk]:
        block = self._blocks.get(index)
        if block is None:
            # A server that leaves out the start of a text is understood.
            block = self._blocks[index] = _Open("text")
        match block.kind:
            case "text" if delta.text:
                return [self._chunk(text=delta.text)]
            case "thinking" if delta.thinking or delta.signature:
                signature = None
                if delta.signature:
                    signature = Signature(delta.signature, Dialect.ANTHROPIC)
                return self._think(block, delta.thinking or "", signature=signature)
            case "tool_use" | "json" if delta.partial_json:
                return [self._argue(block, delta.partial_json)]
        return []

    def _stop(self, index: int) -> list[TokenChunk]:
        block = self._blocks.get(index)
        if block is None or block.said or block.kind not in {"tool_use", "json"}:
            return []
        # No piece came, so the arguments are what the block began with.
        return [self._argue(block, block.input or "{}")]

    def _argue(self, block: _Open, text: str) -> TokenChunk:
        block.said = True
        if block.kind == "json":
            return self._chunk(text=text)
        self._output_bytes += len(text)
        call = ToolCallDelta(index=block.number, arguments=text)
        return self._chunk(tool_calls=(call,))

    def _think(
        self,
        block: _Open,
        text: str = "",
        *,
        signature: Signature | None = None,
        data: Signature | None = None,
    ) -> list[TokenChunk]:
        self._output_bytes += len(text)
        thought = ReasoningDelta(
            text=text, signature=signature, data=data, block=block.number
        )
        return [self._chunk(reasoning=thought)]

    def _chunk(
        self,
        *,
        text: str = "",
        reasoning: ReasoningDelta | None = None,
        tool_calls: tuple[ToolCallDelta, ...] = (),
    ) -> TokenChunk:
        self._output_bytes += len(text)
        return TokenChunk(
            text=text, reasoning=reasoning, tool_calls=tool_calls, model=self._model
        )

    # --- the end ------------------------------------------------------------------

    def _finished(self, said: Delta | Message) -> TokenChunk:
        native = said.stop_reason or "end_turn"
        finish = finish_reason(native)
        if finish is FinishReason.TOOL_CALLS and not self._calls:
            finish = FinishReason.STOP
        details = said.stop_details
        explanation = "" if details is None else details.explanation or ""
        return TokenChunk(
            finish_reason=finish,
            refusal=explanation if finish is FinishReason.CONTENT_FILTER else "",
            native_finish=native,
            stop_sequence=said.stop_sequence,
            model=self._model,
        )

    def _end(self) -> list[TokenChunk]:
        self.ended = True
        finish = self._finish or self._finished(Delta())
        usage = usage_or_estimate(self._counts, self._batch, self._output_bytes)
        return [finish, TokenChunk(usage=usage, model=self._model)]


def usage_or_estimate(counts: Counts, batch: ExecuteBatch, output_bytes: int) -> Usage:
    """Return what was counted; what never was is estimated."""
    usage = counts.usage
    if usage is None or usage.total_tokens == 0:
        return estimate_usage(batch, output_bytes)
    return usage
