"""Puts frames together: who speaks, what rides along, in which cluster.

Whatever is sent to a node that is held suspect or dead says so first, so that it
is the first to know, and the first to say that it is not.

Pure.

Source: Lifeguard, section "Buddy System", for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.gossip.membership.events import Send
from atomr.gossip.membership.frames import (
    Ack,
    Digest,
    Gossip,
    Nack,
    Ping,
    PingRequest,
    Table,
)
from atomr.gossip.membership.member import Status

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.gossip.membership.events import Effect
    from atomr.gossip.membership.frames import Frame
    from atomr.gossip.membership.member import Member
    from atomr.gossip.membership.roster import Roster
    from atomr.gossip.membership.updates import UpdateQueue


class Speaker:
    """Appends frames to what a step returns.

    Attributes:
        out: the effects of the step.
    """

    __slots__ = ("_cluster", "_most", "_queue", "_roster", "out")

    def __init__(
        self, cluster: int, roster: Roster, queue: UpdateQueue, *, max_updates: int
    ) -> None:
        """Speak for the roster's node.

        Args:
            cluster: 64-bit id of the cluster.
            roster: has the node's own record.
            queue: what is to be told.
            max_updates: in one frame, beside what concerns its receiver.
        """
        self.out: list[Effect] = []
        self._cluster = cluster
        self._roster = roster
        self._queue = queue
        self._most = max_updates

    def ping(self, name: str, address: str, number: int) -> None:
        """Ask a node whether it is there; with 0 nobody waits for the answer."""
        updates = self._updates(name)
        self._send(address, Ping(self._cluster, self._roster.me, updates, number, name))

    def ack(self, address: str, name: str, number: int, target: Origin) -> None:
        """Answer a ping, or a request."""
        updates = self._updates(name)
        me = self._roster.me
        self._send(address, Ack(self._cluster, me, updates, number, target))

    def ping_request(self, helper: Member, number: int, target: Member) -> None:
        """Ask a helper to ping a member."""
        updates = self._updates(helper.name)
        me, whom = self._roster.me, target.origin
        frame = PingRequest(self._cluster, me, updates, number, whom)
        self._send(helper.address, frame)

    def nack(self, address: str, name: str, number: int) -> None:
        """Say that the target of a request has not answered."""
        updates = self._updates(name)
        self._send(address, Nack(self._cluster, self._roster.me, updates, number))

    def gossip(self, to: Member) -> None:
        """Tell a member what is to be told."""
        updates = self._updates(to.name)
        self._send(to.address, Gossip(self._cluster, self._roster.me, updates))

    def tell(self, address: str, *updates: Member) -> None:
        """Tell just that."""
        self._send(address, Gossip(self._cluster, self._roster.me, updates))

    def digest(self, address: str, digest: int) -> None:
        """Ask for a table if it differs."""
        self._send(address, Digest(self._cluster, self._roster.me, (), digest))

    def table(self, address: str, now_s: float, *, wants: bool) -> None:
        """Send the whole table, and perhaps ask for the other one."""
        rows = self._roster.table(now_s)
        self._send(address, Table(self._cluster, self._roster.me, rows, wants))

    def _updates(self, name: str) -> tuple[Member, ...]:
        about = self._roster.members.get(name)
        if not self._queue.waiting and (about is None or about.status is Status.ALIVE):
            return ()
        updates = self._queue.take(self._most, self._roster.size, but=name)
        if about is not None and about.status is not Status.ALIVE:
            updates.insert(0, about)
        return tuple(updates)

    def _send(self, address: str, frame: Frame) -> None:
        self.out.append(Send(address, frame))
