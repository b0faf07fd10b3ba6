"""Token counts in Anthropic's words, read and written.

``input_tokens`` leaves out what came from a cache and what went into one, so
the prompt is the sum of three members.  ``output_tokens`` holds the thinking,
which ``output_tokens_details`` tells apart.

What a provider says is read leniently and as a whole: anything that is no count
makes it no usage at all, so that a wrong number is never billed and never costs
the content that it came with.

Pure.

Source: Anthropic API reference, "Message", ``usage``.
"""

from __future__ import annotations

import attrs
import msgspec

from atomr_infer.model.usage import Usage, split_total

# Beyond it a float is no exact count any more.
_MAX_COUNT = 2**53

_Number = int | float | None


class _CacheCreation(msgspec.Struct):
    ephemeral_5m_input_tokens: _Number = None
    ephemeral_1h_input_tokens: _Number = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: _Number = None


class _Usage(msgspec.Struct):
    input_tokens: _Number = None
    output_tokens: _Number = None
    cache_read_input_tokens: _Number = None
    cache_creation_input_tokens: _Number = None
    cache_creation: _CacheCreation | None = None
    output_tokens_details: _OutputDetails | None = None


_decode = msgspec.json.Decoder(_Usage | None).decode

_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _NoCountError(Exception):
    """A number is negative, has a fraction or is absurd."""


@attrs.frozen(kw_only=True)
class Counts:
    """What a provider has said so far; None: nothing of it.

    Attributes:
        input_tokens: of the prompt, beside the caches.
        cache_read: of the prompt, from a cache.
        cache_write: of the prompt, into a cache.
        cache_write_1h: the part of ``cache_write`` that stays an hour.
        output_tokens: of the answer, thinking included.
        thinking: the part of ``output_tokens`` that was thought.
    """

    input_tokens: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    output_tokens: int | None = None
    thinking: int | None = None

    def updated(self, later: Counts) -> Counts:
        """Return the counts after a later report, which is cumulative.

        It replaces what it names and leaves the rest: a ``message_delta`` may
        report only the output, or only the caches.

        >>> start = Counts(input_tokens=5, output_tokens=1)
        >>> start.updated(Counts(output_tokens=9)) == Counts(
        ...     input_tokens=5, output_tokens=9
        ... )
        True
        """
        said = attrs.asdict(later, filter=lambda _, value: value is not None)
        return attrs.evolve(self, **said)

    @property
    def usage(self) -> Usage | None:
        """The counts as disjoint buckets; None when nothing was said."""
        if self == Counts():
            return None
        short, hour = split_total(self.cache_write or 0, (self.cache_write_1h or 0,))
        text, thinking = split_total(self.output_tokens or 0, (self.thinking or 0,))
        return Usage(
            input_uncached=self.input_tokens or 0,
            cache_read=self.cache_read or 0,
            cache_write_5m=short,
            cache_write_1h=hour,
            output_text=text,
            reasoning=thinking,
        )


def decode_counts(raw: bytes) -> Counts:
    """Return the counts that a JSON value tells.

    >>> decode_counts(b'{"input_tokens": 3.0, "output_tokens": 1}').usage
    Usage(input_uncached=3, output_text=1)
    >>> decode_counts(b'{"input_tokens": -1}').usage is None
    True
    """
    try:
        usage = _decode(raw)
        return Counts() if usage is None else _counts(usage)
    except (*_DECODE_ERRORS, _NoCountError):
        return Counts()


def _counts(usage: _Usage) -> Counts:
    created = usage.cache_creation or _CacheCreation()
    hour = _count(created.ephemeral_1h_input_tokens)
    minutes = _count(created.ephemeral_5m_input_tokens)
    written = _count(usage.cache_creation_input_tokens)
    if written is None and usage.cache_creation is not None:
        written = (minutes or 0) + (hour or 0)
    details = usage.output_tokens_details or _OutputDetails()
    return Counts(
        input_tokens=_count(usage.input_tokens),
        cache_read=_count(usage.cache_read_input_tokens),
        cache_write=written,
        cache_write_1h=hour,
        output_tokens=_count(usage.output_tokens),
        thinking=_count(details.thinking_tokens),
    )


def _count(number: _Number) -> int | None:
    if number is None:
        return None
    if not 0 <= number <= _MAX_COUNT or number != int(number):
        raise _NoCountError
    return int(number)


def usage_members(usage: Usage) -> dict[str, object]:
    """Return usage as a whole answer has it.

    >>> usage_members(Usage(input_uncached=3, cache_read=2))["input_tokens"]
    3
    """
    return {
        **delta_members(usage),
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "service_tier": None,
    }


def delta_members(usage: Usage) -> dict[str, object]:
    """Return usage as the last event of a stream has it."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cache_read - usage.cache_write,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def start_members(prompt_tokens: int) -> dict[str, object]:
    """Return usage as the first event has it, before the provider has said any.

    Clients show it at once, and some divide by it, so it is never 0.
    """
    usage = Usage(input_uncached=max(1, prompt_tokens), output_text=1)
    return usage_members(usage)
