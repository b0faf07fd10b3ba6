"""Who is in the cluster, and who is alive: SWIM with Lifeguard, without I/O.

::

    membership = Membership(
        Origin("ams-1", boot),
        "10.0.0.1:4370",
        cluster=cluster,
        draw=draw,
        seeds=["10.0.0.2:4370"],
    )
    effects = membership.start(now_s)
    effects = membership.handle(Received(sender, decode(content)), now_s)
    effects = membership.handle(Woke(), now_s)  # at next_deadline_s

Each effect is a :class:`Send`, or a fact: a member has :class:`Changed`, this node
has :class:`Refuted` that it is dead, or is :class:`Superseded`.

Members that are held suspect may be well: whoever owns something there hides it,
and whoever needs certainty waits for ``DEAD`` - and even then it may come back, as
the other side of a cut network.  Nothing here decides by majority.

Pure.
"""

from atomr.gossip.membership.events import (
    Changed,
    Effect,
    Event,
    ForeignCluster,
    Leave,
    LinkReset,
    MetaChanged,
    Received,
    Refuted,
    SeedsChanged,
    Send,
    Superseded,
    Woke,
)
from atomr.gossip.membership.frames import Frame, FrameError, decode, encode
from atomr.gossip.membership.machine import Membership
from atomr.gossip.membership.member import Member, Status
from atomr.gossip.membership.options import MembershipOptions

__all__ = [
    "Changed",
    "Effect",
    "Event",
    "ForeignCluster",
    "Frame",
    "FrameError",
    "Leave",
    "LinkReset",
    "Member",
    "Membership",
    "MembershipOptions",
    "MetaChanged",
    "Received",
    "Refuted",
    "SeedsChanged",
    "Send",
    "Status",
    "Superseded",
    "Woke",
    "decode",
    "encode",
]
