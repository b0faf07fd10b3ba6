"""What a fake upstream does with a request, as values.

A script is a sequence of behaviours, one per request in order of arrival::

    script = [rate_limited("2"), Happy(text="Hi there!")]

A behaviour says what happens, in no provider's words;
``atomr_infer.testing.upstreams`` says it in the dialect of the upstream.

Pure.
"""

from __future__ import annotations

from enum import Enum

import attrs

from atomr_infer.model.usage import Usage

DEFAULT_TOKENS = ("Hello", " from", " the", " fake", " upstream", ".")


class Finish(Enum):
    """Why an answer ends, before a dialect has its own word for it."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    PAUSE = "pause"
    CONTEXT_FULL = "context_full"


@attrs.frozen(kw_only=True)
class ToolCall:
    """A function that an answer calls; as a behaviour, an answer of this alone.

    Attributes:
        name: the function.
        arguments: its arguments, JSON, in the pieces in which they stream.
        id: as the client sees it; None: one that the dialect makes up.
    """

    name: str = "get_weather"
    arguments: tuple[str, ...] = ('{"city":', ' "Paris"}')
    id: str | None = None

    @property
    def arguments_json(self) -> str:
        """The arguments in one piece; ``{}`` where there are none."""
        return "".join(self.arguments) or "{}"


@attrs.frozen(kw_only=True)
class Happy:
    """A whole answer.

    Attributes:
        tokens: the answer's pieces, cut at the request's ``max_tokens``.
        text: the answer, instead of ``tokens``; each word is a piece.
        reasoning: pieces of what the model thought first; shown where the
            dialect shows it, and to a request that asked for it.
        tool_calls: functions that are called behind the text.
        refusal: text with which the model declines, instead of an answer.
        finish: why it ends; None: what the request and the calls make of it.
        native_finish: the dialect's own word instead, whatever it is.
        delay_s: wait before each piece, in seconds.
        cached_tokens: prompt tokens that are said to come from a cache.
        reasoning_tokens: output tokens that are said to be reasoning, beside
            the pieces of ``reasoning``.
        usage: what the answer costs; True: counted, a word or a piece is a
            token; False leaves it out, whatever the request asks.
        done: False leaves out the event that ends a stream in the dialect
            (``[DONE]``, ``message_stop``, ``response.completed``).
        split_bytes: sends a streamed body in pieces of so many bytes, each in
            a write of its own; None: an event per write.
        malformed_after: puts an event that is not JSON behind so many pieces.
        then_close: ends the connection behind the answer without saying so, as
            a server does whose keep-alive time is over.
        model: the model that is said to have answered; None: the one asked for.
        headers: further headers of the answer.
    """

    tokens: tuple[str, ...] = DEFAULT_TOKENS
    text: str | None = None
    reasoning: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    finish: Finish | None = None
    native_finish: str | None = None
    delay_s: float = 0.0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage: bool | Usage = True
    done: bool = True
    split_bytes: int | None = None
    malformed_after: int | None = None
    then_close: bool = False
    model: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


def tool_calls(*calls: ToolCall, text: str = "") -> Happy:
    """Return an answer that calls functions, in parallel where there are several.

    >>> [call.name for call in tool_calls(ToolCall(name="f")).tool_calls]
    ['f']
    """
    return Happy(text=text, tool_calls=calls)


class Meaning(Enum):
    """What each provider refuses with a status and in words of its own."""

    BAD_KEY = "bad_key"
    CONTENT_POLICY = "content_policy"
    CONTEXT_TOO_LONG = "context_too_long"
    OUT_OF_QUOTA = "out_of_quota"
    OVERLOADED = "overloaded"
    UNKNOWN_MODEL = "unknown_model"


@attrs.frozen(kw_only=True)
class Refused:
    """An HTTP error with the dialect's error body.

    Attributes:
        status: 400 to 599.
        message: its text.
        type: the dialect's class of the error; None: what it has for the
            status.
        code: OpenAI's ``code``; Gemini's ``reason``.
        param: the request member at fault, where the dialect names it.
        retry_after: as a header, or as Gemini's ``RetryInfo``.
        headers: further headers.
    """

    status: int
    message: str = "the fake upstream refuses"
    type: str | None = None
    code: str | None = None
    param: str | None = None
    retry_after: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class RefusedAs:
    """The HTTP error that the dialect's provider gives in such a case.

    Attributes:
        meaning: the case.
    """

    meaning: Meaning


@attrs.frozen
class PromptBlocked:
    """The provider's filter stops the prompt before the model sees it.

    OpenAI answers 400, Anthropic an empty answer with ``refusal``, Gemini one
    with ``promptFeedback`` and no candidates.
    """


def rate_limited(retry_after: str | None = "1") -> Refused:
    """Return a 429; ``retry_after`` is the header as it is sent, None: without."""
    return Refused(
        status=429,
        message="Rate limit reached",
        code="rate_limit_exceeded",
        retry_after=retry_after,
    )


def server_error(status: int = 500) -> Refused:
    """Return a 5xx."""
    return Refused(status=status, message="The server had an error")


@attrs.frozen(kw_only=True)
class RawAnswer:
    """Any status and body: a proxy's web page, an error of another shape.

    Attributes:
        status: HTTP status.
        content_type: as it is sent.
        body: as it is sent.
        split_bytes: sends the body in pieces of so many bytes; None: at once.
        withheld_bytes: so many more are announced, and never come.
        headers: further headers.
    """

    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    body: bytes = b"<html><body>welcome to the proxy</body></html>"
    split_bytes: int | None = None
    withheld_bytes: int = 0
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class HangBeforeHeaders:
    """Take the request and say nothing until the client leaves."""


@attrs.frozen(kw_only=True)
class HangMidStream:
    """Send pieces, then nothing until the client leaves.

    Attributes:
        after: pieces before the silence.
        answer: what is broken off.
    """

    after: int = 2
    answer: Happy = Happy()


@attrs.frozen(kw_only=True)
class CommentsOnly:
    """Send pieces, then nothing but comments, as a proxy before a hung engine does.

    Attributes:
        after: pieces before the comments.
        every_s: time between two comments, in seconds.
        answer: what is broken off.
    """

    after: int = 0
    every_s: float = 1.0
    answer: Happy = Happy()


@attrs.frozen(kw_only=True)
class CutMidStream:
    """Send pieces, then drop the connection inside the body.

    Attributes:
        after: pieces before the cut.
        answer: what is broken off.
    """

    after: int = 2
    answer: Happy = Happy()


@attrs.frozen(kw_only=True)
class HalfClose:
    """Send pieces, then end the sending side only, and keep listening.

    Attributes:
        after: pieces before the end.
        answer: what is broken off.
    """

    after: int = 2
    answer: Happy = Happy()


@attrs.frozen(kw_only=True)
class EndWithoutFinish:
    """Send pieces and end the body properly, with no finish and no ``[DONE]``.

    Attributes:
        after: pieces before the end.
        answer: what is broken off.
    """

    after: int = 2
    answer: Happy = Happy()


@attrs.frozen(kw_only=True)
class ErrorInStream:
    """Send pieces, then an error inside the stream that began with 200.

    Attributes:
        after: pieces before the error.
        error: what it says, in the dialect's shape.
        data: the data of the error's event, instead of ``error``.
        event: its name beside ``data``; None: it has none.
        answer: what is broken off.
    """

    after: int = 2
    error: Refused = Refused(status=500, message="The server had an error")
    data: bytes | None = None
    event: str | None = None
    answer: Happy = Happy()


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
    | RefusedAs
    | PromptBlocked
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
