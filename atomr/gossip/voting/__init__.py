"""A lease that at most one node holds, by the votes of a majority, without I/O.

::

    election = Election(terms, me, draw=draw, epoch=epoch, now_s=now_s)
    effects = election.handle(Stand(), now_s)
    effects = election.handle(Received(sender, decode(content)), now_s)
    effects = election.handle(Woke(), now_s)  # at next_deadline_s

``Won`` begins the work, ``Stop`` asks for its end, which ``Stopped`` tells, and
``Lost`` allows it no further step.  :meth:`Election.holds` says whether it is allowed
right now, by the clock.

The voters are configured, and the majority is one of all of them, whoever is there:
the smaller side of a cut has no holder, and no side has one where no majority is.
Nothing is written to a disk.  ``docs/reference/singleton.md`` has the promise, and
decision 30 why it holds.

Pure.
"""

from atomr.gossip.voting.candidate import Phase
from atomr.gossip.voting.election import Election
from atomr.gossip.voting.events import (
    Effect,
    Event,
    Leave,
    Lost,
    Received,
    Send,
    Stand,
    Stop,
    Stopped,
    TermsDiffer,
    Why,
    Woke,
    Won,
)
from atomr.gossip.voting.frames import Frame, decode, encode
from atomr.gossip.voting.terms import Terms

__all__ = [
    "Effect",
    "Election",
    "Event",
    "Frame",
    "Leave",
    "Lost",
    "Phase",
    "Received",
    "Send",
    "Stand",
    "Stop",
    "Stopped",
    "Terms",
    "TermsDiffer",
    "Why",
    "Woke",
    "Won",
    "decode",
    "encode",
]
