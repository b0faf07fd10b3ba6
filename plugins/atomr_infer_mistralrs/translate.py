"""Requests to mistral.rs's terms, and its chunks to ours.

Pure: the arguments of a ``ChatCompletionRequest`` come out as a mapping, and
chunks are taken by their shape, so that nothing here imports the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from atomr_infer.errors import EngineError, InvalidRequestError
from atomr_infer.model.asks import FormatKind
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    ReasoningDelta,
    TokenChunk,
    Usage,
)
from atomr_infer.runtimes.decoding.schemas import ANY_OBJECT, BLANKS, may_take_long
from atomr_infer.runtimes.decoding.told_tools import in_words
from atomr_infer.runtimes.decoding.turns import tools_of, turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.model.asks import ResponseFormat
    from atomr_infer.model.parts import RawJson

SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "top_logprobs",
    }
)
"""What a request to mistral.rs 0.9.5 can say.  It has no seed per request, and
several answers to one prompt fail on a CPU (see ``runner`` on prefills)."""

MEMBERS = frozenset({"min_p", "repetition_penalty"})
"""Members of a request that are the engine's own, and what it calls them too."""

MAX_TOP_LOGPROBS = 20

_LEAST = -9999.0
"""What OpenAI writes for a token that was impossible; JSON has no infinity."""

_PART_OF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"

_FINISH = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
}


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


class EngineTopLogprob(Protocol):
    """mistral.rs's ``TopLogprob``: the token is a number, and ``bytes`` its text."""

    logprob: float
    bytes: str | None


class EngineLogprob(Protocol):
    """mistral.rs's ``ResponseLogprob``, of a token."""

    token: str
    logprob: float
    bytes: Sequence[int] | None

    @property
    def top_logprobs(self) -> Sequence[EngineTopLogprob]:
        """The likeliest, as many as were asked for."""
        ...


class EngineChoice(Protocol):
    """mistral.rs's ``ChunkChoice``."""

    finish_reason: str | None

    @property
    def logprobs(self) -> EngineLogprob | None:
        """Of the token that is new."""
        ...

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


def request_arguments(
    batch: ExecuteBatch, context_tokens: int, form: ResponseFormat | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of a ``ChatCompletionRequest``.

    Args:
        batch: the request.
        context_tokens: bounds an answer that says no ``max_tokens``: a small
            model may otherwise repeat itself for ever.
        form: what its answer is kept to; None: nothing.

    Raises:
        UnsupportedFeatureError: the conversation holds what is not text.
        InvalidRequestError: a value is not allowed, or the schema may take long.
    """
    sampling = batch.sampling
    most = sampling.max_tokens
    _check(sampling.top_k, sampling.top_logprobs)
    return {
        # A template may not know tools, and the engine then leaves them out without
        # a word; what it finds in an answer depends on the model's name.  So they are
        # told in words, and the calls are found here.
        "messages": in_words(turns_of(batch.messages), tools_of(batch)),
        "model": "default",
        "stream": True,
        "max_tokens": context_tokens if most is None else min(most, context_tokens),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or None,
        "stop_seqs": list(sampling.stop) or None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logprobs": sampling.top_logprobs is not None,
        "top_logprobs": sampling.top_logprobs,
        **_members(batch.extra),
        **_grammar(form),
    }


def _check(top_k: int | None, top_logprobs: int | None) -> None:
    if top_k is not None and top_k < 0:
        raise InvalidRequestError(
            f"top_k is {top_k}; it must be at least 0", param="top_k"
        )
    if top_logprobs is not None and not 0 <= top_logprobs <= MAX_TOP_LOGPROBS:
        raise InvalidRequestError(
            f"top_logprobs is {top_logprobs}; it must be from 0 to {MAX_TOP_LOGPROBS}",
            param="top_logprobs",
        )


def _members(extra: Mapping[str, RawJson]) -> dict[str, float]:
    members = {}
    for name in MEMBERS & extra.keys():
        try:
            value = msgspec.json.decode(extra[name], type=float | None)
        except msgspec.DecodeError as error:
            raise InvalidRequestError(
                f"{name} is no number: {error}", param=name
            ) from error
        if value is not None:
            _check_member(name, value)
            members[name] = value
    return members


def _check_member(name: str, value: float) -> None:
    """Refuse what the engine leaves out without a word, or draws nonsense by."""
    if name == "min_p" and not 0 <= value < 1:
        raise InvalidRequestError(
            f"min_p is {value!r}; it must be at least 0 and below 1", param="min_p"
        )
    if name == "repetition_penalty" and value <= 0:
        raise InvalidRequestError(
            f"repetition_penalty is {value!r}; it must be above 0",
            param="repetition_penalty",
        )


def _grammar(form: ResponseFormat | None) -> dict[str, str]:
    """Return what an answer is kept to; nothing: anything may come."""
    if form is None or form.kind is FormatKind.TEXT:
        return {}
    text = ANY_OBJECT if form.schema is None else bytes(form.schema).decode()
    if may_take_long(text):
        # The thread that makes everybody's tokens is the one that works it out.
        raise InvalidRequestError(
            "this schema cannot be kept to: it may take long to be worked out, and "
            "mistral.rs makes no other answer meanwhile; leave out conditions "
            "(allOf, oneOf, not, if), patterns and formats, or serve the model with "
            "ort, llamacpp or vllm",
            param="response_format",
        )
    schema = msgspec.json.decode(text)
    if not isinstance(schema, dict):
        return {"grammar": text, "grammar_type": "json_schema"}
    told = msgspec.json.encode({**schema, "x-guidance": BLANKS}).decode()
    return {"grammar": told, "grammar_type": "json_schema"}


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
        logprobs=_logprobs(choice.logprobs),
    )


def _logprobs(found: EngineLogprob | None) -> bytes | None:
    if found is None:
        return None
    data = None if found.bytes is None else list(found.bytes)
    report = _report(found.token, found.logprob, data)
    report["top_logprobs"] = [
        _report(text := one.bytes or "", one.logprob, _bytes_of(text))
        for one in found.top_logprobs
    ]
    return msgspec.json.encode({"content": [report], "refusal": None})


def _report(token: str, logprob: float, data: list[int] | None) -> dict[str, Any]:
    return {"token": token, "logprob": max(logprob, _LEAST), "bytes": data}


def _bytes_of(text: str) -> list[int] | None:
    # Of a part of a character, the engine does not tell the bytes.
    return None if _PART_OF_A_CHARACTER in text else list(text.encode())


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
