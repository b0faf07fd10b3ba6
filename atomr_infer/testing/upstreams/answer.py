"""A behaviour and a request, made into one answer: the last step before a dialect.

Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.model.usage import Usage
from atomr_infer.testing.upstream_script import DEFAULT_TOKENS, Finish, Happy, ToolCall
from atomr_infer.testing.upstreams.schema_example import example_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.testing.upstreams.call import Call


@attrs.frozen(kw_only=True)
class Answer:
    """What each of a request's ``n`` answers is.

    Attributes:
        model: the model that is said to have answered.
        reasoning: pieces of what the model thought.
        pieces: of the text.
        tool_calls: functions that are called behind the text.
        refusal: text with which the model declines; None: it does not.
        finish: why it ends.
        native_finish: the dialect's own word instead.
        stop_sequence: the text that ended it; None: none did.
        usage: of all ``n`` answers; None: the upstream does not say.
        blocked: whether the prompt was stopped, so that there is no answer.
    """

    model: str
    reasoning: tuple[str, ...]
    pieces: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    refusal: str | None
    finish: Finish
    native_finish: str | None
    stop_sequence: str | None
    usage: Usage | None
    blocked: bool = False

    @property
    def text(self) -> str:
        """The pieces joined."""
        return "".join(self.pieces)


@attrs.frozen
class _Kept:
    """The pieces that a request's bounds leave, and what ended them."""

    pieces: tuple[str, ...]
    finish: Finish
    stop: str | None = None


def make_answer(happy: Happy, call: Call) -> Answer:
    """Return the answer, cut at the request's ``max_tokens`` and ``stop``."""
    kept = _cut(_pieces(happy, call), call)
    calls = happy.tool_calls if kept.finish is Finish.STOP else ()
    finish = kept.finish
    if calls:
        finish = Finish.TOOL_CALLS
    elif happy.refusal is not None:
        finish = Finish.CONTENT_FILTER
    answer = Answer(
        model=happy.model or call.model,
        reasoning=happy.reasoning,
        pieces=kept.pieces,
        tool_calls=calls,
        refusal=happy.refusal,
        finish=happy.finish or finish,
        native_finish=happy.native_finish,
        stop_sequence=kept.stop,
        usage=None,
    )
    return attrs.evolve(answer, usage=_usage(happy, call, answer))


def split_words(text: str) -> tuple[str, ...]:
    """Return a text's words, each with the white space in front of it.

    >>> split_words("to be  or ")
    ('to', ' be', '  or ')
    """
    return tuple(re.findall(r"\s*\S+(?:\s+\Z)?", text))


def _pieces(happy: Happy, call: Call) -> tuple[str, ...]:
    if happy.refusal is not None:
        return ()
    if happy.text is not None:
        return split_words(happy.text)
    if call.schema is not None and happy.tokens is DEFAULT_TOKENS:
        return split_words(msgspec.json.encode(example_of(call.schema)).decode())
    return happy.tokens


def _cut(pieces: tuple[str, ...], call: Call) -> _Kept:
    kept: list[str] = []
    for piece in pieces:
        if len(kept) == call.max_tokens:
            return _Kept(tuple(kept), Finish.LENGTH)
        kept.append(piece)
        text = "".join(kept)
        ends = [(text.index(stop), stop) for stop in call.stop if stop in text]
        if ends:
            at, stop = min(ends)
            return _Kept((text[:at],), Finish.STOP_SEQUENCE, stop)
    return _Kept(tuple(kept), Finish.STOP)


def _usage(happy: Happy, call: Call, answer: Answer) -> Usage | None:
    if not isinstance(happy.usage, bool):
        return happy.usage
    if not happy.usage:
        return None
    pieces = len(answer.pieces) + words_of_calls(answer.tool_calls)
    if answer.refusal is not None:
        pieces += len(split_words(answer.refusal))
    return Usage(
        input_uncached=call.prompt_tokens - happy.cached_tokens,
        cache_read=happy.cached_tokens,
        output_text=pieces * call.n,
        reasoning=happy.reasoning_tokens + len(answer.reasoning) * call.n,
    )


def words_of_calls(calls: tuple[ToolCall, ...]) -> int:
    """Return what the calls cost: a piece of the arguments is a token."""
    return sum(len(call.arguments) for call in calls)


@attrs.frozen
class Unit:
    """The smallest thing that a stream says.

    Attributes:
        position: which piece of the answer it is, counted from 0; a call's
            start has the position of its first piece.
    """

    position: int


@attrs.frozen
class Thought(Unit):
    """A piece of what the model thinks."""

    text: str


@attrs.frozen
class Text(Unit):
    """A piece of the answer's text."""

    text: str


@attrs.frozen
class Declined(Unit):
    """A piece of the text with which the model declines."""

    text: str


@attrs.frozen
class CallStart(Unit):
    """A call begins.

    Attributes:
        index: which of the answer's calls, counted from 0.
        call: the whole call.
    """

    index: int
    call: ToolCall


@attrs.frozen
class CallPiece(Unit):
    """A piece of a call's arguments.

    Attributes:
        index: which of the answer's calls.
        text: the piece.
    """

    index: int
    text: str


def units(answer: Answer) -> Iterator[Unit]:
    """Yield what a stream of the answer says, in order."""
    position = 0
    for text in answer.reasoning:
        yield Thought(position, text)
        position += 1
    for text in answer.pieces:
        yield Text(position, text)
        position += 1
    for text in split_words(answer.refusal or ""):
        yield Declined(position, text)
        position += 1
    for index, call in enumerate(answer.tool_calls):
        yield CallStart(position, index, call)
        for text in call.arguments:
            yield CallPiece(position, index, text)
            position += 1
        position += not call.arguments
