"""One answer of an OpenAI-like upstream, from its bytes to the contract's chunks.

Upstreams differ in how they end.  The rules here:

*   ``[DONE]`` ends the stream.
*   Without ``[DONE]``, the stream is complete when each of the ``n`` answers
    has its finish reason; otherwise it was cut.
*   An event that is not a chunk, or is of an answer that was not asked for, is
    skipped and counted; if the stream then
    completes, the answer stands.
*   What follows an answer's finish (a server's repeated finish, filter
    results) is not passed on.
*   Usage may come on every chunk, on the finish, on a chunk of its own or not
    at all.  It leaves here once, on the last chunk; when the upstream said
    nothing it is estimated, and marked so.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import StreamCutError, UpstreamProtocolError
from atomr_infer.model.batch import ExecuteBatch, FinishReason, TokenChunk, Usage
from atomr_infer.wire.broken_off import BreaksOff
from atomr_infer.wire.openai.tool_index import ToolCallNumbers
from atomr_infer.wire.openai.upstream import decode_chunk, decode_response, malformed
from atomr_infer.wire.sse import DONE, SseEvent, SseReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.secret import Secret

# English text has about four bytes to a token in every tokenizer in use; a
# message adds a few for its role and borders.
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4


class ChatAnswer(BreaksOff):
    """Collects what must be known at an answer's end; gives chunks meanwhile.

    Attributes:
        skipped: events that were not chunks.
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
        self._reader = SseReader()
        self._usage: Usage | None = None
        self._model: str | None = None
        self._output_bytes = 0
        self._unfinished = set(range(batch.sampling.n))
        self._finished: set[int] = set()
        self._calls: dict[int, ToolCallNumbers] = {}
        self.skipped = 0
        self.ended = False

    def feed(self, data: bytes) -> list[TokenChunk]:
        """Take bytes of the stream; return the chunks that they complete.

        Bytes behind ``[DONE]`` are not looked at.

        Raises:
            InferenceError: an error inside the stream, or an event beyond
                its cap.
        """
        return self._take(self._reader.feed(data))

    def close(self) -> list[TokenChunk]:
        """Take the end of the body; return the chunks that end the answer.

        Raises:
            StreamCutError: there was neither ``[DONE]`` nor every finish.
        """
        last = self._reader.close()
        chunks = self._take([] if last is None else [last])
        if self.ended or self.error is not None:
            return chunks
        if self._unfinished:
            raise StreamCutError("the upstream's stream ended before its finish")
        return [*chunks, self._end()]

    def whole(self, body: bytes) -> list[TokenChunk]:
        """Take an answer that was not streamed; return all its chunks.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        chunks = decode_response(body, secret=self._secret)
        if not self._are_asked_for(chunks):
            raise malformed("body")
        return [*self._accept(chunks), self._end()]

    def _take(self, events: Iterable[SseEvent]) -> list[TokenChunk]:
        return self.take_all(events, self._one)

    def _one(self, event: SseEvent) -> list[TokenChunk]:
        if event.data == DONE:
            return [*self._finish_rest(), self._end()]
        return self._accept(self._decode(event))

    def _decode(self, event: SseEvent) -> tuple[TokenChunk, ...]:
        try:
            chunks = decode_chunk(event.data, event=event.event, secret=self._secret)
        except UpstreamProtocolError as error:
            if error.code != "malformed_event":
                raise
            chunks = None
        if chunks is None or not self._are_asked_for(chunks):
            self.skipped += 1
            return ()
        return chunks

    def _are_asked_for(self, chunks: Iterable[TokenChunk]) -> bool:
        return all(0 <= chunk.index < self._batch.sampling.n for chunk in chunks)

    def _accept(self, decoded: Iterable[TokenChunk]) -> list[TokenChunk]:
        chunks = []
        for chunk in decoded:
            self._model = chunk.model or self._model
            if chunk.usage is not None:
                self._usage = chunk.usage
            elif chunk.index not in self._finished:
                settled = self._settled(chunk)
                self._note(settled)
                chunks.append(settled)
        return chunks

    def _settled(self, chunk: TokenChunk) -> TokenChunk:
        """Number tool calls, and finish an answer that has them as one (T7)."""
        if chunk.tool_calls:
            numbers = self._calls.setdefault(
                chunk.index, ToolCallNumbers(f"{self._batch.request_id}_{chunk.index}")
            )
            calls = tuple(numbers.renumber(call) for call in chunk.tool_calls)
            chunk = attrs.evolve(chunk, tool_calls=calls)
        if chunk.finish_reason is FinishReason.STOP and chunk.index in self._calls:
            return attrs.evolve(chunk, finish_reason=FinishReason.TOOL_CALLS)
        return chunk

    def _note(self, chunk: TokenChunk) -> None:
        self._output_bytes += len(chunk.text.encode()) + len(chunk.refusal.encode())
        if chunk.reasoning is not None:
            self._output_bytes += len(chunk.reasoning.text.encode())
        self._output_bytes += sum(len(call.arguments) for call in chunk.tool_calls)
        self._output_bytes += sum(len(raw) for raw in chunk.extra.values())
        if chunk.finish_reason is not None:
            self._unfinished.discard(chunk.index)
            self._finished.add(chunk.index)

    def _finish_rest(self) -> list[TokenChunk]:
        """Finish what ``[DONE]`` ended without a word: it did end."""
        ends = [
            TokenChunk(index=index, finish_reason=FinishReason.STOP, model=self._model)
            for index in sorted(self._unfinished)
        ]
        return [self._settled(end) for end in ends]

    def _end(self) -> TokenChunk:
        self.ended = True
        usage = self._usage or estimate_usage(self._batch, self._output_bytes)
        return TokenChunk(usage=usage, model=self._model)


def estimate_usage(batch: ExecuteBatch, output_bytes: int) -> Usage:
    """Return about what a generation used, for an upstream that does not say.

    Args:
        batch: what was asked; its ``max_tokens`` bounds the estimate.
        output_bytes: UTF-8 bytes of all answers.
    """
    prompt = sum(
        _tokens(len(message.text.encode())) + _TOKENS_PER_MESSAGE
        for message in batch.messages
    )
    output = _tokens(output_bytes)
    if batch.sampling.max_tokens is not None:
        output = min(output, batch.sampling.max_tokens * batch.sampling.n)
    return Usage(input_uncached=prompt, output_text=output, estimated=True)


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)
