"""What the node believes of the members, and how it changes its mind.

::

    ALIVE ──accused──▶ SUSPECT ──time is up──▶ DEAD
      ▲                   │                     │
      └───────────────────┴── it says so, with ─┘
                              a greater incarnation

Any record that supersedes what is known is believed and told on, with two
exceptions:

- of the node itself only the node knows: whoever takes it for suspect or dead is
  refuted, and it never stops for that;
- nobody dies out of the blue.  That a member is dead which is not even suspected
  here is said by the other side of a cut, of all members of this side.  Such a
  member is told, so that it can refute, and probed, and else nothing is done.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr.gossip.membership.events import Changed, Refuted, Superseded
from atomr.gossip.membership.member import (
    INCARNATIONS,
    MAX_TEXT,
    Member,
    Status,
)
from atomr.gossip.membership.suspicion import Suspicion, suspicion_timeout_s

if TYPE_CHECKING:
    from atomr.crdt.origin import Origin
    from atomr.gossip.membership.draw import Draw
    from atomr.gossip.membership.health import Health
    from atomr.gossip.membership.options import MembershipOptions
    from atomr.gossip.membership.prober import Prober
    from atomr.gossip.membership.roster import Roster
    from atomr.gossip.membership.speaker import Speaker
    from atomr.gossip.membership.updates import UpdateQueue

_NEVER = float("inf")

_replace = msgspec.structs.replace


class Beliefs:
    """The beliefs of one node; what changes is told on, and is a fact."""

    __slots__ = (
        "_draw",
        "_health",
        "_options",
        "_prober",
        "_queue",
        "_roster",
        "_speaker",
        "_superseded",
        "_suspicions",
    )

    def __init__(  # noqa: PLR0913 - the parts of one node
        self,
        options: MembershipOptions,
        roster: Roster,
        queue: UpdateQueue,
        *,
        speaker: Speaker,
        prober: Prober,
        health: Health,
        draw: Draw,
    ) -> None:
        """Believe what the roster says."""
        self._options = options
        self._roster = roster
        self._queue = queue
        self._speaker = speaker
        self._prober = prober
        self._health = health
        self._draw = draw
        self._suspicions: dict[str, Suspicion] = {}
        self._superseded: Origin | None = None

    def due_at(self) -> float:
        """Return when a suspect is to be asked, or its time is up."""
        if not self._suspicions:
            return _NEVER
        return min(min(s.ask_at, s.due_at) for s in self._suspicions.values())

    # --- hearing --------------------------------------------------------------------

    def hear(self, said: Member, now_s: float) -> None:
        """Take what a node says of a member, itself or another."""
        name = said.origin.name
        known = self._roster.members.get(name)
        if said == known:
            return  # which is what most of it is
        if name == self._roster.name:
            self._hear_of_me(said, now_s)
        elif known is None:
            self._hear_of_stranger(said, now_s)
        elif said.supersedes(known):
            self._hear_news(said, known, now_s)
        elif (
            said.status is Status.SUSPECT
            and known.status is Status.SUSPECT
            and said.incarnation == known.incarnation
            and said.origin == known.origin
        ):
            self._confirm(known, said.accusers)

    def _hear_of_stranger(self, said: Member, now_s: float) -> None:
        if (
            len(self._roster.members) >= self._options.max_members
            or not 0 < len(said.name) <= MAX_TEXT
        ):
            return
        if said.status.is_live:
            self.believe(said, now_s)
        elif said.age_s < self._options.forget_s:
            # It was never there for this node, so its end is no news, but the
            # record keeps older rumours from bringing it back.
            self._roster.put(said, now_s)

    def _hear_news(self, said: Member, known: Member, now_s: float) -> None:
        if (
            said.status is Status.DEAD
            and known.status is Status.ALIVE
            and said.origin == known.origin
        ):
            self._speaker.tell(known.address, said)
            self._prober.hurry(said.name, now_s)
            return
        self.believe(said, now_s)
        if said.status is Status.SUSPECT and self._is_chosen():
            self._prober.hurry(said.name, now_s)

    def _is_chosen(self) -> bool:
        """Draw whether this node gives a second opinion."""
        return self._draw.random() * self._roster.size < self._options.second_opinions

    def _hear_of_me(self, said: Member, now_s: float) -> None:
        me = self._roster.me
        if said.origin.boot < me.origin.boot:
            return  # an old life, or a rumour of one
        if (
            said.origin.boot > me.origin.boot
            or said.incarnation >= INCARNATIONS - 1  # there is nothing above it
        ):
            self._supersede(said.origin)
        elif said.incarnation > me.incarnation or (
            said.incarnation == me.incarnation and said.status is not Status.ALIVE
        ):
            self._refute(said, now_s)

    def _supersede(self, by: Origin) -> None:
        if by != self._superseded:
            self._superseded = by
            self._speaker.out.append(Superseded(by))

    def _refute(self, said: Member, now_s: float) -> None:
        incarnation = said.incarnation + 1
        self._health.worsen()
        self.believe(_replace(self._roster.me, incarnation=incarnation), now_s)
        self._speaker.out.append(Refuted(said, incarnation))

    # --- judging --------------------------------------------------------------------

    def accuse(self, name: str, now_s: float) -> None:
        """Suspect a member that gave this node no answer, or confirm that others do."""
        known = self._roster.members.get(name)
        if known is None or not known.status.is_live:
            return
        accusers = (self._roster.name,)
        if known.status is Status.SUSPECT:
            self._confirm(known, accusers)
        else:
            suspect = _replace(known, status=Status.SUSPECT, accusers=accusers)
            self.believe(suspect, now_s)

    def _confirm(self, known: Member, accusers: tuple[str, ...]) -> None:
        most = 2 * self._options.confirmations + 1
        together = tuple(sorted({*known.accusers, *accusers}))[:most]
        if together == known.accusers:
            return
        suspect = _replace(known, accusers=together)
        suspicion = self._suspicions[known.name]
        self._roster.put(suspect, suspicion.began_at)
        self._queue.add(suspect)
        suspicion.due_at = suspicion.began_at + self._timeout_s(suspect)
        suspicion.ask_at = min(
            suspicion.ask_at, suspicion.due_at - self._options.last_word_s
        )

    def due(self, now_s: float) -> None:
        """Hold each suspect dead whose time is up; ask those that have little left."""
        for name, suspicion in tuple(self._suspicions.items()):
            known = self._roster.members[name]
            if now_s >= suspicion.due_at:
                self.believe(_replace(known, status=Status.DEAD, accusers=()), now_s)
            elif now_s >= suspicion.ask_at:
                suspicion.ask_at = now_s + self._options.retry_s
                self._speaker.ping(name, known.address, 0)

    def shift(self, lag_s: float) -> None:
        """Give each suspect as much more time as this node was away."""
        for suspicion in self._suspicions.values():
            suspicion.began_at += lag_s
            suspicion.due_at += lag_s
            suspicion.ask_at += lag_s

    def believe(self, member: Member, now_s: float) -> None:
        """Hold that, tell it on, and say what has changed."""
        before = self._roster.put(member, now_s)
        self._queue.add(member)
        self._suspicions.pop(member.name, None)
        if member.status is Status.SUSPECT:
            due_at = now_s + self._timeout_s(member)
            ask_at = due_at - self._options.last_word_s
            self._suspicions[member.name] = Suspicion(now_s, due_at, ask_at)
        if before is None or _shown(before) != _shown(member):
            self._speaker.out.append(Changed(before, member))

    def _timeout_s(self, suspect: Member) -> float:
        accusers = max(1, len(suspect.accusers))
        size = self._roster.size
        return suspicion_timeout_s(self._options, members=size, accusers=accusers)


def _shown(member: Member) -> tuple[object, ...]:
    return member.origin, member.status, member.meta, member.address
