"""The chunks of one answer, read from its connection under the time limits."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError, UpstreamTimeoutError
from atomr_infer_openai.faults import encoded, without_secret, wrong_content_type

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.deployment import Timeouts
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.response import HttpResponse
    from atomr_infer.wire.openai.upstream_stream import ChatAnswer

_log = logging.getLogger(__name__)

# The end of a body's framing comes with its last event or right behind it.
_REST_BYTES = 4096
_REST_S = 0.1


class AnswerChunks:
    """Iterates over an answer; the last chunk carries its usage.

    The time between two chunks is only measured while somebody waits for the
    next one: a slow reader is not the upstream's fault.
    """

    def __init__(
        self,
        batch: ExecuteBatch,
        response: HttpResponse,
        answer: ChatAnswer,
        *,
        timeouts: Timeouts,
        first_by: float,
        secret: Secret | None = None,
    ) -> None:
        """Take over an answer's body.

        Args:
            batch: what was asked.
            response: the answer, its status 200.
            answer: what reads its bytes.
            timeouts: the limits.
            first_by: the instant by which the first chunk is due.
            secret: our key, blotted out of every error.

        Raises:
            UpstreamProtocolError: it holds neither events nor JSON, or is
                compressed.
        """
        self._request_id = batch.request_id
        self._response = response
        self._answer = answer
        self._timeouts = timeouts
        self._first_by: float | None = first_by
        self._ready: deque[TokenChunk] = deque()
        self._failed = False
        self._secret = secret
        self._streamed = _is_streamed(response, asked=batch.stream)

    def __aiter__(self) -> AsyncIterator[TokenChunk]:
        return self

    async def __anext__(self) -> TokenChunk:
        while not self._ready:
            if self._failed:
                raise StopAsyncIteration
            if self._answer.ended:
                await self._leave_clean()
                raise StopAsyncIteration
            await self._wait()
        return self._ready.popleft()

    async def _wait(self) -> None:
        try:
            with without_secret(self._secret), self._limit():
                await self._read()
        except InferenceError:
            self._failed = True
            raise
        self._first_by = None

    @contextmanager
    def _limit(self) -> Iterator[None]:
        if self._first_by is not None:
            with within(self._first_by, first_token_timeout(self._timeouts)):
                yield
            return
        idle_s = self._timeouts.idle_s
        silent = UpstreamTimeoutError(
            f"no chunk from the upstream for {idle_s:g} s", code="idle_timeout"
        )
        with within(trio.current_time() + idle_s, silent):
            yield

    async def _read(self) -> None:
        if not self._streamed:
            body = await self._response.read()
            self._ready.extend(self._answer.whole(body))
            return
        while not self._ready:
            piece = await self._response.receive()
            if piece is None:
                self._ready.extend(self._answer.close())
            else:
                self._ready.extend(self._answer.feed(piece))

    async def _leave_clean(self) -> None:
        if self._answer.skipped:
            _log.warning(
                "request %s: skipped %d malformed events of the upstream's stream",
                self._request_id,
                self._answer.skipped,
            )
        await self._response.skip_rest(limit_bytes=_REST_BYTES, within_s=_REST_S)


@contextmanager
def within(deadline: float, late: InferenceError) -> Iterator[None]:
    """Run a block until an instant of trio's clock, then raise ``late``."""
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise late


def first_token_timeout(timeouts: Timeouts) -> UpstreamTimeoutError:
    """Return the error for an attempt that gave no chunk in time."""
    return UpstreamTimeoutError(
        f"no first chunk from the upstream within {timeouts.first_token_s:g} s",
        code="first_token_timeout",
    )


def _is_streamed(response: HttpResponse, *, asked: bool) -> bool:
    """Tell events from JSON: some servers answer a stream request with a whole."""
    encoding = response.headers.get("content-encoding", "")
    if encoding.strip().lower() not in {"", "identity"}:
        raise encoded()
    content_type = response.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return True
    if kind == "application/json":
        return False
    if kind:
        raise wrong_content_type()
    return asked
