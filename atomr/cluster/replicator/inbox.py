"""Messages of peers that wait for the replicator, and which are worth its time.

A node that cannot keep up would find several digests of a peer's shard in its mailbox.
The last of them says all that the others said, so it takes the place of the first: at
the end of the row it might be overtaken for ever.  What it knows and the frames in
front of it have not brought yet is asked for, and its sender knows that it was sent.

Frames with events count for themselves.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.replicator.frames import Carried, Message
from atomr.gossip.replication import Digest

if TYPE_CHECKING:
    from atomr.crdt import Origin


class Inbox:
    """What waits, in the order in which it came.

    Attributes:
        waiting: how many messages.
        overrun: how many were turned away, as too many waited.
    """

    __slots__ = ("_digests", "_most", "overrun", "waiting")

    def __init__(self, most: int) -> None:
        """Be empty.

        Args:
            most: frames that may wait; of what is not a frame, twice as many.
        """
        self.waiting = 0
        self.overrun = 0
        self._most = most
        self._digests: dict[tuple[Origin, int], Carried] = {}

    def arrived(self, peer: Origin, message: Message) -> bool:
        """Return whether a message is to wait for its turn."""
        if isinstance(message, Carried) and isinstance(message.frame, Digest):
            place = peer, message.shard
            if place in self._digests:
                self._digests[place] = message
                return False
            if not self._has_room(message):
                return False
            self._digests[place] = message
            return True
        return self._has_room(message)

    def _has_room(self, message: Message) -> bool:
        most = self._most if isinstance(message, Carried) else 2 * self._most
        if self.waiting >= most:
            self.overrun += 1
            return False
        self.waiting += 1
        return True

    def take(self, peer: Origin, message: Message) -> Message:
        """Return what came in the place of the first that waits: its turn has come."""
        self.waiting -= 1
        if isinstance(message, Carried) and isinstance(message.frame, Digest):
            return self._digests.pop((peer, message.shard))
        return message
