"""An answer's body that ends is the end of it, whatever its reader makes of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from atomr_infer.errors import InferenceError, StreamCutError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, TokenChunk
from atomr_infer.model.deployment import Timeouts
from atomr_infer.remote.answer import AnswerChunks

if TYPE_CHECKING:
    from atomr_infer.remote.http.response import HttpResponse

BATCH = ExecuteBatch(request_id="r", model="m", messages=(Message(Role.USER, "hi"),))


class Body:
    """A streamed answer of some pieces."""

    status = 200
    headers = {"content-type": "text/event-stream"}  # noqa: RUF012 - one test's own

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def receive(self) -> bytes | None:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else None

    def due_by(self, instant: float) -> None:
        assert instant > 0

    async def skip_rest(self, **_: float) -> None:
        assert not self.pieces


class Reader:
    """Understands a letter as a token, and as much of an end as it is told."""

    streams_json = False
    skipped = 0

    def __init__(self, *, ended: bool, error: InferenceError | None = None) -> None:
        self.ended = False
        self.error: InferenceError | None = None
        self._then = (ended, error)

    def feed(self, data: bytes) -> list[TokenChunk]:
        return [TokenChunk(text=data.decode())]

    def close(self) -> list[TokenChunk]:
        self.ended, self.error = self._then
        return []

    def whole(self, body: bytes) -> list[TokenChunk]:
        raise AssertionError(f"{body!r} is streamed")


def chunks_of(reader: Any) -> AnswerChunks[TokenChunk]:
    response = cast("HttpResponse", Body(b"a", b"b"))
    return AnswerChunks(BATCH, response, reader, timeouts=Timeouts(), first_by=1e9)


async def test_end_without_a_chunk_is_the_end() -> None:
    with trio.fail_after(5):
        texts = [chunk.text async for chunk in chunks_of(Reader(ended=True))]
    assert texts == ["a", "b"]


async def test_end_that_is_none_cuts_the_answer() -> None:
    seen = []
    with trio.fail_after(5), pytest.raises(StreamCutError, match="without an end"):
        async for chunk in chunks_of(Reader(ended=False)):
            seen.append(chunk.text)
    assert seen == ["a", "b"]


async def test_error_at_the_end_is_raised_once() -> None:
    chunks = chunks_of(Reader(ended=False, error=StreamCutError("gone")))
    with trio.fail_after(5), pytest.raises(StreamCutError, match="gone"):
        async for _ in chunks:
            pass
    assert [chunk async for chunk in chunks] == []
