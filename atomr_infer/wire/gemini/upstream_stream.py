"""One answer of a Gemini upstream, from its bytes to the contract's chunks.

*   A stream is events, or a JSON array where a proxy took ``alt=sse`` away; its
    first byte tells.  It ends with the body, and is complete when every
    candidate that began has its finish reason, and at least one has; otherwise
    it was cut.
*   A blocked prompt has no candidates: it is one empty answer, finished by the
    content filter.
*   An event that is not a response, or is of a candidate that was not asked
    for, is skipped and counted; if the stream then completes, the answer
    stands.
*   What follows a candidate's finish is not passed on, but counts are.
*   Where a text comes from is said once, in front of its candidate's finish.
*   Usage comes on every event, each time for the answer so far.  It leaves here
    once, on the last chunk; when the upstream said nothing it is estimated.

Pure: the ids of calls that came without one are made by a function that the
caller gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import StreamCutError, UpstreamProtocolError
from atomr_infer.model.batch import FinishReason, TokenChunk
from atomr_infer.wire.broken_off import BreaksOff
from atomr_infer.wire.citations import GeminiCitations, chat_annotations
from atomr_infer.wire.gemini import finish
from atomr_infer.wire.gemini.array_reader import ArrayReader
from atomr_infer.wire.gemini.logprobs import canonical_logprobs
from atomr_infer.wire.gemini.upstream_answer import (
    ABSENT,
    Response,
    decode,
    malformed,
)
from atomr_infer.wire.gemini.upstream_parts import PartReader
from atomr_infer.wire.gemini.upstream_progress import Progress
from atomr_infer.wire.openai.upstream_stream import estimate_usage
from atomr_infer.wire.sse import DONE, SseEvent, SseReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from atomr_infer.model.batch import ExecuteBatch, ToolCallDelta
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.gemini.signature_memory import SignatureMemory
    from atomr_infer.wire.gemini.upstream_answer import Candidate
    from atomr_infer.wire.gemini.upstream_parts import NewId

# What may stand before a stream, as keepalives do, and says nothing of its kind.
_BLANK = b" \t\r\n\xef\xbb\xbf"


class StreamReader:
    """A stream's bytes in, its JSON objects out, as events."""

    def __init__(self) -> None:
        self._events: SseReader | None = None
        self._array: ArrayReader | None = None

    def feed(self, data: bytes) -> list[SseEvent]:
        """Take the next bytes of the body; return the events they complete.

        Raises:
            UpstreamProtocolError: an event is beyond its cap, or what began as
                an array goes on as something else.
        """
        if self._events is None and self._array is None:
            data = data.lstrip(_BLANK)
            if not data:
                return []
            if data[:1] in b"[{":
                self._array = ArrayReader()
            else:
                self._events = SseReader()
        if self._array is not None:
            return [SseEvent(item) for item in self._array.feed(data)]
        assert self._events is not None, "one of them was made above"
        return self._events.feed(data)

    def close(self) -> list[SseEvent]:
        """Take the end of the body; return the event that it completes, if any."""
        last = None if self._events is None else self._events.close()
        return [] if last is None else [last]


class ResponseReader:
    """Reads responses one by one.

    Attributes:
        progress: how far they have come.
    """

    def __init__(self, *, n: int, new_id: NewId) -> None:
        """Expect ``n`` candidates at most."""
        self._new_id = new_id
        self._readers: dict[int, PartReader] = {}
        self._citations: dict[int, GeminiCitations] = {}
        self.progress = Progress(n)

    def read(self, response: Response) -> list[TokenChunk]:
        """Return what a response says.

        Raises:
            InferenceError: a candidate ended with an error.
        """
        blocked = self.progress.note(response)
        chunks = [c for each in response.candidates or () for c in self._read(each)]
        if blocked is not None:
            filtered = FinishReason.CONTENT_FILTER
            chunks.append(self._ended(0, filtered, native=blocked))
        return chunks

    def _read(self, candidate: Candidate) -> Iterator[TokenChunk]:
        index = candidate.index or 0
        if not self.progress.begin(index):
            return
        reader = self._readers.get(index)
        if reader is None:
            reader = self._readers[index] = PartReader(index, new_id=self._new_id)
            self._citations[index] = GeminiCitations()
        reader.model = self.progress.model
        yield from self._said(candidate, reader, self._citations[index])
        if candidate.logprobs_result is not ABSENT:
            logprobs = canonical_logprobs(bytes(candidate.logprobs_result))
            if logprobs is not None:
                yield TokenChunk(index=index, logprobs=logprobs, model=reader.model)
        if finish.is_finish(candidate.finish_reason):
            yield from reader.end()
            yield from self._cited(index)
        reason = self.progress.finish(candidate, has_calls=reader.calls > 0)
        if reason is not None:
            yield self._ended(index, reason, native=candidate.finish_reason)

    def _said(
        self, candidate: Candidate, reader: PartReader, citations: GeminiCitations
    ) -> Iterator[TokenChunk]:
        content = candidate.content
        for part in (content.parts if content is not None else None) or ():
            for chunk in reader.read(part):
                citations.say(chunk.text)
                yield chunk
        if candidate.cites:
            citations.add(
                bytes(candidate.citation_metadata), bytes(candidate.grounding_metadata)
            )

    def _cited(self, index: int) -> Iterator[TokenChunk]:
        """Return where a whole text comes from: Gemini says it in pieces, and twice."""
        found = self._citations[index].end()
        if found:
            extra = {"annotations": chat_annotations(found)}
            yield TokenChunk(index=index, extra=extra, model=self.progress.model)

    def _ended(
        self, index: int, reason: FinishReason, *, native: str | None
    ) -> TokenChunk:
        return TokenChunk(
            index=index,
            finish_reason=reason,
            native_finish=native,
            model=self.progress.model,
        )


def decode_event(event: SseEvent, *, secret: Secret | None) -> Response | None:
    """Return the response that an event holds; None: it holds none.

    Raises:
        InferenceError: the upstream reports an error in its stream.
    """
    try:
        response = decode(event.data, what="event", event=event.event, secret=secret)
    except UpstreamProtocolError as error:
        if error.code != "malformed_event":
            raise
        return None
    return response if response.is_answer else None


class GeminiAnswer(BreaksOff):
    """Collects what must be known at an answer's end; gives chunks meanwhile.

    Attributes:
        skipped: events that were not responses.
        ended: True once the answer is over and its last chunk was returned.
    """

    streams_json = True

    def __init__(
        self,
        batch: ExecuteBatch,
        *,
        new_id: NewId,
        secret: Secret | None = None,
        memory: SignatureMemory | None = None,
    ) -> None:
        """Expect the answer to ``batch``.

        Args:
            batch: what was asked.
            new_id: makes the id of a call that came without one.
            secret: our key, blotted out of the upstream's error messages.
            memory: takes the signatures of calls.
        """
        self._batch = batch
        self._secret = secret
        self._memory = memory
        self._body = StreamReader()
        self._responses = ResponseReader(n=batch.sampling.n, new_id=new_id)
        self._output_bytes = 0
        self.skipped = 0
        self.ended = False

    @property
    def counted(self) -> Usage | None:
        """The last counts that were told: each piece of an answer may have some."""
        return self._responses.progress.usage

    def feed(self, data: bytes) -> list[TokenChunk]:
        """Take bytes of the stream; return the chunks that they complete.

        Raises:
            InferenceError: an error inside the stream, or an event beyond
                its cap.
        """
        return self._take(self._body.feed(data))

    def close(self) -> list[TokenChunk]:
        """Take the end of the body; return the chunks that end the answer.

        Raises:
            StreamCutError: a candidate has no finish reason, and nothing was
                left to return; otherwise it is kept in ``error``.
        """
        chunks = self._take(self._body.close())
        if self.error is not None:
            return chunks
        if self._responses.progress.complete:
            return [*chunks, self._end()]
        cut = StreamCutError("the upstream's stream ended before its finish")
        if not chunks:
            raise cut
        self.error = cut
        return chunks

    def whole(self, body: bytes) -> list[TokenChunk]:
        """Take an answer that was not streamed; return all its chunks.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        response = decode(body, what="body", secret=self._secret)
        if not response.is_answer or not self._responses.progress.is_asked_for(
            response
        ):
            raise malformed("body")
        chunks = self._noted(self._responses.read(response))
        if not self._responses.progress.complete:
            raise StreamCutError("the upstream's answer has no finish")
        return [*chunks, self._end()]

    def _take(self, events: Iterable[SseEvent]) -> list[TokenChunk]:
        return self.take_all(events, self._one)

    def _one(self, event: SseEvent) -> list[TokenChunk]:
        if event.data == DONE:
            return []  # a proxy's; here the body's end is the end
        response = decode_event(event, secret=self._secret)
        if response is None or not self._responses.progress.is_asked_for(response):
            self.skipped += 1
            return []
        return self._noted(self._responses.read(response))

    def _noted(self, chunks: list[TokenChunk]) -> list[TokenChunk]:
        for chunk in chunks:
            self._output_bytes += len(chunk.text.encode())
            for call in chunk.tool_calls:
                self._output_bytes += len(call.arguments)
                self._remember(call)
            if chunk.reasoning is not None:
                self._output_bytes += len(chunk.reasoning.text.encode())
        return chunks

    def _remember(self, call: ToolCallDelta) -> None:
        if self._memory is None or call.signature is None or call.id is None:
            return
        signature = call.signature.text
        self._memory.put(
            call.id,
            name=call.name or "",
            arguments=call.arguments,
            signature=signature,
        )

    def _end(self) -> TokenChunk:
        self.ended = True
        progress = self._responses.progress
        usage = progress.usage or estimate_usage(self._batch, self._output_bytes)
        return TokenChunk(usage=usage, model=progress.model)
