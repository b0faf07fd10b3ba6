"""Permit escrow: limits that hold for all nodes together, whatever the network does.

A limit of ``L`` uses per window ``W`` is ``L`` permits, and each of them is in
one place.  Using a permit locks it there for ``W``; then it is free again.  So
no window has more than ``L`` uses, however the permits are spread; nodes need
not agree on anything but where each permit is, and a permit whose place is in
doubt is used by nobody until the doubt has passed.

Each voter owns a *floor* for good.  The rest is lent by the limit's *home*, on
leases of a few seconds.  ``docs/reference/limits.md`` has the promise, and why
it holds.

    escrow = Escrow(Origin("ams-1", boot))
    escrow.add(limit, now_s, past=FIRST)
    outcome = escrow.acquire("rpm", 1, now_s=now_s)

Who drives it delivers each ``Send``, gives what comes to ``receive``, calls
``advance`` at ``next_deadline_s``, which it reads after each call, and hands each
``Answered`` to who asked.  The clock must be monotonic and go on while the
machine sleeps, as ``CLOCK_BOOTTIME`` does.

Pure: no clock, no socket, no randomness.
"""

from atomr.gossip.escrow.escrow import Escrow
from atomr.gossip.escrow.frames import Frame, decode, encode
from atomr.gossip.escrow.limit import Limit, Mode
from atomr.gossip.escrow.member import FIRST, UNKNOWN, Past
from atomr.gossip.escrow.outcomes import (
    Answered,
    Asking,
    Denied,
    Effect,
    Granted,
    Mark,
    Outcome,
    Persist,
    Send,
    TermsDiffer,
)

__all__ = [
    "FIRST",
    "UNKNOWN",
    "Answered",
    "Asking",
    "Denied",
    "Effect",
    "Escrow",
    "Frame",
    "Granted",
    "Limit",
    "Mark",
    "Mode",
    "Outcome",
    "Past",
    "Persist",
    "Send",
    "TermsDiffer",
    "decode",
    "encode",
]
