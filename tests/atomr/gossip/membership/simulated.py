"""Memberships in the simulator, and what must hold of them whatever happens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.crdt.origin import Origin
from atomr.gossip import membership as m
from atomr.gossip.membership.frames import Table
from atomr.gossip.membership.member import precedence
from atomr.testing import simulation as s

if TYPE_CHECKING:
    from collections.abc import Iterable

CLUSTER = 0xA70
OVER_S = 60.0
WOKE = m.Woke()
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
        self.tables = 0

    @property
    def next_deadline_s(self) -> float | None:
        return self.membership.next_deadline_s

    def start(self, now_s: float) -> list[m.Effect]:
        return self.membership.start(now_s)

    def handle(self, event: s.Event, now_s: float) -> list[m.Effect]:
        given: m.Event
        if type(event) is s.Received:
            self.tables += type(event.message) is Table
            given = m.Received(event.sender, event.message)
        elif type(event) is s.LinkReset:
            given = m.LinkReset(Origin(event.peer, event.boot))
        else:
            given = WOKE
        return self.membership.handle(given, now_s)


class World:
    """A cluster in a simulation, and what must hold of it whatever happens.

    - A node holds itself alive.
    - Beliefs only go up in the order of precedence, within an observer's life.
    - Nobody invents: no boot id that was not given out, and no incarnation that its
      owner has not reached.
    - Facts are a chain: each begins where the one before it ended.
    - A life that has been over for a minute does not come back.
    """

    def __init__(
        self,
        simulation: s.Simulation,
        number: int,
        *,
        seeds: int = 2,
        options: m.MembershipOptions | None = None,
    ) -> None:
        self.simulation = simulation
        self.names = names_of(number)
        self.options = options
        self.seeds = self.names[:seeds]
        self.lives: dict[Origin, Node] = {}
        self.gone: set[str] = set()
        self.changes: list[tuple[str, m.Changed]] = []
        self._facts: dict[tuple[Origin, str], m.Member] = {}
        self._seen_at: dict[Origin, float] = {}
        self._ranks: dict[tuple[Origin, str], tuple[int, int, int]] = {}
        self._checked: dict[Origin, dict[str, m.Member]] = {}
        simulation.use_codec(CODEC)
        for name in self.names:
            simulation.add_node(name, self.make)
        simulation.observe(self.check_fact)
        simulation.every(1.0, self.check_all)

    def make(self, boot: s.Boot) -> Node:
        node = Node(boot, seeds=self.seeds, options=self.options)
        self.lives[node.membership.me.origin] = node
        self.gone.discard(boot.name)
        return node

    def membership(self, name: str) -> m.Membership:
        node = self.simulation.node(name)
        assert isinstance(node, Node)
        return node.membership

    def leave(self, name: str) -> None:
        """Say goodbye, and end soon after; the memory of it stays with the others."""
        if name not in self.simulation.up or len(self.simulation.up) < 3:
            return
        self.gone.add(name)
        self.simulation.do(name, _leave)
        self.simulation.at(self.simulation.now_s + 0.05, partial(self.end, name))

    def end(self, name: str) -> None:
        """End, unless it has begun another life meanwhile."""
        if name in self.gone:
            self.simulation.crash(name)

    # --- what must hold -------------------------------------------------------------

    def check_fact(self, name: str, fact: object) -> None:
        if not isinstance(fact, m.Changed):
            return
        self.changes.append((name, fact))
        key = self.membership(name).me.origin, fact.after.name
        known = self._facts.get(key)
        if fact.after.name == name and known is None:
            assert fact.before is not None
        elif known is None or fact.before is None:
            assert fact.before is None or not fact.before.status.is_live, fact
        else:
            assert _shown(fact.before) == _shown(known), (known, fact)
        self._facts[key] = fact.after
        if fact.after.name == name:
            leaves = name in self.gone
            assert fact.after.status is (m.Status.LEFT if leaves else m.Status.ALIVE)
        elif fact.after.status is m.Status.ALIVE:
            now_s = self.simulation.now_s
            over_s = now_s - self._seen_at.get(fact.after.origin, now_s)
            assert over_s < OVER_S, (name, fact)

    def check_all(self) -> None:
        for name in self.simulation.up:
            membership = self.membership(name)
            observer = membership.me.origin
            self._seen_at[observer] = self.simulation.now_s
            if membership.members == self._checked.get(observer):
                continue  # what was true of these records is so for ever
            self._checked[observer] = dict(membership.members)
            for member in membership.members.values():
                self.check_member(observer, member)

    def check_member(self, observer: Origin, member: m.Member) -> None:
        owner = self.lives[member.origin].membership.me
        assert member.incarnation <= owner.incarnation, (member, owner)
        key = observer, member.name
        rank = precedence(member)
        assert rank >= self._ranks.get(key, rank), member
        self._ranks[key] = rank

    def held(self, status: m.Status) -> set[str]:
        """Return the names that another node has held to be that."""
        return {
            change.after.name
            for name, change in self.changes
            if change.after.status is status and change.after.name != name
        }

    # --- what must come to hold -----------------------------------------------------

    def agree(self) -> bool:
        """Whether all that run know exactly each other, and that the rest is gone."""
        up = self.simulation.up
        true = {self.membership(name).me.origin for name in up}
        for name in up:
            members = self.membership(name).members
            live = {x.origin for x in members.values() if x.status is m.Status.ALIVE}
            if live != true or any(
                x.status is m.Status.SUSPECT for x in members.values()
            ):
                return False
        return len({self.membership(name).digest() for name in up}) == 1

    def settle(self, within_s: float = 30.0) -> float:
        """Let time pass until all agree; return how long it took."""
        return self.simulation.run_until(self.agree, within_s=within_s, step_s=0.25)


def _leave(node: Node, now_s: float) -> list[m.Effect]:
    return node.membership.handle(m.Leave(), now_s)


def _shown(member: m.Member) -> tuple[object, ...]:
    return member.origin, member.status, member.meta, member.address
