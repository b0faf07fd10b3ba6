"""What a budget is for those who share it: so many units, for so long.

Each voter makes its part of the units by itself, once: so nobody has to be there at
the turn of a month, and both sides of a cut have something to go on with.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from atomr.core.checks import check_text
from atomr.errors import short
from atomr.gossip.ledger.budget import MAX_UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOTS = 60
"""Parts of a rolling window: what is spent comes back at most that much too late."""


def _is_units(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a validator
    if type(value) is not int or not 0 <= value <= MAX_UNITS:
        raise ValueError(f"{field.name}={short(value)}: expected 0 to 2**53 units")


def _is_name(_: object, field: attrs.Attribute[Any], value: Any) -> None:  # noqa: ANN401 - a validator
    check_text(field.name, value)
    if not value:
        raise ValueError(f"{field.name}={value!r}: expected some text")


KEEP_S = 7 * 86_400.0

_PERIODS = 24
"""Of so many an account is kept at most: hours would be many."""


@attrs.frozen(kw_only=True)
class BudgetTerms:
    """Units that all voters together may spend.

    Attributes:
        name: the same on all nodes, and of this budget alone: that of a period
            names the period.
        units: how many.  More of them later are made at once; of fewer, each voter
            gives up its part at once, and takes from others what it has spent of it.
        begins_at_s: Unix time; 0: always.  What began after a node's file was made
            is known to that file.
        ends_at_s: Unix time; a week later, or 24 periods if they are shorter, its
            account is closed for good.  Whoever reserves sees to it that nothing is
            reserved after it.  None: never.
        window_s: what is spent may be spent again so many seconds later; None: it
            is spent for good.

    Raises:
        ValueError: a value is out of its range, with what is expected.
        TypeError: the name is no text.
    """

    name: str = attrs.field(validator=_is_name)
    units: int = attrs.field(validator=_is_units)
    begins_at_s: float = 0.0
    ends_at_s: float | None = None
    window_s: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.ends_at_s is not None and self.ends_at_s <= self.begins_at_s:
            raise ValueError(
                f"ends_at_s={self.ends_at_s!r}: expected a time after begins_at_s"
            )
        if self.window_s is not None and self.window_s <= 0.0:
            raise ValueError(f"window_s={self.window_s!r}: expected more than 0")

    @property
    def kept_s(self) -> float:
        """How long after its end its account is kept: late calls, and questions."""
        if self.ends_at_s is None or not self.begins_at_s:
            return KEEP_S
        return min(KEEP_S, _PERIODS * (self.ends_at_s - self.begins_at_s))

    def share(self, name: str, voters: Sequence[str]) -> int:
        """Return the part of the units that a voter makes.

        Args:
            name: of the voter.
            voters: all of them, sorted.

        Laws: the parts of all voters are the units, together.

        >>> terms = BudgetTerms(name="team", units=11)
        >>> [terms.share(name, ("a", "b", "c")) for name in ("a", "b", "c")]
        [4, 4, 3]
        """
        part, rest = divmod(self.units, len(voters))
        return part + (voters.index(name) < rest)
