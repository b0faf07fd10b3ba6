"""What each of several requests used of what was used for all of them together.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence


def split_usage(usage: Usage, weights: Sequence[int]) -> tuple[Usage, ...]:
    """Return the parts of a usage, which are the whole together.

    Args:
        usage: what was used.
        weights: how much of it each part is, at least 0; one at least is more.

    Returns:
        A usage for each weight; where there are several, by estimate.

    >>> split_usage(Usage(input_uncached=10), [1, 2])
    (Usage(input_uncached=3, estimated=True), Usage(input_uncached=7, estimated=True))
    """
    if len(weights) == 1:
        return (usage,)
    named: dict[str, tuple[int, ...]] = {}
    for field in attrs.fields(Usage):
        count = getattr(usage, field.name)
        if type(count) is int:  # and not a bool
            named[field.name] = split_count(count, weights)
    dollars, total = usage.reported_usd, sum(weights)
    return tuple(
        Usage(
            **{name: parts[number] for name, parts in named.items()},
            estimated=True,
            interrupted=usage.interrupted,
            reported_usd=None if dollars is None else dollars * weight / total,
        )
        for number, weight in enumerate(weights)
    )


def split_count(count: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Return the parts of a count, which are the whole together.

    >>> split_count(10, [1, 1, 1]), split_count(1, [5, 0])
    ((3, 4, 3), (1, 0))
    """
    total, so_far, given = sum(weights), 0, 0
    parts = []
    for weight in weights:
        so_far += weight
        # Where the part ends, to the nearest: what one loses the next one has.
        ends = (2 * count * so_far + total) // (2 * total)
        parts.append(ends - given)
        given = ends
    return tuple(parts)
