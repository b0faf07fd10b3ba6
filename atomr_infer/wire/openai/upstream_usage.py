"""Read what an OpenAI-like upstream says that an answer used.

Usage is read leniently and as a whole: a server that writes counts as floats
or leaves one null is understood, and anything that is no count makes it no
usage at all, so that a wrong number is never billed and never costs the
content that it came with.

Pure.
"""

from __future__ import annotations

import msgspec

from atomr_infer.model.usage import Usage, split_total

# Beyond it a float is no exact count any more.
_MAX_COUNT = 2**53

_Number = int | float | None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Number = None
    cache_write_tokens: _Number = None
    audio_tokens: _Number = None
    image_tokens: _Number = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Number = None
    audio_tokens: _Number = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Number = None
    completion_tokens: _Number = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_decode = msgspec.json.Decoder(_Usage | None).decode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _NoCountError(Exception):
    """A number is negative, has a fraction or is absurd."""


def decode_usage(raw: bytes) -> Usage | None:
    """Return the usage that a JSON value tells; None when it tells none.

    Totals are split into disjoint buckets; a part never exceeds its total.  An
    object without either total tells nothing: it must not be billed as nothing.

    >>> decode_usage(b'{"prompt_tokens": 3.0, "completion_tokens": null}')
    Usage(input_uncached=3)
    """
    try:
        usage = _decode(raw)
        if usage is None or usage.prompt_tokens is usage.completion_tokens is None:
            return None
        return _split(usage)
    except (*_DECODE_ERRORS, _NoCountError):
        return None


def _split(usage: _Usage) -> Usage:
    prompt = _count(usage.prompt_tokens)
    output = _count(usage.completion_tokens)
    if usage.prompt_tokens_details is None and usage.completion_tokens_details is None:
        return Usage(input_uncached=prompt, output_text=output)  # as most say it
    prompt_parts, output_parts = (
        usage.prompt_tokens_details or _PromptDetails(),
        usage.completion_tokens_details or _CompletionDetails(),
    )
    # Parts may overlap (cached audio is in both): the cached ones are certain.
    uncached, read, written, audio, image = split_total(
        prompt,
        (
            _count(prompt_parts.cached_tokens),
            _count(prompt_parts.cache_write_tokens),
            _count(prompt_parts.audio_tokens),
            _count(prompt_parts.image_tokens),
        ),
    )
    text, reasoning, spoken = split_total(
        output,
        (_count(output_parts.reasoning_tokens), _count(output_parts.audio_tokens)),
    )
    return Usage(
        input_uncached=uncached,
        cache_read=read,
        cache_write_5m=written,
        input_audio=audio,
        input_image=image,
        output_text=text,
        reasoning=reasoning,
        output_audio=spoken,
    )


def _count(number: _Number) -> int:
    if number is None:
        return 0
    if not 0 <= number <= _MAX_COUNT or number != int(number):
        raise _NoCountError
    return int(number)
