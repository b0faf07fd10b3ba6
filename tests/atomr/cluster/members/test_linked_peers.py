"""What watchers hear, and in what order, when links and members change in any order."""

from __future__ import annotations

from typing import Any, cast

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr.cluster import MemberChanged, PeerDown, PeerEvent, PeerUp
from atomr.cluster.members.linked_peers import LinkedPeers
from atomr.crdt.origin import Origin
from atomr.errors import LinkBusyError, LinkDownError
from atomr.gossip.membership import Member, Status
from atomr.http2 import Lane, Links

ALIVE, SUSPECT, DEAD, LEFT = Status


@attrs.define
class Line:
    """A link that takes what it is told, until it is full or down.

    Attributes:
        peer: the other end.
        down: why it ended.
        room: how much it takes.
        told: what it took.
    """

    peer: Origin
    down: LinkDownError | None = None
    room: int = 9
    told: list[object] = attrs.field(factory=list)

    def tell(self, service: str, message: object, *, lane: Lane) -> None:
        if len(self.told) >= self.room:
            raise LinkBusyError(self.peer, queued_bytes=1, limit_bytes=1)
        self.told.append((service, message, lane))


class World:
    """Links and members that a test sets, and the peers made of them."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.members: dict[str, Member] = {}
        self.peers = LinkedPeers(Origin("me", 0))
        self.peers.begin(Origin("me", 1), cast(Links, self.lines))
        self.peers.members = self.members

    def link(self, name: str, boot: int = 1) -> Line:
        line = self.lines[name] = Line(Origin(name, boot))
        self.peers.look(name)
        return line

    def unlink(self, name: str, reason: str = "peer_closed") -> None:
        if self.lines.pop(name, None) is not None:
            self.peers.look(name, reason)

    def hold(self, name: str, status: Status = ALIVE, boot: int = 1) -> None:
        before = self.members.get(name)
        after = Member(Origin(name, boot), f"{name}:1", 0, status)
        self.members[name] = after
        self.peers.changed(MemberChanged(before, after))


A, B = Origin("a", 1), Origin("b", 1)


def test_a_peer_is_up_with_a_link_and_a_live_member_whichever_comes_first() -> None:
    for order in ("link first", "member first"):
        world, events = World(), list[PeerEvent]()
        with world.peers.watch(events.append):
            first, second = world.link, world.hold
            if order == "member first":
                world.hold("a")
                assert events == []
                world.link("a")
            else:
                first("a")
                assert events == []
                second("a")
        assert events == [PeerUp(A)]
        assert world.peers.all() == (A,)


def test_why_a_peer_went_down() -> None:
    world, events = World(), list[PeerEvent]()
    world.hold("a")
    with world.peers.watch(events.append):
        world.link("a")
        world.unlink("a", "no_pong")
        world.link("a")
        world.hold("a", SUSPECT)
        assert world.peers.all() == (A,)
        world.hold("a", DEAD)
        world.hold("a", ALIVE)
        world.hold("a", LEFT)
        world.hold("a", ALIVE, boot=2)
        world.link("a", boot=2)
        world.hold("a", ALIVE, boot=3)
    second = Origin("a", 2)
    assert events == [
        PeerUp(A),
        PeerDown(A, "no_pong"),
        PeerUp(A),
        PeerDown(A, "dead"),
        PeerUp(A),
        PeerDown(A, "left"),
        PeerUp(second),
        PeerDown(second, "restarted"),
    ]


def test_the_end_of_a_life_takes_all_down_and_the_next_begins_with_nobody() -> None:
    world, events = World(), list[PeerEvent]()
    for name in "ab":
        world.hold(name)
        world.link(name)
    with world.peers.watch(events.append):
        world.peers.end()
    assert events[2:] == [PeerDown(A, "closed"), PeerDown(B, "closed")]
    assert (world.peers.all(), world.peers.link(A)) == ((), None)
    world.peers.look("a")
    assert world.peers.all() == ()


def test_what_is_told_goes_by_the_link_of_that_life_or_is_refused() -> None:
    world = World()
    world.hold("a")
    line = world.link("a")
    line.room = 1
    peers = world.peers
    assert peers.tell(A, "s", "x", lane=Lane.CTL)
    assert line.told == [("s", "x", Lane.CTL)]
    assert not peers.tell(A, "s", "too much")
    assert not peers.tell(Origin("a", 2), "s", "another life")
    assert not peers.tell(B, "s", "nobody")
    assert peers.refused == 3


def test_a_watcher_that_causes_news_hears_of_it_behind_what_it_hears_of() -> None:
    world, events, others = World(), list[PeerEvent](), list[PeerEvent]()
    world.hold("a")
    world.hold("b")

    def cause(event: PeerEvent) -> None:
        events.append(event)
        if event == PeerUp(A):
            # As a tell that ends the link; and as a service that comes with a peer.
            world.unlink("a")
            world.link("b")

    with world.peers.watch(cause), world.peers.watch(others.append):
        world.link("a")
    told = [PeerUp(A), PeerDown(A, "peer_closed"), PeerUp(B)]
    assert (events, others) == (told, told)


def test_a_watcher_that_comes_in_the_middle_hears_each_thing_once() -> None:
    world, late = World(), list[PeerEvent]()
    world.hold("a")
    world.hold("b")
    contexts: list[Any] = []

    def bring_another(event: PeerEvent) -> None:
        if event == PeerUp(A):
            world.link("b")
            contexts.append(world.peers.watch(late.append))
            contexts[0].__enter__()

    with world.peers.watch(bring_another):
        world.link("a")
        assert late == [PeerUp(A), PeerUp(B)]
        contexts[0].__exit__(None, None, None)
        world.unlink("b")
    assert late == [PeerUp(A), PeerUp(B)]


def test_a_watcher_that_leaves_in_the_middle_hears_no_more() -> None:
    world, heard = World(), list[PeerEvent]()
    world.hold("a")
    context = world.peers.watch(heard.append)

    def send_away(event: PeerEvent) -> None:
        if event == PeerUp(A):
            context.__exit__(None, None, None)

    with world.peers.watch(send_away):
        context.__enter__()
        world.link("a")
    assert heard == []


class AnyOrder(RuleBasedStateMachine):
    """Each watcher's picture is what is so, and ups and downs alternate."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.picture: dict[str, Origin] = {}
        self.watching = self.world.peers.watch(self.hear)
        self.watching.__enter__()

    def hear(self, event: PeerEvent) -> None:
        match event:
            case PeerUp(peer):
                assert peer.name not in self.picture
                self.picture[peer.name] = peer
            case PeerDown(peer, reason):
                assert self.picture.pop(peer.name) == peer
                assert reason

    names = st.sampled_from("ab")
    boots = st.integers(1, 3)

    @rule(name=names, boot=boots)
    def link(self, name: str, boot: int) -> None:
        self.world.unlink(name, "replaced")
        self.world.link(name, boot)

    @rule(name=names)
    def unlink(self, name: str) -> None:
        self.world.unlink(name)

    @rule(name=names, boot=boots, status=st.sampled_from(Status))
    def hold(self, name: str, boot: int, status: Status) -> None:
        self.world.hold(name, status, boot)

    @rule()
    def next_life(self) -> None:
        self.world.peers.end()
        self.world.lines.clear()
        self.world.members.clear()
        self.world.peers.begin(Origin("me", 2), cast(Links, self.world.lines))
        self.world.peers.members = self.world.members

    @invariant()
    def is_so(self) -> None:
        world = self.world
        up = {
            name: line.peer
            for name, line in world.lines.items()
            if name in world.members
            and world.members[name].status.is_live
            and world.members[name].origin == line.peer
        }
        assert self.picture == up
        assert world.peers.all() == tuple(sorted(up.values()))

    def teardown(self) -> None:
        self.watching.__exit__(None, None, None)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
