"""Requests to mistral.rs's terms, and its chunks to ours.

Pure: the arguments of a ``ChatCompletionRequest`` come out as a mapping, and
chunks are taken by their shape, so that nothing here imports the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from atomr_infer.errors import EngineError, UnsupportedFeatureError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TokenChunk,
    Usage,
)
from atomr_infer.model.parts import ReasoningPart, RefusalPart, TextPart

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
    }
)
"""What a request to mistral.rs 0.9.5 can say.  It has no seed per request, and
several answers to one prompt fail on a CPU (see ``runner`` on prefills)."""

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}

# A chat template knows the roles that its model was trained with; OpenAI's
# "developer" is what models know as "system".
_ROLE = {Role.DEVELOPER: Role.SYSTEM}


class EnginePromptDetails(Protocol):
    """mistral.rs's ``PromptTokensDetails``."""

    cached_tokens: int


class EngineUsage(Protocol):
    """mistral.rs's ``Usage``."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def prompt_tokens_details(self) -> EnginePromptDetails | None:
        """None: nothing of the prompt was in its prefix cache."""
        ...


class EngineDelta(Protocol):
    """mistral.rs's ``Delta``."""

    content: str | None
    reasoning_content: str | None


class EngineChoice(Protocol):
    """mistral.rs's ``ChunkChoice``."""

    finish_reason: str | None

    @property
    def delta(self) -> EngineDelta:
        """What is new."""
        ...


class EngineChunk(Protocol):
    """mistral.rs's ``ChatCompletionChunkResponse``."""

    @property
    def choices(self) -> Sequence[EngineChoice]:
        """One, as ``n`` is always 1."""
        ...

    @property
    def usage(self) -> EngineUsage | None:
        """On the last chunk."""
        ...


def request_arguments(batch: ExecuteBatch, context_tokens: int) -> dict[str, Any]:
    """Return the keyword arguments of a ``ChatCompletionRequest``.

    Args:
        batch: the request.
        context_tokens: bounds an answer that says no ``max_tokens``: a small
            model may otherwise repeat itself for ever.

    Raises:
        UnsupportedFeatureError: the conversation holds tool calls or content
            that is not text.
    """
    sampling = batch.sampling
    most = sampling.max_tokens
    return {
        "messages": [_message(message) for message in batch.messages],
        "model": "default",
        "stream": True,
        "max_tokens": context_tokens if most is None else min(most, context_tokens),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop_seqs": list(sampling.stop) or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }


def _message(message: Message) -> dict[str, str]:
    for part in message.content:
        # What the model thought in earlier turns is not shown to it again.
        if not isinstance(part, TextPart | RefusalPart | ReasoningPart):
            raise UnsupportedFeatureError(
                f"this model reads text only, not {type(part).__name__}",
                code="unsupported_parameter",
                param="messages",
            )
    role = _ROLE.get(message.role, message.role)
    # Templates of text models join strings: a list of parts breaks them.
    return {"role": role.value, "content": message.text}


def chunk_from_engine(chunk: EngineChunk) -> TokenChunk:
    """Return a piece of an answer.

    Raises:
        EngineError: the engine ended the answer for a reason of its own.
    """
    if not chunk.choices:
        return TokenChunk(usage=_usage(chunk.usage))
    choice = chunk.choices[0]
    reasoning = choice.delta.reasoning_content
    return TokenChunk(
        text=choice.delta.content or "",
        finish_reason=_finish(choice.finish_reason),
        usage=_usage(chunk.usage),
        reasoning=ReasoningDelta(text=reasoning) if reasoning else None,
    )


def _finish(reason: str | None) -> FinishReason | None:
    if reason is None:
        return None
    if reason not in _FINISH:
        raise EngineError(f"mistral.rs ended the answer: {reason}")
    return _FINISH[reason]


def _usage(usage: EngineUsage | None) -> Usage | None:
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    cached = 0 if details is None else details.cached_tokens
    return Usage(
        input_uncached=usage.prompt_tokens - cached,
        cache_read=cached,
        output_text=usage.completion_tokens,
    )
