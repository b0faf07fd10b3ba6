"""The terms of a limit, and what follows from them.

All nodes must be given the same terms.  What each of them derives here (who the
home is, how large the floors are, how long things take) must agree, or permits
would be counted twice; so the terms have a fingerprint, and a home refuses a
lessee whose terms differ.

Pure.

Source: Gray and Cheriton, "Leases" (1989); Doorman, "safe capacity", for floors.
"""

from __future__ import annotations

import math
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING

import attrs

from atomr.gossip.voting.terms import DRIFT

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAPSE_FACTOR = 1.05
"""A home waits that much longer than a lease lasts, at least."""

_LAPSE_MARGIN_S = 0.05
"""And that much on top, for clocks that tick coarsely."""

LEAST_VOTERS = 3
"""With fewer a home cannot move: of two, no majority is left when one is gone."""

MOST_MOVED_S = 300.0
"""A limit with a longer window stays where its home is.  Whoever takes over waits for
a window, so a cut of seconds would cost it, and a node that is gone for good is nearly
always replaced sooner."""

_BATCHES = 512
"""Uses are remembered in that many batches a window: 0.1 % of it is lost."""

_TICKS = 100
"""A node tells its home about itself that often a window, within the bounds."""

_MIN_TICK_S = 0.02
_MAX_TICK_S = 0.25


def rendezvous(key: str, voters: Iterable[str]) -> list[str]:
    """Return the voters in the order in which they have something of that name."""

    def weight(voter: str) -> tuple[bytes, str]:
        name = f"{key}\0{voter}".encode()
        return blake2b(name, digest_size=8).digest(), voter

    return sorted(voters, key=weight, reverse=True)


def _is_time_or_none(value: float | None) -> bool:
    return value is None or 0.0 < value < math.inf


class Mode(Enum):
    """How nodes keep a limit together."""

    ESCROW = "escrow"
    """Permits are owned or lent: exact, fast, and goes on when cut off."""
    STRICT = "strict"
    """The home is asked for each use: exact, and nothing without the home."""
    SOFT = "soft"
    """Nodes tell each other what they used: fast, and exact only roughly."""


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


@attrs.frozen(slots=False)
class Limit:
    """At most ``permits`` uses in any sliding window of ``window_s``, by all nodes.

    Attributes:
        name: the same on all nodes; what it limits is the user's affair.
        permits: at least 1; requests, tokens, or whatever is counted.
        window_s: length of the window, in seconds of true time.
        voters: names of the configured nodes, those that are down among them.
        floor_fraction: share of the permits that is divided evenly among the
            voters for good; 0 to 1.  The rest is lent by the home.
        drift: how far from 1 the rate of a node's monotonic clock may be, at
            least 0 and below 0.5; costs that share of use.
        lease_s: how long what is lent may be used without word from the home.
        ask_s: how long an acquire waits for the home at most.
        mode: what is promised, and at what price.
        use_log: whether a node writes down how far it uses its floor, so that
            it has the rest of it at once after a restart.
        away_s: a home that has not heard a majority of the voters for so long lends
            nothing, and another voter may in its place; None: nobody else ever does.
            A node that stands still for less keeps its place, and it is asked for
            three times meanwhile.

    Raises:
        ValueError: a value is out of its range, with what is expected.

    >>> Limit("rpm", 600, 60.0, voters=("a", "b", "c", "d", "e")).floor
    12
    """

    name: str
    permits: int
    window_s: float
    voters: tuple[str, ...] = attrs.field(converter=_sorted)
    floor_fraction: float = attrs.field(default=0.1, kw_only=True)
    drift: float = attrs.field(default=0.001, kw_only=True)
    lease_s: float = attrs.field(default=2.0, kw_only=True)
    ask_s: float = attrs.field(default=1.0, kw_only=True)
    mode: Mode = attrs.field(default=Mode.ESCROW, kw_only=True)
    use_log: bool = attrs.field(default=False, kw_only=True)
    away_s: float | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for field, holds, expected in (
            ("permits", self.permits >= 1, "at least 1"),
            ("window_s", 0.0 < self.window_s < math.inf, "above 0, in seconds"),
            ("voters", 0 < len(set(self.voters)) == len(self.voters), "distinct names"),
            ("floor_fraction", 0.0 <= self.floor_fraction <= 1.0, "from 0 to 1"),
            ("drift", 0.0 <= self.drift < 0.5, "from 0 to below 0.5"),
            ("lease_s", 0.0 < self.lease_s < math.inf, "above 0, in seconds"),
            ("ask_s", 0.0 < self.ask_s < math.inf, "above 0, in seconds"),
            ("away_s", _is_time_or_none(self.away_s), "above 0, in seconds, or None"),
        ):
            if not holds:
                value = getattr(self, field)
                what = f"limit {self.name!r}: {field}={value!r}: expected {expected}"
                raise ValueError(what)

    @cached_property
    def floor(self) -> int:
        """What each voter owns for good."""
        if self.mode is not Mode.ESCROW:
            return 0
        return int(self.floor_fraction * self.permits / len(self.voters))

    @cached_property
    def pool(self) -> int:
        """What the home lends."""
        return self.permits - self.floor * len(self.voters)

    @cached_property
    def largest(self) -> int:
        """More than that no voter can ever hold at once."""
        return self.pool + self.floor

    def may_become(self, other: Limit) -> bool:
        """Whether other terms can be taken while this limit is in use.

        The number of permits may change, and how they are divided; what is locked for
        a window, or lent, is so under both.  A use log is of one floor.
        """
        same = attrs.evolve(
            other, permits=self.permits, floor_fraction=self.floor_fraction
        )
        return same == self and not self.use_log

    @cached_property
    def home(self) -> str:
        """The voter that lends, by rendezvous hashing: the same on each node.

        Where the limit :attr:`moves`, it is the first that would.
        """
        return rendezvous(self.name, self.voters)[0]

    @cached_property
    def moves(self) -> bool:
        """Whether another voter lends when the home is away."""
        return (
            self.away_s is not None
            and len(self.voters) >= LEAST_VOTERS
            and self.window_s <= MOST_MOVED_S
            and self.drift <= DRIFT
            and self.mode is not Mode.SOFT
        )

    @cached_property
    def cooling_s(self) -> float:
        """How long a used permit is locked, by the clock of its holder.

        A clock that is fast by the drift counts a window of true time as that
        much.
        """
        return self.window_s * (1.0 + self.drift)

    @cached_property
    def lapse_s(self) -> float:
        """How long after it heard of a lessee a home takes its lease for lapsed.

        The lessee's clock may be slow and the home's fast, and the home must not
        be early.
        """
        apart = (1.0 + self.drift) / (1.0 - self.drift)
        return self.lease_s * max(_LAPSE_FACTOR, apart) + _LAPSE_MARGIN_S

    @cached_property
    def batch_s(self) -> float:
        """Uses that are no further apart are remembered as one."""
        return self.window_s / _BATCHES

    @cached_property
    def tick_s(self) -> float:
        """How often a node that has something to say tells its home."""
        return min(max(self.window_s / _TICKS, _MIN_TICK_S), _MAX_TICK_S)

    @cached_property
    def terms(self) -> int:
        """Fingerprint of what all nodes must agree on; 64 bits."""
        agreed: tuple[object, ...] = (
            self.name,
            self.mode.value,
            self.permits,
            self.window_s,
            self.voters,
            self.floor_fraction,
            self.drift,
            self.lease_s,
        )
        if self.moves:
            agreed = *agreed, self.away_s
        digest = blake2b(repr(agreed).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")
