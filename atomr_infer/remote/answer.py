"""The chunks of one answer, read from its connection under the time limits.

The bytes are understood by a reader of the provider's dialect, which does no
I/O; this module moves them and keeps the time.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast

import attrs
import trio

from atomr_infer.errors import (
    InferenceError,
    StreamCutError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.remote.blot import blot, without_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Timeouts
    from atomr_infer.model.secret import Secret
    from atomr_infer.model.usage import Usage
    from atomr_infer.remote.http.response import HttpResponse

_log = logging.getLogger(__name__)

C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

# The end of a body's framing comes with its last event or right behind it.
_REST_BYTES = 4096
_REST_S = 0.1

# An error's text is short; more than this is a web page.
_MAX_ERROR_BYTES = 65536
_MAX_ERROR_S = 5.0


class AnswerReader(Protocol[C_co]):
    """Bytes of an answer in, chunks out."""

    @property
    def error(self) -> InferenceError | None:
        """What broke the answer behind the chunks that were returned last."""
        ...

    @property
    def streams_json(self) -> bool:
        """True for a dialect in which a stream may be JSON."""
        ...

    @property
    def skipped(self) -> int:
        """Events that were malformed."""
        ...

    @property
    def ended(self) -> bool:
        """True once the answer is over and its last chunk was returned."""
        ...

    @property
    def counted(self) -> Usage | None:
        """What the upstream has said up to here that it used; None: nothing."""
        ...

    def feed(self, data: bytes) -> Iterable[C_co]:
        """Take bytes of a stream; return the chunks that they complete.

        Raises:
            InferenceError: an error inside the stream.
        """
        ...

    def close(self) -> Iterable[C_co]:
        """Take the end of the body; return the chunks that end the answer.

        Raises:
            StreamCutError: the stream ended before its finish.
        """
        ...

    def whole(self, body: bytes) -> Iterable[C_co]:
        """Take an answer that was not streamed; return all its chunks.

        Raises:
            InferenceError: it is malformed, or an error.
        """
        ...


class AnswerChunks(Generic[C]):
    """Iterates over an answer; the last chunk carries its usage.

    The time between two chunks is only measured while somebody waits for the
    next one: a slow reader is not the upstream's fault.
    """

    def __init__(  # noqa: PLR0913 - all but three by keyword
        self,
        batch: ExecuteBatch,
        response: HttpResponse,
        reader: AnswerReader[C],
        *,
        timeouts: Timeouts,
        first_by: float,
        total_at: float = math.inf,
        secret: Secret | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Take over an answer's body.

        Args:
            batch: what was asked.
            response: the answer, its status 200.
            reader: what understands its bytes.
            timeouts: the limits.
            first_by: the instant by which the first chunk is due.
            total_at: the instant by which the last one is.
            secret: our key, blotted out of every error.
            warnings: what was approximated in the request; they go with the
                first chunk.

        Raises:
            UpstreamProtocolError: it holds neither events nor JSON, or is
                compressed.
        """
        self._response = response
        self._reader = reader
        self._request_id = batch.request_id
        streamed = is_streamed(response, asked=batch.stream)
        self._streamed = streamed or (batch.stream and reader.streams_json)
        self._timeouts = timeouts
        self._first_by: float | None = first_by
        self._total_at = total_at
        self._secret = secret
        self._ready: deque[C] = deque()
        self._failed = False
        self._warnings = warnings

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, by lower-case name."""
        return self._response.headers

    @property
    def counted(self) -> Usage | None:
        """What the upstream has said that it used, should no last chunk come."""
        return self._reader.counted

    def __aiter__(self) -> AsyncIterator[C]:
        return self

    async def __anext__(self) -> C:
        while not self._ready:
            if self._failed:
                raise StopAsyncIteration
            if self._reader.error is not None:
                self._failed = True
                with without_secret(self._secret):
                    raise self._reader.error
            if self._reader.ended:
                await self._leave_clean()
                raise StopAsyncIteration
            await self._wait()
        chunk = self._ready.popleft()
        if self._warnings and isinstance(chunk, TokenChunk | RawChunk):
            warned = attrs.evolve(chunk, warnings=self._warnings)
            self._warnings = ()
            return cast("C", warned)
        return chunk

    async def _wait(self) -> None:
        due_at = self._first_by
        if due_at is None:
            idle_at = trio.current_time() + self._timeouts.idle_s
            due_at = min(idle_at, self._total_at)
        # No scope for each wait: the connection keeps the time.
        self._response.due_by(due_at)
        try:
            await self._read()
        except InferenceError as error:
            self._failed = True
            blot(error, self._secret)
            if is_late(error):
                raise self._late() from error
            raise
        self._first_by = None

    def _late(self) -> UpstreamTimeoutError:
        if self._first_by is not None:
            return first_token_timeout(self._timeouts)
        idle_s = self._timeouts.idle_s
        return UpstreamTimeoutError(
            f"no chunk from the upstream for {idle_s:g} s", code="idle_timeout"
        )

    async def _read(self) -> None:
        if not self._streamed:
            body = await self._response.read()
            self._ready.extend(self._reader.whole(body))
            return
        while not self._ready:
            piece = await self._response.receive()
            if piece is None:
                self._take_end()
                return
            self._ready.extend(self._reader.feed(piece))

    def _take_end(self) -> None:
        self._ready.extend(self._reader.close())
        over = self._reader.ended or self._reader.error is not None
        if not self._ready and not over:
            # Nothing comes behind the end: to ask again would be for ever.
            raise StreamCutError("the upstream's answer ended without an end")

    async def _leave_clean(self) -> None:
        if self._reader.skipped:
            _log.warning(
                "request %s: skipped %d malformed events of the upstream's stream",
                self._request_id,
                self._reader.skipped,
            )
        await self._response.skip_rest(limit_bytes=_REST_BYTES, within_s=_REST_S)


@contextmanager
def within(deadline: float, late: InferenceError) -> Iterator[None]:
    """Run a block until an instant of trio's clock, then raise ``late``."""
    with trio.move_on_at(deadline) as scope:
        yield
    if scope.cancelled_caught:
        raise late


def is_late(error: InferenceError) -> bool:
    """Whether the bound of ``due_by`` was passed."""
    return isinstance(error, UpstreamTimeoutError) and error.code == "total_timeout"


def first_token_timeout(timeouts: Timeouts) -> UpstreamTimeoutError:
    """Return the error for an attempt that gave no chunk in time."""
    return UpstreamTimeoutError(
        f"no first chunk from the upstream within {timeouts.first_token_s:g} s",
        code="first_token_timeout",
    )


def is_streamed(response: HttpResponse, *, asked: bool) -> bool:
    """Tell events from JSON: some servers answer a stream request with a whole.

    Args:
        response: an answer whose status is 200.
        asked: whether a stream was asked for; decides when the answer has no
            content type.

    Raises:
        UpstreamProtocolError: it holds neither events nor JSON, or is
            compressed.
    """
    headers = response.headers
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
        raise _protocol_error(
            "the upstream's answer has a content-encoding, though none was asked for;"
            " switch compression off at the upstream or its proxy",
            "content_encoding",
        )
    content_type = headers.get("content-type", "")
    if content_type == "application/json":  # as it is written, mostly
        return False
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return True
    if kind == "application/json":
        return False
    if kind:
        raise _protocol_error(
            "the upstream's content-type is neither application/json nor"
            " text/event-stream; check the deployment's endpoint",
            "wrong_content_type",
        )
    return asked


def _protocol_error(message: str, code: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(message, code=code, status=int(HTTPStatus.OK))


async def read_error_body(response: HttpResponse) -> bytes:
    """Return as much of an error's body as comes soon and is no web page."""
    body = bytearray()
    with trio.move_on_after(_MAX_ERROR_S):
        try:
            async for piece in response.iter_bytes():
                body += piece
                if len(body) > _MAX_ERROR_BYTES:
                    break
        except UpstreamError:
            # The status came whole and decides; of the text, what is here.
            pass
    return bytes(body)
