"""Networks that are cut, processes that die, peers that lie."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster import PeerDown, PeerUp
from atomr.cluster.members.station import cluster_id
from atomr.crdt.origin import Origin
from atomr.gossip.membership import Frame, Member, Status
from atomr.gossip.membership.frames import Gossip
from atomr.http2 import Link, LinkOptions, Service, open_links
from tests.atomr.cluster.members.conftest import (
    QUICK,
    WITHIN_S,
    open_relay,
    status,
    told,
    watched,
)
from tests.atomr.http2.conftest import CLUSTER, COOKIE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atomr.cluster import Cluster, MemberChanged
    from tests.atomr.cluster.members.conftest import OpenMember
    from tests.atomr.http2.conftest import Authority

ALIVE, SUSPECT, DEAD, LEFT = Status


async def test_a_killed_process_is_missed_at_once_and_held_dead_soon_by_all(
    open_member: OpenMember, open_relayed: OpenMember
) -> None:
    held: list[Status] = []
    async with (
        open_relay() as relay,
        open_member("b", membership=QUICK) as b,
        open_member("a", b.address, membership=QUICK) as a,
    ):
        with (
            watched(a) as at_a,
            watched(b) as at_b,
            held_of(a, "c", held),
            held_of(b, "c", held),
        ):
            async with open_relayed("c", relay) as c:
                # It is reached, and reaches others, by what they have dialed.
                b._station.switchboard.send(relay.address, _hello(b))
                for node in (a, b, c):
                    await node.wait_for(3, timeout_s=WITHIN_S)
                gone = c.origin
                relay.reset()
                # It has no link to say goodbye on.
                await until(lambda: not c.peers.all())
            lost = PeerDown(gone, "peer_closed")
            await until(lambda: (at_a[-1], at_b[-1]) == (lost, lost))
            await until(lambda: (status(a, "c"), status(b, "c")) == (DEAD, DEAD))
        # Somebody suspects it first; the other one may hear of its end alone.
        assert SUSPECT in held[: held.index(DEAD)]
        assert LEFT not in held
        assert (a.peers.all(), b.peers.all()) == ((b.origin,), (a.origin,))


async def test_a_cut_heals_without_a_restart(open_relayed: OpenMember) -> None:
    impatient = {"membership": QUICK, "heartbeat_timeout_s": 0.5}
    async with (
        open_relay() as to_a,
        open_relay() as to_b,
        open_relayed("a", to_a, **impatient) as a,
        open_relayed("b", to_b, to_a.address, **impatient) as b,
    ):
        await a.wait_for(2, timeout_s=WITHIN_S)
        await b.wait_for(2, timeout_s=WITHIN_S)
        lives = a.origin, b.origin
        with watched(a) as at_a, watched(b) as at_b:
            to_a.cut()
            to_b.cut()
            await until(lambda: (status(a, "b"), status(b, "a")) == (DEAD, DEAD))
            assert {reason for _, reason in told(at_a)[1:]} <= {"no_pong", "dead", "up"}
            assert (a.peers.all(), b.peers.all()) == ((), ())
            to_a.heal()
            to_b.heal()
            await a.wait_for(2, timeout_s=WITHIN_S)
            await b.wait_for(2, timeout_s=WITHIN_S)
            assert PeerUp(b.origin) in at_a[2:]
            assert PeerUp(a.origin) in at_b[2:]
        assert (a.origin, b.origin) == lives


async def test_a_node_that_nobody_reaches_is_up_by_the_links_that_it_dials(
    open_member: OpenMember, open_relayed: OpenMember
) -> None:
    async with open_relay() as relay:
        relay.cut()
        # Nobody gets to b: a knows it, and is the one that should dial.
        async with open_member("a") as a, open_relayed("b", relay, a.address) as b:
            await a.wait_for(2, timeout_s=WITHIN_S)
            await b.wait_for(2, timeout_s=WITHIN_S)
            link = b.peers.link(a.origin)
            assert link is not None
            assert link.dialed


# --- peers that lie -------------------------------------------------------------------


@attrs.define
class Liar:
    """Speaks on a link as it likes.

    Attributes:
        link: with the node that it lies to.
    """

    link: Link

    def says(self, me: Member, *updates: Member) -> None:
        self.link.tell("members", Gossip(cluster_id(CLUSTER), me, updates))


@pytest.fixture
def open_liar(authority: Authority) -> Any:
    @asynccontextmanager
    async def opened(name: str, to: Cluster) -> AsyncIterator[Liar]:
        options = LinkOptions(
            CLUSTER, Origin(name, 7), COOKIE, authority.credentials(name)
        )
        ignored: Service[Any] = Service(Frame, tell=lambda _, __: None)
        async with open_links(options, {"members": ignored}) as links:
            yield Liar(await links.dial("a", "127.0.0.1", to._station.port))

    return opened


def record(
    name: str, boot: int = 7, address: str = "127.0.0.1:9", **changed: Any
) -> Member:
    return Member(
        Origin(name, boot), address, 0, changed.pop("status", ALIVE), **changed
    )


async def test_a_peer_that_speaks_as_another_node_is_cut_off(
    open_member: OpenMember, open_liar: Any
) -> None:
    async with open_member("a") as a, open_member("b", a.address) as b:
        await a.wait_for(2, timeout_s=WITHIN_S)
        async with open_liar("c", a) as liar:
            liar.says(record("b", b.origin.boot, status=LEFT))
            with trio.fail_after(WITHIN_S):
                error = await liar.link.wait_down()
        assert error.reason == "peer_closed"
        assert status(a, "b") in (ALIVE, SUSPECT)
        assert a.peers.all() == (b.origin,)


async def test_a_peer_that_speaks_as_an_earlier_life_is_cut_off(
    open_member: OpenMember, open_liar: Any
) -> None:
    async with open_member("a") as a, open_liar("c", a) as liar:
        liar.says(record("c", boot=6))
        with trio.fail_after(WITHIN_S):
            await liar.link.wait_down()
        assert status(a, "c") is None


@pytest.mark.parametrize(
    "address",
    ["no address", "a b:1", "x" * 250, "-:1", "[::1", "10.0.0.1:0", "a:99999"],
)
async def test_an_address_that_is_none_harms_nobody(
    open_member: OpenMember, open_liar: Any, address: str
) -> None:
    async with open_member("a") as a, open_liar("c", a) as liar:
        origin = a.origin
        liar.says(record("c"), record("d", address=address))
        await until(lambda: status(a, "d") is ALIVE)
        async with open_member("b", a.address) as b:
            await b.wait_for(2, timeout_s=WITHIN_S)
        assert a.origin == origin


async def test_two_members_that_claim_one_address_both_are_up(
    open_member: OpenMember,
) -> None:
    async with (
        open_member("b") as b,
        open_member("a", b.address, advertise="127.0.0.1:9") as a,
        open_member("c", b.address, advertise="127.0.0.1:9") as c,
    ):
        await b.wait_for(3, timeout_s=WITHIN_S)
        assert b.peers.all() == (a.origin, c.origin)


async def test_garbage_for_the_membership_ends_the_link_alone(
    open_member: OpenMember, open_liar: Any
) -> None:
    async with open_member("a") as a, open_member("b", a.address) as b:
        await a.wait_for(2, timeout_s=WITHIN_S)
        async with open_liar("c", a) as liar:
            liar.link.tell("members", [9, "what"])
            with trio.fail_after(WITHIN_S):
                await liar.link.wait_down()
        assert a.peers.all() == (b.origin,)


async def test_thousands_of_members_that_are_none_keep_nobody_busy(
    open_member: OpenMember, open_liar: Any
) -> None:
    async with open_member("a") as a, open_member("b", a.address) as b:
        await a.wait_for(2, timeout_s=WITHIN_S)
        rows = [record(f"n{i}", address=f"127.0.0.1:{1 + i % 7}") for i in range(9_000)]
        async with open_liar("c", a) as liar:
            liar.says(record("c"), *rows)
            await until(lambda: len(a.members()) > 4_000)
            assert len(a.members()) <= 4096
        await b.wait_for(2, timeout_s=WITHIN_S)


async def test_whoever_connects_and_says_nothing_holds_nobody_up(
    open_member: OpenMember,
) -> None:
    async with open_member("a") as a:
        silent = []
        try:
            for _ in range(20):
                silent.append(socket.create_connection(("127.0.0.1", a._station.port)))
            async with open_member("b", a.address) as b:
                await b.wait_for(2, timeout_s=WITHIN_S)
        finally:
            for connection in silent:
                connection.close()


@contextmanager
def held_of(node: Cluster, name: str, held: list[Status]) -> Iterator[None]:
    """Collect what a node holds of another one, from now on."""

    def look(change: MemberChanged) -> None:
        if change.after.name == name:
            held.append(change.after.status)

    with node.peers.watch_members(look):
        yield


def _hello(node: Cluster) -> Frame:
    me = node._station.switchboard.peers.members[node.origin.name]
    return Gossip(cluster_id(CLUSTER), me, ())
