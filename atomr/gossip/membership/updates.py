"""Updates that are still to be told, each a bounded number of times.

In every frame ride those that were told least often.  A later update of a member
takes the place of an earlier one.

Pure.

Source: SWIM, section 4.1.
"""

from __future__ import annotations

from math import ceil, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atomr.gossip.membership.member import Member


class UpdateQueue:
    """What is still to be told.

    Attributes:
        waiting: name to how often it was told, and what, in the order of arrival.
    """

    __slots__ = ("_mult", "waiting")

    def __init__(self, mult: int) -> None:
        """Start with nothing to tell.

        Args:
            mult: an update is told that often, times log10 of the members.
        """
        self._mult = mult
        self.waiting: dict[str, tuple[int, Member]] = {}

    def add(self, member: Member) -> None:
        """Tell this, and no longer what was to be told of that member before."""
        self.waiting.pop(member.name, None)
        self.waiting[member.name] = 0, member

    def drop(self, name: str) -> None:
        """Tell nothing of that member."""
        self.waiting.pop(name, None)

    def take(self, most: int, members: int, *, but: str) -> list[Member]:
        """Return what to tell now, and count it as told.

        Args:
            most: how many at most.
            members: how many live ones there are.
            but: name of the node that it is told to, which gets nothing of itself
                here.
        """
        waiting = [item for name, item in self.waiting.items() if name != but]
        if len(waiting) > most:
            waiting.sort(key=_times)
            waiting = waiting[:most]
        limit = self.limit(members)
        for times, member in waiting:
            if times + 1 >= limit:
                del self.waiting[member.name]
            else:
                self.waiting[member.name] = times + 1, member
        return [member for _, member in waiting]

    def limit(self, members: int) -> int:
        """Return how often an update is told.

        >>> [UpdateQueue(4).limit(members) for members in (2, 9, 10, 64)]
        [4, 4, 8, 8]
        """
        return self._mult * max(1, ceil(log10(members + 1)))


def _times(item: tuple[int, Member]) -> int:
    return item[0]
