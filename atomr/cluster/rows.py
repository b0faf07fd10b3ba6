"""The process of names, or of groups: it says again what is here, and watches the rest.

Each node has rows of its own in an owned map, and nobody changes another one's.  What
follows from them is kept by whoever has the rows; the process only looks when there
is something new, and begins again where the replicator does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from atomr.cluster.replicator import Changed, Missed
from atomr.otp import GenServer, NoReply

if TYPE_CHECKING:
    from atomr.cluster.replicator import OwnedHandle
    from atomr.crdt import Key

ROOM = 100_000
"""More changes than rows; whoever misses one looks at all."""


class Rows(Protocol):
    """What the process is for."""

    def check_pids(self) -> None:
        """Find out whether pids can be made.

        Raises:
            NoNodeError: what makes them does not run.
        """

    def put_again(self) -> None:
        """Put what is this node's, and remove what is no more."""

    def look(self, key: Key) -> None:
        """See what a row has come to."""

    def look_at_all(self) -> None:
        """See what all rows have come to."""

    def format_status(self) -> object:
        """Return how many there are."""


class RowsServer(GenServer):
    """The process; its memory is with what it is for."""

    def __init__(self, owner: Rows, rows: OwnedHandle) -> None:
        self._owner = owner
        self._rows = rows

    def init(self) -> None:
        """Put this node's rows, and hear of all.

        Raises:
            NotReplicatingError: the replicator does not run: it comes first.
            NoNodeError: nor does what makes pids.
        """
        owner = self._owner
        owner.check_pids()
        self._rows.subscribe(room=ROOM)
        owner.put_again()
        owner.look_at_all()

    def handle_info(self, message: object) -> NoReply:
        """Look at what has changed."""
        match message:
            case Changed(key=key):
                self._owner.look(key)
            case Missed():
                self._owner.look_at_all()
            case _:
                super().handle_info(message)
        return NoReply()

    def format_status(self) -> object:
        """Return how much there is."""
        return self._owner.format_status()
