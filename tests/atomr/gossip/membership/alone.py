"""One membership, and its peers as the frames that a test writes for them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from atomr.crdt.origin import Origin
from atomr.gossip import membership as m
from atomr.gossip.membership.frames import Gossip

if TYPE_CHECKING:
    from atomr.gossip.membership.frames import Frame

CLUSTER = 7
ALIVE, SUSPECT, DEAD, LEFT = m.Status


def member(
    name: str,
    boot: int = 1,
    incarnation: int = 0,
    status: m.Status = ALIVE,
    *,
    accusers: tuple[str, ...] = (),
    age_s: int = 0,
) -> m.Member:
    origin = Origin(name, boot)
    return m.Member(origin, f"{name}:1", incarnation, status, 0, accusers, age_s)


class Alone:
    """A membership named ``a``, its clock, and what it said since the last look."""

    def __init__(
        self,
        *,
        boot: int = 5,
        seeds: tuple[str, ...] = (),
        options: m.MembershipOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.now_s = 100.0
        self.membership = m.Membership(
            Origin("a", boot),
            "a:1",
            cluster=CLUSTER,
            draw=random.Random(seed),
            seeds=seeds,
            options=options,
        )
        self.said: list[m.Effect] = self.membership.start(self.now_s)

    def hears(
        self, name: str, *updates: m.Member, boot: int = 1, incarnation: int = 0
    ) -> list[m.Effect]:
        """Take a gossip frame of a peer."""
        me = member(name, boot, incarnation)
        return self.takes(Gossip(CLUSTER, me, updates))

    def takes(self, frame: Frame) -> list[m.Effect]:
        received = m.Received(frame.me.address, frame)
        return self.does(received)

    def does(self, event: m.Event) -> list[m.Effect]:
        effects = self.membership.handle(event, self.now_s)
        self.said += effects
        return effects

    def waits(self, for_s: float) -> list[m.Effect]:
        """Let time pass; the membership is woken whenever it wants to be."""
        until_s = self.now_s + for_s
        effects: list[m.Effect] = []
        while (at := self.membership.next_deadline_s) is not None and at <= until_s:
            self.now_s = at
            effects += self.does(m.Woke())
        self.now_s = until_s
        return effects

    def status(self, name: str) -> m.Status | None:
        known = self.membership.members.get(name)
        return known.status if known else None


def frames(effects: list[m.Effect]) -> list[tuple[str, Frame]]:
    return [(x.to, x.message) for x in effects if isinstance(x, m.Send)]


def facts(effects: list[m.Effect]) -> list[m.Effect]:
    return [x for x in effects if not isinstance(x, m.Send)]
