"""How long a suspect has, to say that it is alive.

Long while one node suspects it, as that node may be the one that is unwell; as
long as a refutation takes to get around once others got no answer either.  More
accusers than that leave no doubt, and then the size of the cluster no longer
matters: with 64 nodes a death is seen by all in ten seconds.

The suspect has the last word: whoever is about to hold it dead asks it, again and
again, in the last moments.  A refutation that has not got around yet comes that
way.

Pure.

Source: Dadgar, Phillips, Currey, "Lifeguard", 2017, section "LHA-Suspicion".
"""

from __future__ import annotations

from math import log, log10
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from atomr.gossip.membership.options import MembershipOptions


def suspicion_timeout_s(
    options: MembershipOptions, *, members: int, accusers: int
) -> float:
    """Return how long after the first accusation a suspect is held dead.

    Args:
        options: of the membership.
        members: live ones, oneself and the suspect among them.
        accusers: how many got no answer, at least 1.

    >>> from atomr.gossip.membership.options import MembershipOptions
    >>> given = MembershipOptions()
    >>> [
    ...     round(suspicion_timeout_s(given, members=32, accusers=number), 1)
    ...     for number in (1, 2, 3, 4, 5)
    ... ]
    [36.1, 17.1, 6.0, 6.0, 4.0]
    >>> suspicion_timeout_s(given, members=3, accusers=1)
    4.0
    """
    base_s = options.suspicion_mult * options.probe_s
    least_s = base_s * max(1.0, log10(members))
    wanted = options.confirmations
    confirmed = accusers - 1
    if members - 2 < wanted:
        return least_s  # there are too few others to wait for
    if confirmed >= 2 * wanted:
        return base_s
    if confirmed >= wanted:
        return least_s
    most_s = least_s * options.suspicion_max_mult
    return most_s - (most_s - least_s) * log(confirmed + 1) / log(wanted + 1)


@attrs.define
class Suspicion:
    """One suspect's time.

    Attributes:
        began_at: when this node first heard of it.
        due_at: when the suspect is held dead.
        ask_at: when it is asked next; from shortly before the end.
    """

    began_at: float
    due_at: float
    ask_at: float
