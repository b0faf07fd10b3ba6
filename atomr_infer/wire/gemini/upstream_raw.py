"""An answer for a client of the same dialect: passed on, and looked at.

The JSON of each event is the upstream's, byte for byte; only what is around it
is written anew, so that a client sees the framing that its library reads.
What is looked at is what the gateway must know: finish, usage, errors, whether
there is content.  An event that is no response is left out: the client's
library would fail on it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from atomr_infer.errors import StreamCutError
from atomr_infer.model.batch import FinishReason, RawChunk
from atomr_infer.wire.broken_off import BreaksOff, refuse_unasked
from atomr_infer.wire.gemini.members import camel
from atomr_infer.wire.gemini.upstream_answer import decode, malformed
from atomr_infer.wire.gemini.upstream_progress import Progress
from atomr_infer.wire.gemini.upstream_stream import StreamReader, decode_event
from atomr_infer.wire.openai.upstream_stream import estimate_usage
from atomr_infer.wire.sse import DONE, encode_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.parts import RawJson
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage
    from atomr_infer.wire.gemini.upstream_answer import Candidate, Response
    from atomr_infer.wire.gemini.upstream_parts import Part
    from atomr_infer.wire.sse import SseEvent

_JSON = "application/json; charset=UTF-8"


class RawAnswer(BreaksOff):
    """Collects what must be known at an answer's end; gives its bytes meanwhile.

    Attributes:
        skipped: events that were not responses.
        ended: True once the answer is over and its last chunk was returned.
    """

    streams_json = True

    def __init__(self, batch: ExecuteBatch, *, secret: Secret | None = None) -> None:
        """Expect the answer to ``batch``.

        Args:
            batch: what was asked.
            secret: our key, blotted out of the upstream's error messages.
        """
        self._batch = batch
        self._secret = secret
        self._body = StreamReader()
        self._progress = Progress(batch.sampling.n)
        self._calling: set[int] = set()
        self._output_bytes = 0
        self.skipped = 0
        self.ended = False

    @property
    def counted(self) -> Usage | None:
        """The last counts that were told: each piece of an answer may have some."""
        return self._progress.usage

    def feed(self, data: bytes) -> list[RawChunk]:
        """Take bytes of the stream; return the events that they complete.

        Raises:
            InferenceError: an error inside the stream, an event beyond its cap,
                or nobody asked for a stream.
        """
        refuse_unasked(self._batch)
        return self._take(self._body.feed(data))

    def close(self) -> list[RawChunk]:
        """Take the end of the body; return the chunk that ends the answer.

        Raises:
            StreamCutError: a candidate has no finish reason, and nothing was
                left to return; otherwise it is kept in ``error``.
        """
        chunks = self._take(self._body.close())
        if self.error is not None:
            return chunks
        if self._progress.complete:
            return [*chunks, self._last(b"", "text/event-stream; charset=utf-8")]
        cut = _cut()
        if not chunks:
            raise cut
        self.error = cut
        return chunks

    def whole(self, body: bytes) -> list[RawChunk]:
        """Take an answer that was not streamed; return it in one chunk.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        response = decode(body, what="body", secret=self._secret)
        if not response.is_answer or not self._progress.is_asked_for(response):
            raise malformed("body")
        chunk = self._seen(body, response)
        if not self._progress.complete:
            raise _cut()
        return [self._last(body, _JSON, chunk)]

    def _take(self, events: Iterable[SseEvent]) -> list[RawChunk]:
        return self.take_all(events, self._one)

    def _one(self, event: SseEvent) -> list[RawChunk]:
        if event.data == DONE:
            return []
        response = decode_event(event, secret=self._secret)
        if response is None or not self._progress.is_asked_for(response):
            self.skipped += 1
            return []
        return [self._seen(encode_event(event.data), response)]

    def _seen(self, data: bytes, response: Response) -> RawChunk:
        """Return the chunk of a response, with what was seen in it."""
        blocked = self._progress.note(response)
        finish = None if blocked is None else FinishReason.CONTENT_FILTER
        text, has_content = "", False
        for candidate in response.candidates or ():
            if not self._progress.begin(candidate.index or 0):
                continue
            for part in _parts(candidate):
                text += part.text if part.text and not part.thought else ""
                has_content = has_content or _is_content(part)
                if part.function_call is not None:
                    self._calling.add(candidate.index or 0)
            has_calls = (candidate.index or 0) in self._calling
            ended = self._progress.finish(candidate, has_calls=has_calls)
            finish = finish or ended
        self._output_bytes += len(text.encode())
        return RawChunk(
            data=data,
            has_content=has_content,
            finish_reason=finish,
            model=self._progress.model,
            text=text,
        )

    def _last(
        self, data: bytes, content_type: str, seen: RawChunk | None = None
    ) -> RawChunk:
        self.ended = True
        told = self._progress.usage
        return RawChunk(
            data=data,
            has_content=seen is not None and seen.has_content,
            finish_reason=None if seen is None else seen.finish_reason,
            usage=told or estimate_usage(self._batch, self._output_bytes),
            model=self._progress.model,
            content_type=content_type,
            text="" if seen is None else seen.text,
        )


def _cut() -> StreamCutError:
    return StreamCutError("the upstream's stream ended before its finish")


def _parts(candidate: Candidate) -> Sequence[Part]:
    content = candidate.content
    return (content.parts if content is not None else None) or ()


def _is_content(part: Part) -> bool:
    # A part without text is a call, a picture, or of a kind newer than this.
    return part.text != "" or part.thought_signature is not None


def absent_members(body: bytes, defaults: Mapping[str, RawJson]) -> bytes:
    """Return the defaults that a request does not have, for :func:`with_members`.

    >>> absent_members(b'{"a":1}', {"a": b"2", "b": b"[]"})
    b'"b":[]'
    """
    if not defaults:
        return b""
    given = {camel(name) for name in msgspec.json.decode(body, type=dict[str, Raw])}
    return b",".join(
        msgspec.json.encode(name) + b":" + raw
        for name, raw in defaults.items()
        if name not in given
    )


def with_members(body: bytes, members: bytes) -> bytes:
    """Return an object with members put in front; every other byte stays.

    Args:
        body: a JSON object.
        members: one or more members, without braces and without the last comma.

    >>> with_members(b' {"contents":[]}', b'"store":false')
    b' {"store":false,"contents":[]}'
    """
    brace = body.index(b"{") + 1
    rest = body[brace:]
    comma = b"" if rest.lstrip().startswith(b"}") else b","
    return b"".join((body[:brace], members, comma, rest))
