"""What a fake upstream does with a request, as values.

A script is a sequence of behaviours, one per request in order of arrival::

    script = [RateLimited(retry_after="2"), Happy(tokens=("Hi", "!"))]

A behaviour says what a client experiences; ``atomr_infer.testing.upstream_plan``
turns it into the steps that a connection takes.

Pure.
"""

from __future__ import annotations

import attrs

DEFAULT_TOKENS = ("Hello", " from", " the", " fake", " upstream", ".")


@attrs.frozen(kw_only=True)
class Happy:
    """A whole answer.

    Attributes:
        tokens: the answer's pieces, cut at the request's ``max_tokens``.
        delay_s: wait before each piece, in seconds.
        cached_tokens: prompt tokens that are said to come from a cache.
        reasoning_tokens: output tokens that are said to be reasoning.
        usage: False leaves usage out, whatever the request asks.
        done: False leaves out ``[DONE]``.
        split_bytes: sends a streamed body in pieces of so many bytes, each in
            a write of its own; None: an event per write.
        malformed_after: puts an event that is not JSON behind so many pieces.
        then_close: ends the connection behind the answer without saying so, as
            a server does whose keep-alive time is over.
    """

    tokens: tuple[str, ...] = DEFAULT_TOKENS
    delay_s: float = 0.0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage: bool = True
    done: bool = True
    split_bytes: int | None = None
    malformed_after: int | None = None
    then_close: bool = False


@attrs.frozen(kw_only=True)
class ToolCall:
    """An answer that calls one function.

    Attributes:
        name: the function.
        arguments: its arguments, JSON, in the pieces in which they stream.
    """

    name: str = "get_weather"
    arguments: tuple[str, ...] = ('{"city":', ' "Paris"}')


@attrs.frozen(kw_only=True)
class Refused:
    """An HTTP error with OpenAI's error body.

    Attributes:
        status: 400 to 599.
        message: its text.
        type: OpenAI's ``type``.
        code: OpenAI's ``code``.
        param: the request member at fault.
        headers: further headers, such as ``retry-after``.
    """

    status: int
    message: str = "the fake upstream refuses"
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def rate_limited(retry_after: str | None = "1") -> Refused:
    """Return a 429; ``retry_after`` is the header as it is sent, None: without."""
    return Refused(
        status=429,
        message="Rate limit reached",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers=() if retry_after is None else (("retry-after", retry_after),),
    )


def server_error(status: int = 500) -> Refused:
    """Return a 5xx."""
    return Refused(
        status=status, message="The server had an error", type="server_error"
    )


@attrs.frozen(kw_only=True)
class RawAnswer:
    """Any status and body: a proxy's web page, an error of another shape.

    Attributes:
        status: HTTP status.
        content_type: as it is sent.
        body: as it is sent.
        split_bytes: sends the body in pieces of so many bytes; None: at once.
        withheld_bytes: so many more are announced, and never come.
    """

    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    body: bytes = b"<html><body>welcome to the proxy</body></html>"
    split_bytes: int | None = None
    withheld_bytes: int = 0


@attrs.frozen
class HangBeforeHeaders:
    """Take the request and say nothing until the client leaves."""


@attrs.frozen(kw_only=True)
class HangMidStream:
    """Send pieces, then nothing until the client leaves.

    Attributes:
        after: pieces before the silence.
    """

    after: int = 2


@attrs.frozen(kw_only=True)
class CommentsOnly:
    """Send pieces, then nothing but comments, as a proxy before a hung engine does.

    Attributes:
        after: pieces before the comments.
        every_s: time between two comments, in seconds.
    """

    after: int = 0
    every_s: float = 1.0


@attrs.frozen(kw_only=True)
class CutMidStream:
    """Send pieces, then drop the connection inside the body.

    Attributes:
        after: pieces before the cut.
    """

    after: int = 2


@attrs.frozen(kw_only=True)
class HalfClose:
    """Send pieces, then end the sending side only, and keep listening.

    Attributes:
        after: pieces before the end.
    """

    after: int = 2


@attrs.frozen(kw_only=True)
class EndWithoutFinish:
    """Send pieces and end the body properly, with no finish and no ``[DONE]``.

    Attributes:
        after: pieces before the end.
    """

    after: int = 2


@attrs.frozen(kw_only=True)
class ErrorInStream:
    """Send pieces, then an error inside the stream that began with 200.

    Attributes:
        after: pieces before the error.
        data: the data of the error's event.
        event: its name; None: it has none.
    """

    after: int = 2
    data: bytes = (
        b'{"error":{"message":"The server had an error","type":"server_error",'
        b'"param":null,"code":null}}'
    )
    event: str | None = None


@attrs.frozen(kw_only=True)
class HugeLine:
    """Send one line that is longer than a reader should take.

    Attributes:
        size_bytes: its length.
    """

    size_bytes: int


@attrs.frozen
class CloseBeforeHeaders:
    """Take the request, then close the connection without an answer."""


@attrs.frozen
class SlowHeaders:
    """Send the head of the answer a byte at a time.

    Attributes:
        delay_s: wait before each byte, in seconds.
    """

    delay_s: float = 0.05


Behaviour = (
    Happy
    | ToolCall
    | Refused
    | RawAnswer
    | HangBeforeHeaders
    | HangMidStream
    | CommentsOnly
    | CutMidStream
    | HalfClose
    | EndWithoutFinish
    | ErrorInStream
    | HugeLine
    | CloseBeforeHeaders
    | SlowHeaders
)

BY_NAME: dict[str, Behaviour] = {
    "happy": Happy(),
    "slow": Happy(delay_s=0.2),
    "tool-call": ToolCall(),
    "rate-limited": rate_limited(),
    "server-error": server_error(),
    "hang-before-headers": HangBeforeHeaders(),
    "hang-mid-stream": HangMidStream(),
    "cut-mid-stream": CutMidStream(),
    "half-close": HalfClose(),
    "error-in-stream": ErrorInStream(),
    "malformed-event": Happy(malformed_after=2),
    "no-done": Happy(done=False),
    "split-bytes": Happy(split_bytes=1),
    "wrong-content-type": RawAnswer(),
}
"""The behaviours that a command line can name."""
