"""The terms of a lease, and what follows from them.

All nodes must be given the same terms, or two majorities could have no voter in
common; so the terms have a fingerprint, and a voter refuses who comes with another.

Pure.

Source: Gray and Cheriton, "Leases" (1989).
"""

from __future__ import annotations

import math
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from atomr.core.checks import check_names

if TYPE_CHECKING:
    from collections.abc import Iterable

DRIFT = 0.05
"""How far from 1 the rate of a node's monotonic clock may be; quartz is at 0.0001."""

_LAPSE_MARGIN_S = 0.05
"""For clocks that tick coarsely, and timers that are early."""


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    check_names("voters", names)
    return tuple(sorted(names))


@attrs.frozen(slots=False)
class Terms:
    """At most one node holds the lease ``name`` at any time.

    Attributes:
        name: of the lease; the same on all nodes.
        voters: names of the configured voters, those that are down among them.
        lease_s: how long a holder may go on without word from a majority.
        stop_s: so long before the end of its lease a holder that has lost the
            majority is told to stop; at most a third of ``lease_s``, or one lost
            renewal would stop it.

    Raises:
        TypeError: the voters are one text.
        ValueError: a value is out of its range, with what is expected.

    >>> terms = Terms("billing", ("c", "a", "b"))
    >>> terms.voters, terms.majority, round(terms.lapse_s, 3)
    (('a', 'b', 'c'), 2, 5.576)
    """

    name: str
    voters: tuple[str, ...] = attrs.field(converter=_sorted)
    lease_s: float = attrs.field(default=5.0, kw_only=True)
    stop_s: float = attrs.field(default=1.0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        most_s = self.lease_s / 3
        for field, holds, expected in (
            ("name", 0 < len(self.name) <= 128, "1 to 128 characters"),
            ("voters", 0 < len(set(self.voters)) == len(self.voters), "distinct names"),
            ("lease_s", 0.0 < self.lease_s < math.inf, "above 0, in seconds"),
            ("stop_s", 0.0 <= self.stop_s <= most_s, f"0 to {most_s:g}, in seconds"),
        ):
            if not holds:
                value = getattr(self, field)
                what = f"lease {self.name!r}: {field}={value!r}: expected {expected}"
                raise ValueError(what)

    @cached_property
    def majority(self) -> int:
        """How many voters a holder needs: of those configured, whoever is there."""
        return len(self.voters) // 2 + 1

    @cached_property
    def lapse_s(self) -> float:
        """How long a voter keeps its vote for a candidate that it has heard of.

        The candidate's clock may be slow and the voter's fast, and the voter must
        not be early.
        """
        apart = (1.0 + DRIFT) / (1.0 - DRIFT)
        return self.lease_s * apart + _LAPSE_MARGIN_S

    @cached_property
    def fingerprint(self) -> int:
        """Of what all nodes must agree on; 64 bits."""
        # 5 and 5.0 are the same terms.
        agreed = self.name, self.voters, float(self.lease_s)
        digest = blake2b(repr(agreed).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")
