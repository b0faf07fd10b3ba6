"""Sets of sequence numbers as ranges: ``((1, 4), (6, 6))`` is 1, 2, 3, 4 and 6.

Normal form: ascending, with a gap between two neighbours.  Equal sets are equal
tuples.

Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Pairs of first and last number, both in it."""


def contains(ranges: Ranges, seq: int) -> bool:
    """Return whether the number is in it."""
    at = bisect_right(ranges, (seq, inf)) - 1
    return at >= 0 and seq <= ranges[at][1]


def union(one: Ranges, other: Ranges) -> Ranges:
    """Return what is in either.

    >>> union(((1, 2), (6, 6)), ((3, 4),))
    ((1, 4), (6, 6))
    """
    joined: list[tuple[int, int]] = []
    for low, high in sorted(one + other):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return tuple(joined)


def without(ranges: Ranges, seqs: list[int]) -> Ranges:
    """Return it without some numbers, which ascend.

    >>> without(((1, 6),), [1, 4, 9])
    ((2, 3), (5, 6))
    """
    left: list[tuple[int, int]] = []
    for first, high in ranges:
        low = first
        for seq in seqs[bisect_right(seqs, low - 1) :]:
            if seq > high:
                break
            if low < seq:
                left.append((low, seq - 1))
            low = seq + 1
        if low <= high:
            left.append((low, high))
    return tuple(left)
