"""The groups' process: it watches who joins and leaves elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.replicator import Changed, Missed
from atomr.otp import GenServer, NoReply

if TYPE_CHECKING:
    from atomr.cluster.groups.groups import ProcessGroups

ROOM = 100_000
"""More changes than members; whoever misses one looks at all."""


class GroupServer(GenServer):
    """The process of the groups; its memory is with them."""

    def __init__(self, groups: ProcessGroups) -> None:
        self._groups = groups

    def init(self) -> None:
        """Put this node's members, and hear of all.

        Raises:
            NotReplicatingError: the replicator does not run: it comes first.
            NoNodeError: nor does what makes pids.
        """
        groups = self._groups
        groups.check_pids()
        groups.rows.subscribe(room=ROOM)
        groups.put_again()
        groups.refresh_all()

    def handle_info(self, message: object) -> NoReply:
        """Look at what has changed."""
        match message:
            case Changed(key=(str() as group, int() as number)):
                self._groups.refresh(group, number)
            case Missed():
                self._groups.refresh_all()
            case Changed():
                """Nothing of ours."""
            case _:
                super().handle_info(message)
        return NoReply()

    def format_status(self) -> object:
        """Return how many groups there are."""
        return {"groups": len(self._groups.groups())}
