"""What a runner is asked, and what it answers, independent of any dialect.

``ExecuteBatch`` goes in; a stream of ``TokenChunk`` comes out.  What the
canonical form does not model (yet) is kept as raw JSON in ``extra``, so that a
runtime of the same dialect passes it on unchanged, and a runtime that does not
know it can be refused before the request starts (``Capabilities``).

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

RawJson = bytes
"""One JSON value, UTF-8, as it was received."""


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


@attrs.frozen
class TextPart:
    """Text inside a message's content."""

    text: str


@attrs.frozen
class RawPart:
    """A content part that is not text: ``image_url``, ``input_audio``, ...

    Attributes:
        kind: its ``type``.
        json: the whole part as received, ``type`` included.
    """

    kind: str
    json: RawJson


@attrs.frozen
class Message:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        content: text, or parts; None where only ``extra`` speaks (tool calls).
        extra: further members (``name``, ``tool_calls``, ``tool_call_id``, ...)
            as raw JSON by member name.
    """

    role: Role
    content: str | tuple[TextPart | RawPart, ...] | None
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)

    @property
    def text(self) -> str:
        """All text of the message, parts joined; "" when there is none.

        >>> Message(Role.USER, (TextPart("a"), TextPart("b"))).text
        'ab'
        """
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(p.text for p in self.content if isinstance(p, TextPart))


@attrs.frozen(kw_only=True)
class Sampling:
    """How tokens are chosen and when the answer ends; None: the model's default.

    Attributes:
        temperature: 0 (greedy) and above.
        top_p: nucleus mass, above 0 up to 1.
        max_tokens: most output tokens.
        stop: strings that end the answer and are not part of it.
        seed: makes sampling repeatable where the runtime can.
        presence_penalty: -2 to 2.
        frequency_penalty: -2 to 2.
        n: answers to the same prompt, at least 1.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: int = 1

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
        request_id: unique per attempt; appears in every log line about it.
        model: what the runtime is asked for.
        messages: the conversation, at least one message.
        sampling: how tokens are chosen.
        stream: True when chunks are wanted as they are made.  A runner may
            answer a False with one chunk that holds everything.
        extra: further members of the request as raw JSON by member name.
    """

    request_id: str
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    stream: bool = True
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens of one generation in disjoint buckets; totals are their sums.

    Attributes:
        input_uncached: prompt tokens that were computed.
        cache_read: prompt tokens taken from a prompt cache.
        output_text: output tokens that are part of the answer.
        reasoning: output tokens spent on hidden or separate reasoning.
        estimated: True when the upstream did not say and we counted.
    """

    input_uncached: int
    output_text: int
    cache_read: int = 0
    reasoning: int = 0
    estimated: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Input tokens, cached ones included."""
        return self.input_uncached + self.cache_read

    @property
    def output_tokens(self) -> int:
        """Output tokens, reasoning included."""
        return self.output_text + self.reasoning

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.output_tokens


@attrs.frozen(kw_only=True)
class TokenChunk:
    """A piece of an answer.

    Attributes:
        text: new text; "" when the chunk carries something else.
        index: which of the ``n`` answers it belongs to.
        finish_reason: set once per index, on its last chunk with content or
            on an empty one behind it.
        usage: totals of the whole generation, on the last chunk.
        extra: further members of the delta (``tool_calls``,
            ``reasoning_content``, ``refusal``, ...) as raw JSON.
        choice_extra: further members of the choice (``logprobs``).
        model: the model that served, when the upstream says it.
    """

    text: str = ""
    index: int = 0
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    choice_extra: Mapping[str, RawJson] = attrs.field(factory=dict, hash=False)
    model: str | None = None

    @property
    def has_content(self) -> bool:
        """True when a client that got this chunk has seen part of an answer."""
        return bool(self.text or self.extra)
