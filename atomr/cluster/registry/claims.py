"""Who has a name: every node's claim to it, and which one counts.

A claim is stamped by its node's hybrid clock when the process registers.  Of several
claims, which can only come about when their nodes did not know of each other, the
smallest stamp counts, then the smaller origin: who had the name first keeps it, and
all nodes that know the same claims agree.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.crdt import Origin

_FIELDS = 3


@attrs.frozen
class Claim:
    """A process' claim to a name.

    Attributes:
        stamp: of the hybrid clock.
        number: of the process on its node.
        label: what it is, for people.
    """

    stamp: int
    number: int
    label: str

    def encoded(self) -> tuple[int, int, str]:
        """Return what is put into the map."""
        return self.stamp, self.number, self.label

    @classmethod
    def decoded(cls, value: object) -> Claim | None:
        """Return the claim that a node has put; None: it is none.

        >>> Claim.decoded([7, 3, "a room"])
        Claim(stamp=7, number=3, label='a room')
        >>> Claim.decoded("a room")
        """
        if not isinstance(value, list) or len(value) != _FIELDS:
            return None
        stamp, number, label = value
        if type(stamp) is int and type(number) is int and type(label) is str:
            return cls(stamp, number, label)
        return None


def winner(values: Mapping[Origin, object]) -> tuple[Origin, Claim] | None:
    """Return whose claim counts; None: there is none.

    Args:
        values: of one name, by owner.
    """
    claims = [
        (claim.stamp, owner, claim)
        for owner, value in values.items()
        if (claim := Claim.decoded(value)) is not None
    ]
    if not claims:
        return None
    _, owner, claim = min(claims, key=lambda found: found[:2])
    return owner, claim
