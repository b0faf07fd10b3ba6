"""What a request may cost, from the request alone.

The prompt is counted as :mod:`atomr_infer.policy.estimates.token_estimate` does, rather
too long than too short; the answer is as long as the request or the model
allows.  So ``high`` is what may be reserved, and nobody's promise.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.cost import (
    TEXT_BUCKETS,
    CostEstimate,
    TokenRange,
    estimate_cost,
)
from atomr_infer.model.parts import AudioPart, ImagePart
from atomr_infer.policy.estimates.token_estimate import estimate_prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.prices import Price

_LOOSE = 4
"""The estimate of a prompt is taken to be at most so many times too long."""


def estimate_request(
    batch: ExecuteBatch, price: Price | None, *, max_output_tokens: int | None
) -> CostEstimate | None:
    """Return what a request may cost; None when the price is not known.

    Args:
        batch: the request.
        price: its model's price.
        max_output_tokens: the longest answer that the model can give; None:
            not known.  The request's own limit goes before it.
    """
    tokens = estimate_prompt_tokens(batch)
    limit = batch.sampling.max_tokens
    if limit is None:
        limit = max_output_tokens
    answers = batch.sampling.n
    return estimate_cost(
        price,
        prompt=TokenRange(tokens // _LOOSE, tokens),
        output=TokenRange(0, None if limit is None else limit * answers),
        buckets=TEXT_BUCKETS.union(_more_buckets(batch)),
    )


def _more_buckets(batch: ExecuteBatch) -> Iterator[str]:
    """Give what the request's tokens may be billed as besides text."""
    for message in batch.messages:
        for part in message.content:
            if isinstance(part, AudioPart):
                yield "input_audio"
            elif isinstance(part, ImagePart):
                yield "input_image"
            cache = getattr(part, "cache", None)
            if cache is not None:
                yield "cache_write_1h" if cache.ttl == "1h" else "cache_write_5m"
    for tool in batch.tools:
        if getattr(tool, "cache", None) is not None:
            yield "cache_write_5m"
