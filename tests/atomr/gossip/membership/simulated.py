"""Memberships in the simulator, and what must hold of them whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.crdt.origin import Origin
from atomr.gossip import membership as m
from atomr.testing import simulation as s

if TYPE_CHECKING:
    from collections.abc import Iterable

CLUSTER = 0xA70
CODEC = s.Codec(m.encode, m.decode)


def names_of(number: int) -> tuple[str, ...]:
    return tuple(f"n{place:02}" for place in range(number))


class Node:
    """A membership as the simulator drives it; addresses are names."""

    def __init__(
        self,
        boot: s.Boot,
        *,
        seeds: Iterable[str],
        cluster: int = CLUSTER,
        options: m.MembershipOptions | None = None,
    ) -> None:
        self.membership = m.Membership(
            Origin(boot.name, boot.boot),
            boot.name,
            cluster=cluster,
            draw=boot.random,
            seeds=tuple(seeds),
            options=options,
        )

    @property
    def next_deadline_s(self) -> float | None:
        return self.membership.next_deadline_s

    def start(self, now_s: float) -> list[m.Effect]:
        return self.membership.start(now_s)

    def handle(self, event: s.Event, now_s: float) -> list[m.Effect]:
        match event:
            case s.Received(sender, message):
                return self.membership.handle(m.Received(sender, message), now_s)
            case s.LinkReset(peer, boot):
                reset = m.LinkReset(Origin(peer, boot))
                return self.membership.handle(reset, now_s)
            case s.Woke():
                return self.membership.handle(m.Woke(), now_s)
