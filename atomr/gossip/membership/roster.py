"""Who is there: the table of members, and who is next to be probed.

Every other probe goes to the member that is next by name, so each member is
probed by the one before it, at a known interval.  The others go round all members
in a shuffled order.  With these alone, as in SWIM, a member of a large cluster is
left out for long now and then: each second, one chance in three that nobody
happens to ask.  A suspect that was just heard of goes to the front.

Dead members and those that left stay in the table for a day, as tombstones: they
are what keeps an old rumour from bringing them back.

Pure: the generator that shuffles is an argument.

Source: SWIM, section 4.3.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from atomr.gossip.membership.member import Member, Status

if TYPE_CHECKING:
    from atomr.gossip.membership.draw import Draw


class Roster:
    """The table of one node; the node itself is in it.

    Attributes:
        members: by name, in the order they became known.
        name: of the node itself.
        live: names of the live members other than itself.
    """

    __slots__ = (
        "_died_at",
        "_draw",
        "_order",
        "_takes_next",
        "_urgent",
        "live",
        "members",
        "name",
    )

    def __init__(self, me: Member, draw: Draw) -> None:
        """Start with the node itself."""
        self.name = me.name
        self.members: dict[str, Member] = {me.name: me}
        self.live: list[str] = []
        self._died_at: dict[str, float] = {}
        self._order: list[str] = []
        self._urgent: list[str] = []
        self._takes_next = False
        self._draw = draw

    @property
    def me(self) -> Member:
        """The node's own record."""
        return self.members[self.name]

    @property
    def size(self) -> int:
        """How many live members there are, the node itself among them."""
        return len(self.live) + 1

    def put(self, member: Member, now_s: float) -> Member | None:
        """Take a record in place of what was known of that name; return that."""
        name = member.name
        before = self.members.get(name)
        self.members[name] = member
        if member.status.is_live:
            self._died_at.pop(name, None)
            if name != self.name and (before is None or not before.status.is_live):
                self.live.append(name)
                self._order.insert(self._draw.randrange(len(self._order) + 1), name)
        else:
            self._died_at[name] = now_s - member.age_s
            if before is not None and before.status.is_live and name != self.name:
                self.live.remove(name)
        return before

    def next_target(self) -> Member | None:
        """Return who is to be probed next; None: there is nobody else."""
        while self._urgent:
            member = self.members.get(self._urgent.pop())
            if member is not None and member.status.is_live:
                return member
        self._takes_next = not self._takes_next
        if self._takes_next and self.live:
            after = [name for name in self.live if name > self.name]
            return self.members[min(after or self.live)]
        return self._next_in_round()

    def _next_in_round(self) -> Member | None:
        while True:
            if not self._order:
                if not self.live:
                    return None
                self._order = self.live.copy()
                self._draw.shuffle(self._order)
            member = self.members.get(self._order.pop())
            if member is not None and member.status.is_live:
                return member

    def hurry(self, name: str) -> None:
        """Let a live member be the next one that is probed."""
        if name not in self._urgent:
            self._urgent.append(name)

    def sample(self, number: int, *, but: str = "") -> list[Member]:
        """Draw some live members other than the node itself."""
        names = [name for name in self.live if name != but]
        chosen = self._draw.sample(names, min(number, len(names)))
        return [self.members[name] for name in chosen]

    def dead(self) -> Member | None:
        """Draw one of the dead, who did not leave; None: there are none."""
        dead = [
            name
            for name in self._died_at
            if self.members[name].status is Status.DEAD and name != self.name
        ]
        return self.members[self._draw.choice(dead)] if dead else None

    def forget(self, before_s: float) -> None:
        """Drop those that died, or left, before that time."""
        old = [name for name, at in self._died_at.items() if at < before_s]
        for name in old:
            del self._died_at[name], self.members[name]

    def table(self, now_s: float) -> tuple[Member, ...]:
        """Return what is known of others, with the ages of the dead as of now."""
        return tuple(
            self._aged(member, now_s)
            for name, member in self.members.items()
            if name != self.name
        )

    def _aged(self, member: Member, now_s: float) -> Member:
        died_at = self._died_at.get(member.name)
        if died_at is None:
            return member
        age_s = max(0, int(now_s - died_at))
        return msgspec.structs.replace(member, age_s=age_s)

    def digest(self) -> int:
        """Return a 64-bit hash that is equal where the tables are.

        A suspicion passes within seconds, so a suspect counts as alive.
        """
        rows = [
            (m.origin, m.incarnation, max(0, m.status - 1), m.meta)
            for m in self.members.values()
        ]
        content = msgspec.msgpack.encode(sorted(rows))
        return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
