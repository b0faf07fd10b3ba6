"""Gemini's counts of tokens, and the canonical buckets.

``promptTokenCount`` includes what was cached; ``candidatesTokenCount`` excludes
thoughts; what the provider's own tools read is counted beside the prompt.  The
total is the check: where a server counts thoughts among the candidates, or
leaves them out, the sum shows it.

Counts are read leniently and as a whole, as ``atomr_infer.wire.openai`` does:
one that is no count makes it no usage at all.

Pure.

Source: Gemini API reference, "UsageMetadata".
"""

from __future__ import annotations

import msgspec

from atomr_infer.model.usage import Usage, split_total

# Beyond it a float is no exact count any more.
_MAX_COUNT = 2**53

_Number = int | float | None


class _Modality(msgspec.Struct, rename="camel"):
    modality: str | None = None
    token_count: _Number = None


_Modalities = list[_Modality] | None


class UsageMetadata(msgspec.Struct, rename="camel"):
    """The counts of one answer, each as the server wrote it."""

    prompt_token_count: _Number = None
    cached_content_token_count: _Number = None
    candidates_token_count: _Number = None
    thoughts_token_count: _Number = None
    tool_use_prompt_token_count: _Number = None
    total_token_count: _Number = None
    prompt_tokens_details: _Modalities = None
    cache_tokens_details: _Modalities = None
    candidates_tokens_details: _Modalities = None


_decode = msgspec.json.Decoder(UsageMetadata | None).decode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _NoCountError(Exception):
    """A number is negative, has a fraction or is absurd."""


def decode_usage(raw: bytes) -> Usage | None:
    """Return the usage that a JSON value tells; None when it tells none.

    An object without any count of a whole (Vertex's ``trafficType`` alone, or with
    an empty list of details) tells nothing: it must not be billed as nothing.

    >>> decode_usage(b'{"promptTokenCount":5,"cachedContentTokenCount":2,'
    ...     b'"candidatesTokenCount":3,"thoughtsTokenCount":1}')
    Usage(input_uncached=3, cache_read=2, output_text=3, reasoning=1)
    """
    try:
        metadata = _decode(raw)
        return None if metadata is None or _is_empty(metadata) else _buckets(metadata)
    except (*_DECODE_ERRORS, _NoCountError):
        return None


def _is_empty(told: UsageMetadata) -> bool:
    """Whether it says neither what was read nor what was written."""
    return (
        told.prompt_token_count is None
        and told.candidates_token_count is None
        and told.thoughts_token_count is None
        and told.total_token_count is None
    )


def _buckets(told: UsageMetadata) -> Usage:
    prompt = _count(told.prompt_token_count)
    tools = _count(told.tool_use_prompt_token_count)
    candidates, thoughts = _output(told, prompt + tools)
    text, cached, audio, image = split_total(
        prompt,
        (
            _count(told.cached_content_token_count),
            _uncached(told, "AUDIO"),
            _uncached(told, "IMAGE"),
        ),
    )
    spoken = _of(told.candidates_tokens_details, "AUDIO")
    output, output_audio = split_total(candidates, (spoken,))
    return Usage(
        input_uncached=text,
        cache_read=cached,
        input_audio=audio,
        input_image=image,
        tool_prompt=tools,
        output_text=output,
        reasoning=thoughts,
        output_audio=output_audio,
    )


def _output(told: UsageMetadata, read: int) -> tuple[int, int]:
    """Return the tokens of candidates and of thoughts, apart."""
    candidates = _count(told.candidates_token_count)
    thoughts = _count(told.thoughts_token_count)
    if told.total_token_count is None:
        return candidates, thoughts
    written = _count(told.total_token_count) - read
    if written == candidates and thoughts <= candidates:
        return candidates - thoughts, thoughts
    # What the total has more than the parts was thought, and is billed.
    return candidates, max(thoughts, written - candidates)


def _uncached(told: UsageMetadata, modality: str) -> int:
    return _of(told.prompt_tokens_details, modality) - _of(
        told.cache_tokens_details, modality
    )


def _of(details: _Modalities, modality: str) -> int:
    return sum(
        _count(detail.token_count)
        for detail in details or ()
        if detail.modality == modality
    )


def _count(number: _Number) -> int:
    if number is None:
        return 0
    if not 0 <= number <= _MAX_COUNT or number != int(number):
        raise _NoCountError
    return int(number)


# --- towards clients --------------------------------------------------------


def usage_members(usage: Usage) -> dict[str, object]:
    """Return usage as Gemini writes it; the total is the sum of its parts.

    >>> usage_members(Usage(input_uncached=3, cache_read=2, output_text=3))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'promptTokenCount': 5, 'candidatesTokenCount': 3, 'totalTokenCount': 8,
     'cachedContentTokenCount': 2}
    """
    members: dict[str, object] = {
        "promptTokenCount": usage.prompt_tokens - usage.tool_prompt,
        "candidatesTokenCount": usage.output_text + usage.output_audio,
        "totalTokenCount": usage.total_tokens,
    }
    parts = {
        "cachedContentTokenCount": usage.cache_read,
        "thoughtsTokenCount": usage.reasoning,
        "toolUsePromptTokenCount": usage.tool_prompt,
    }
    members |= {name: count for name, count in parts.items() if count}
    for name, modalities in _details(usage).items():
        members[name] = [
            {"modality": modality, "tokenCount": count}
            for modality, count in modalities.items()
            if count
        ]
    return members


def _details(usage: Usage) -> dict[str, dict[str, int]]:
    """Return the modalities, where there is more than text.

    What was cached is text here: the canonical form does not tell.
    """
    details: dict[str, dict[str, int]] = {}
    heard, seen = usage.input_audio, usage.input_image
    if heard or seen:
        text = usage.prompt_tokens - usage.tool_prompt - heard - seen
        details["promptTokensDetails"] = {"TEXT": text, "AUDIO": heard, "IMAGE": seen}
    if usage.output_audio:
        details["candidatesTokensDetails"] = {
            "TEXT": usage.output_text,
            "AUDIO": usage.output_audio,
        }
    return details
