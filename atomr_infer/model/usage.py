"""Tokens of one generation, in buckets that never overlap.

Providers count in different ways: OpenAI's prompt total includes cached tokens
and Anthropic's does not; Gemini's candidates exclude thoughts and OpenAI's
completion includes them.  Here each token is in one bucket, a total is the sum
of its buckets, and a price belongs to a bucket; so nothing is charged twice.

Pure.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen(kw_only=True)
class Usage:
    """Tokens of one generation in disjoint buckets; totals are their sums.

    Attributes:
        input_uncached: text of the prompt that was computed.
        cache_read: prompt tokens taken from a prompt cache.
        cache_write_5m: prompt tokens stored in a cache for minutes.
        cache_write_1h: prompt tokens stored in a cache for an hour.
        input_audio: sound in the prompt, not cached.
        input_image: pictures in the prompt, not cached, where they are counted
            apart.
        tool_prompt: what the provider's own tools added to the prompt.
        output_text: output tokens that are part of the answer.
        reasoning: output tokens spent on hidden or separate reasoning.
        output_audio: sound in the answer.
        drafted: tokens that a draft model proposed; no bucket, and in no total.
        drafts_accepted: those of them that are part of the answer.
        estimated: True when the upstream did not say and we counted.
        interrupted: True when the generation was cut or cancelled, so that more
            may have been made than was counted.
        reported_usd: what the upstream says that it cost; None: it does not say.
    """

    input_uncached: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    input_image: int = 0
    tool_prompt: int = 0
    output_text: int = 0
    reasoning: int = 0
    output_audio: int = 0
    drafted: int = 0
    drafts_accepted: int = 0
    estimated: bool = False
    interrupted: bool = False
    reported_usd: Decimal | None = None

    @property
    def cache_write(self) -> int:
        """Prompt tokens stored in a cache, for however long."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt_tokens(self) -> int:
        """Input tokens, cached ones included."""
        return (
            self.input_uncached
            + self.cache_read
            + self.cache_write_5m
            + self.cache_write_1h
            + self.input_audio
            + self.input_image
            + self.tool_prompt
        )

    @property
    def output_tokens(self) -> int:
        """Output tokens, reasoning included."""
        return self.output_text + self.reasoning + self.output_audio

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.prompt_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Return both together: the attempts of one request, its n answers.

        >>> (Usage(input_uncached=1) + Usage(output_text=2, estimated=True))
        Usage(input_uncached=1, output_text=2, estimated=True)
        """
        sums = {name: getattr(self, name) + getattr(other, name) for name in _BUCKETS}
        return Usage(
            **sums,
            estimated=self.estimated or other.estimated,
            interrupted=self.interrupted or other.interrupted,
            reported_usd=_sum(self.reported_usd, other.reported_usd),
        )

    def __repr__(self) -> str:
        """Return the buckets that hold something."""
        said = ", ".join(
            f"{field.name}={getattr(self, field.name)}"
            for field in attrs.fields(Usage)
            if getattr(self, field.name)
        )
        return f"Usage({said})"


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """Return the sum of what is known; a part that is not known is not zero."""
    if one is None or other is None:
        return None
    return one + other


_FLAGS = frozenset({"estimated", "interrupted", "reported_usd"})
_BUCKETS = tuple(
    field.name for field in attrs.fields(Usage) if field.name not in _FLAGS
)


def split_total(total: int, parts: Iterable[int]) -> tuple[int, ...]:
    """Return what a total leaves, then its parts, cut so that they fit in it.

    A provider's parts may overlap (an audio token that was cached is in both);
    the first ones named win.

    Args:
        total: tokens in all, at least 0.
        parts: the tokens of each part, most certain first.

    >>> split_total(10, (4, 3))
    (3, 4, 3)
    >>> split_total(10, (8, 5))
    (0, 8, 2)
    """
    left = total
    cut = []
    for part in parts:
        fitting = min(max(part, 0), left)
        cut.append(fitting)
        left -= fitting
    return (left, *cut)
