"""Who gets what is free, when it is not enough for all.

Each lessee is entitled to a part of the pool in proportion to what it needs to
go on as it is asked to, so that a request has the same chance on each node.
Permits move slowly, though: a used one is locked where it is.  So nothing is
taken from anybody; whoever holds more than its part is told to give back what
cools (:attr:`Grant.cap`), and what is free goes to those that hold less.

None of this is needed for the promise, only for the use that is made of it.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

SLACK = 1.1
"""A lessee may hold that much more than its part: demand is known only roughly."""


@attrs.frozen
class Claim:
    """What a lessee says that it wants.

    Attributes:
        want: permits that it could use at once.
        lent: what it has been lent.
        needs: what it would have to hold, lent, to meet the demand there.
    """

    want: int
    lent: int
    needs: float


def parts(pool: int, needs: Sequence[float]) -> list[float]:
    """Return how much of the pool each is entitled to who needs so much.

    >>> parts(90, [100.0, 50.0])
    [60.0, 30.0]
    """
    total = sum(needs)
    if total <= 0.0:
        return [pool / len(needs)] * len(needs) if needs else []
    return [pool * each / total for each in needs]


def shares(free: int, pool: int, claims: Sequence[Claim]) -> list[int]:
    """Divide what is free among the claims; at most what each wants.

    >>> shares(10, 90, [Claim(4, 0, 100.0), Claim(3, 0, 50.0)])
    [4, 3]
    >>> shares(6, 90, [Claim(8, 56, 100.0), Claim(8, 28, 50.0)])
    [4, 2]
    """
    wants = [claim.want for claim in claims]
    if sum(wants) <= free:
        return wants
    entitled = parts(pool, [claim.needs for claim in claims])
    rooms = [
        max(0, min(claim.want, int(part) - claim.lent))
        for claim, part in zip(claims, entitled, strict=True)
    ]
    given = _split(free, rooms)
    left = [want - share for want, share in zip(wants, given, strict=True)]
    more = _split(free - sum(given), left)
    return [share + extra for share, extra in zip(given, more, strict=True)]


def _split(free: int, wants: Sequence[int]) -> list[int]:
    """Divide in proportion, to the last permit, the largest want first."""
    total = sum(wants)
    if total <= free:
        return list(wants)
    given = [free * want // total for want in wants]
    left = free - sum(given)
    for at in sorted(range(len(wants)), key=lambda at: given[at] - wants[at])[:left]:
        given[at] += 1
    return given
