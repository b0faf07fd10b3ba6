"""The terms of a budget.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable


MAX_UNITS = 1 << 53
"""No budget has more, and no row of a ledger says so; sums of them fit a frame."""


def check_units(what: str, units: int, *, least: int) -> None:
    """See that a number of units can be one.

    Raises:
        ValueError: it is below the least, or beyond what there can be.
    """
    if units < least:
        kind = "unit" if least == 1 else "units"
        raise ValueError(f"{what}={units!r}): expected at least {least} {kind}")
    if units > MAX_UNITS:
        raise ValueError(f"{what}={units!r}): expected at most 2**53 units")


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


@attrs.frozen
class Budget:
    """Units that are spent once, by all nodes together.

    Attributes:
        name: the same on all nodes.
        voters: names of the configured nodes, those that are down among them.
        chunk_share: the share of what remains that a node takes at once, above 0
            and at most 1; a crash makes that much unavailable at most.
        chunk_cap: units that it takes at once at most, at least 1.
        ask_s: how long to wait for an answer before another node is asked.

    Raises:
        ValueError: a value is out of its range, with what is expected.
    """

    name: str
    voters: tuple[str, ...] = attrs.field(converter=_sorted)
    chunk_share: float = attrs.field(default=0.01, kw_only=True)
    chunk_cap: int = attrs.field(default=1_000_000, kw_only=True)
    ask_s: float = attrs.field(default=0.2, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for field, holds, expected in (
            ("voters", 0 < len(set(self.voters)) == len(self.voters), "distinct names"),
            ("chunk_share", 0.0 < self.chunk_share <= 1.0, "above 0, at most 1"),
            ("chunk_cap", self.chunk_cap >= 1, "at least 1"),
            ("ask_s", self.ask_s > 0.0, "above 0, in seconds"),
        ):
            if not holds:
                value = getattr(self, field)
                what = f"budget {self.name!r}: {field}={value!r}: expected {expected}"
                raise ValueError(what)

    def chunk(self, remaining: int) -> int:
        """Return how much to take at once; 0 when nothing remains.

        >>> Budget("team", ("a",)).chunk(50_000)
        500
        """
        if remaining <= 0:
            return 0
        units = int(self.chunk_share * remaining)
        return max(1, units) if units < self.chunk_cap else self.chunk_cap
