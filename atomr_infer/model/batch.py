"""What a runner is asked, and what it answers, independent of any dialect.

``ExecuteBatch`` goes in; a stream of ``TokenChunk`` comes out.  What the
canonical form does not model is kept as raw JSON in ``extra``: a runtime of the
dialect that it came in (``ExecuteBatch.dialect``) passes it on unchanged, and
for any other it is refused or reported before the request starts
(``Capabilities``).

A runtime that speaks the client's own dialect need not go through the canonical
form at all: ``ExecuteBatch.source`` holds the client's bytes, and the answer is
then a stream of ``RawChunk``, the upstream's bytes with what was seen in them.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

from atomr_infer.model.asker import Asker
from atomr_infer.model.asks import RawTool, Reasoning, ResponseFormat, Tool, ToolChoice
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    Part,
    RawJson,
    RawPart,
    RefusalPart,
    Signature,
    TextPart,
    ToolCallPart,
)
from atomr_infer.model.source import Source
from atomr_infer.model.usage import Usage

__all__ = [
    "ExecuteBatch",
    "FinishReason",
    "Message",
    "RawChunk",
    "RawJson",
    "RawPart",
    "ReasoningDelta",
    "RefusalPart",
    "Role",
    "Sampling",
    "TextPart",
    "TokenChunk",
    "ToolCallDelta",
    "ToolCallPart",
    "Usage",
]


class Role(Enum):
    """Who speaks in a message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(Enum):
    """Why a choice ended, in OpenAI's words."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


def _parts(content: str | tuple[Part, ...] | None) -> tuple[Part, ...]:
    if content is None:
        return ()
    return (TextPart(content),) if isinstance(content, str) else content


@attrs.frozen
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.  A ``TOOL`` message holds tool results only; a ``USER``
            message holds none.
        content: what is said, in order; a string becomes one text part.
        name: who speaks, among several of the same role.
        extra: further members in the request's dialect, by member name.
    """

    role: Role
    content: tuple[Part, ...] = attrs.field(converter=_parts)
    name: str | None = attrs.field(default=None, kw_only=True)
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)

    @property
    def text(self) -> str:
        """All text of the message, parts joined; "" when there is none.

        >>> Message(Role.USER, (TextPart("a"), TextPart("b"))).text
        'ab'
        """
        return "".join(p.text for p in self.content if isinstance(p, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tools that the message asks to run."""
        return tuple(p for p in self.content if isinstance(p, ToolCallPart))


@attrs.frozen(kw_only=True)
class Sampling:
    """How tokens are chosen and when the answer ends; None: the model's default.

    Attributes:
        temperature: 0 (greedy) and above.
        top_p: nucleus mass, above 0 up to 1.
        top_k: how many of the likeliest tokens are considered.
        max_tokens: most output tokens.
        stop: strings that end the answer and are not part of it.
        seed: makes sampling repeatable where the runtime can.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        n: answers to the same prompt, at least 1.
        top_logprobs: alternatives to report for each token; 0: only the
            token's own probability; None: no probabilities.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int = 1
    top_logprobs: int | None = None

    def given(self) -> frozenset[str]:
        """The names of the fields that differ from "not said".

        >>> sorted(Sampling(temperature=0.0, n=1).given())
        ['temperature']
        """
        return frozenset(
            field.name
            for field in attrs.fields(Sampling)
            if getattr(self, field.name) != field.default
        )


@attrs.frozen(kw_only=True)
class ExecuteBatch:
    """One generation to run.

    Attributes:
        request_id: unique per request; appears in every log line about it.
        model: what the runtime is asked for.
        messages: the conversation, at least one message.
        prompt: bare text to continue (``/v1/completions``), which is also the
            one message; None: a chat.
        only_passed: what of the request its canonical form cannot say, in a few
            words, so that its bytes must be passed on; None: it says all.
        sampling: how tokens are chosen.
        stream: True when chunks are wanted as they are made.  A runner may
            answer a False with one chunk that holds everything.
        tools: what the model may ask to run.
        tool_choice: how tools are chosen; None: not said.
        parallel_tool_calls: whether one turn may call several; None: not said.
        response_format: the form of the answer's text; None: not said.
        reasoning: how the model shall reason; None: not said.
        user: whom the client serves, for the provider's abuse checks.
        dialect: whose words ``extra`` and every raw part and tool are.
        extra: further members of the request as raw JSON by member name.
        client_headers: the client's headers that a provider may want, by
            lower-case name: ``anthropic-beta``, an upstream key.
        source: the client's own bytes; None: only the canonical form is left.
        session: names the conversation that it belongs to, for who routes it; None:
            the client does not say.
        priority: who goes first when there is a queue; higher first.
        timeout_s: the client's own bound on the whole request; it can lower
            the deployment's, not raise it.
        asker: whose virtual key it showed; None: none.
    """

    request_id: str
    model: str
    messages: tuple[Message, ...]
    prompt: str | None = None
    only_passed: str | None = None
    sampling: Sampling = Sampling()
    stream: bool = True
    tools: tuple[Tool | RawTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    user: str | None = None
    dialect: Dialect = Dialect.OPENAI_CHAT
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    client_headers: Mapping[str, str] = attrs.field(
        factory=dict, hash=False, repr=False
    )
    source: Source | None = attrs.field(default=None, repr=False)
    session: str | None = None
    priority: int = 0
    timeout_s: float | None = None
    asker: Asker | None = None

    def asked_for(self, model: str) -> ExecuteBatch:
        """Return the same request for the model of that name."""
        return self if model == self.model else attrs.evolve(self, model=model)


@attrs.frozen(kw_only=True)
class ReasoningDelta:
    """A piece of what the model thinks.

    Attributes:
        text: new text of the readable thought.
        signature: proves the block; comes once, at the block's end.
        data: a whole encrypted block.
        block: which thought it belongs to, counted from 0 per choice.
        id: the provider's name for the item (OpenAI Responses).
    """

    text: str = ""
    signature: Signature | None = None
    data: Signature | None = None
    block: int = 0
    id: str | None = None


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: which call of the choice, counted from 0 in order of appearance,
            for the whole answer.
        id: set on the call's first piece, and only there.
        name: set on the call's first piece, and only there.
        arguments: new text of the arguments' JSON.
        signature: what Gemini attaches to a call.
    """

    index: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: Signature | None = None


@attrs.frozen(kw_only=True)
class TokenChunk:
    """A piece of an answer.

    Attributes:
        text: new text; "" when the chunk carries something else.
        index: which of the ``n`` answers it belongs to.
        finish_reason: set once per index, on its last chunk with content or
            on an empty one behind it.
        usage: totals of the whole generation, on the last chunk.
        reasoning: a piece of a thought.
        tool_calls: pieces of tool calls.
        refusal: new text of a refusal.
        logprobs: the probabilities of this chunk's tokens, as OpenAI writes
            them in a choice.
        text_signature: what Gemini attaches to a text.
        native_finish: the provider's own word for ``finish_reason``.
        stop_sequence: which of ``Sampling.stop`` ended the answer, when known.
        extra: further members of an OpenAI delta as raw JSON (``annotations``,
            ``audio``).
        choice_extra: further members of an OpenAI choice as raw JSON.
        model: the model that served, when the upstream says it.
        warnings: what was approximated or left out on the way to the upstream,
            in one phrase each; on the first chunk.
    """

    text: str = ""
    index: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: ReasoningDelta | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    refusal: str = ""
    logprobs: RawJson | None = None
    text_signature: Signature | None = None
    native_finish: str | None = None
    stop_sequence: str | None = None
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    choice_extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    model: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def has_content(self) -> bool:
        """True when a client that got this chunk has seen part of an answer."""
        return bool(
            self.text
            or self.tool_calls
            or self.reasoning
            or self.refusal
            or self.extra
            or self.text_signature
        )


@attrs.frozen(kw_only=True)
class RawChunk:
    """A piece of an answer in the client's own dialect, to be passed on as it is.

    All chunks of one answer are raw, or none is.  A streamed answer's pieces
    are the bytes of whole server-sent events; another answer is one piece, the
    body.

    Attributes:
        data: the bytes.
        has_content: True when a client that got it has seen part of an answer.
        finish_reason: the first one that was seen in it.
        usage: totals, on the last chunk.
        model: the model that served, when it was seen.
        content_type: the body's media type.
        text: the text inside, when somebody asked for it; "" otherwise.
        warnings: as a token chunk's.
        names: what the upstream calls that which it keeps of the answer.
    """

    data: bytes
    has_content: bool = True
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str | None = None
    content_type: str = "text/event-stream; charset=utf-8"
    text: str = ""
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def index(self) -> int:
        """0: which choice it belongs to was not looked at."""
        return 0
