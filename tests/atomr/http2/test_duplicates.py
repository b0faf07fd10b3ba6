"""Two connections between the same two nodes: both sides keep the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.crdt.origin import Origin
from atomr.errors import LinkRefusedError
from atomr.http2 import LinkEvent, LinkOptions, LinkUp, Reason, open_links
from atomr.http2.handshake import Self, greet_dialed
from tests.atomr.http2.conftest import (
    CLUSTER,
    COOKIE,
    Authority,
    Get,
    Shelf,
    dial,
    until,
)

if TYPE_CHECKING:
    from tests.atomr.http2.conftest import OpenNode


async def test_a_second_dial_returns_the_link_that_is_there(
    open_node: OpenNode,
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await dial(a, b)
        assert await dial(a, b) is link
        assert await dial(b, a) is b.links.get("a")
        assert (len(a.links.all()), len(b.links.all())) == (1, 1)


async def test_many_dials_at_once_return_one_link(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        found = []

        async def connect() -> None:
            found.append(await dial(a, b))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(connect)
        assert len(set(map(id, found))) == 1
        assert (a.ended, b.ended) == ([], [])
        assert a.links._dialing == {}


@pytest.mark.parametrize("attempt", range(10))
async def test_both_keep_what_the_lower_name_dialed_when_both_dial(
    open_node: OpenNode, attempt: int
) -> None:
    service = {"shelf": Shelf().service()}
    async with open_node("a", service) as a, open_node("b", service) as b:
        async with trio.open_nursery() as nursery:
            first, second = ((a, b), (b, a)) if attempt % 2 else ((b, a), (a, b))
            nursery.start_soon(dial, *first)
            await trio.sleep(attempt * 0.001)
            nursery.start_soon(dial, *second)

        def agree() -> bool:
            ours, theirs = a.links.get("b"), b.links.get("a")
            return bool(ours and theirs and ours.dialed and not theirs.dialed)

        # Without a race, the first one stays, whoever has dialed it.
        def quiet() -> bool:
            ours, theirs = a.links.get("b"), b.links.get("a")
            return bool(ours and theirs and ours.dialed != theirs.dialed)

        await until(quiet)
        for one, name in ((a, "b"), (b, "a")):
            link = one.links.get(name)
            assert link is not None
            assert await link.call("shelf", Get("x"), returns=int | None) is None
        assert (len(a.links.all()), len(b.links.all())) == (1, 1)
        if a.ended or b.ended:
            assert agree()


async def test_the_lower_name_takes_the_place_of_what_the_higher_one_dialed(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("b") as b, open_node("a") as a:
        await dial(b, a)
        old = b.links.get("a")
        assert old is not None
        us = Self(CLUSTER, Origin("a", 1), COOKIE, authority.credentials("a"))
        stream = await trio.open_tcp_stream("127.0.0.1", b.port)
        greeted = await greet_dialed(stream, us, node="b")
        assert greeted.peer == Origin("b", 1)
        await old.wait_down()
        assert b.ended == ["replaced"]
        new = b.links.get("a")
        assert new is not None
        assert not new.dialed
        # The old one was told as well.
        await until(lambda: a.ended)
        assert a.ended == ["goodbye"]
        greeted.pipe.close()


async def test_the_higher_name_cannot_take_the_place_of_what_the_lower_one_dialed(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await dial(a, b)
        us = Self(CLUSTER, Origin("b", 1), COOKIE, authority.credentials("b"))
        stream = await trio.open_tcp_stream("127.0.0.1", a.port)
        with pytest.raises(LinkRefusedError) as caught:
            await greet_dialed(stream, us, node="a")
        assert caught.value.reason == "duplicate"
        assert a.links.get("b") is link
        assert a.ended == []


async def test_a_node_in_a_new_life_takes_the_place_of_its_old_one(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        old = await dial(a, b)
        # The old life's connection is still there: its machine hangs, perhaps.
        us = Self(CLUSTER, Origin("b", 2), COOKIE, authority.credentials("b"))
        stream = await trio.open_tcp_stream("127.0.0.1", a.port)
        greeted = await greet_dialed(stream, us, node="a")
        await old.wait_down()
        assert a.ended == ["replaced"]
        new = a.links.get("b")
        assert new is not None
        assert new.peer == Origin("b", 2)
        greeted.pipe.close()


async def test_an_older_life_cannot_take_the_place_of_a_later_one(
    open_node: OpenNode, authority: Authority
) -> None:
    async with open_node("a") as a, open_node("b", boot=2) as b:
        link = await dial(a, b)
        us = Self(CLUSTER, Origin("b", 1), COOKIE, authority.credentials("b"))
        for _ in range(3):
            stream = await trio.open_tcp_stream("127.0.0.1", a.port)
            with pytest.raises(LinkRefusedError) as caught:
                await greet_dialed(stream, us, node="a")
            assert caught.value.reason == "superseded"
            assert caught.value.later_boot == 2
        assert a.links.get("b") is link
        assert (a.ended, b.ended) == ([], [])
        assert a.refused == ["superseded"] * 3


async def test_a_peer_that_dials_again_has_lost_the_old_connection(
    open_node: OpenNode, authority: Authority
) -> None:
    us = Self(CLUSTER, Origin("a", 1), COOKIE, authority.credentials("a"))
    async with open_node("b") as b:
        greeted = []
        for _ in range(2):
            stream = await trio.open_tcp_stream("127.0.0.1", b.port)
            greeted.append(await greet_dialed(stream, us, node="b"))
        await until(lambda: b.ended)
        assert b.ended == ["replaced"]
        link = b.links.get("a")
        assert link is not None
        assert link.down is None
        for each in greeted:
            each.pipe.close()


async def test_a_link_can_be_opened_again_after_it_ended(open_node: OpenNode) -> None:
    async with open_node("a") as a, open_node("b") as b:
        for _ in range(5):
            link = await dial(a, b)
            await link.close()
            await until(lambda: b.links.get("a") is None)
        assert b.ended == ["goodbye"] * 5


async def test_a_dial_without_a_name_finds_out_who_is_there(
    open_node: OpenNode,
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        link = await a.links.dial(None, "127.0.0.1", b.port)
        assert link.peer == Origin("b", 1)
        assert a.links.get("b") is link


@pytest.mark.parametrize(("first", "second"), ["ab", "ba"])
async def test_a_dial_without_a_name_keeps_the_link_that_is_there(
    open_node: OpenNode, first: str, second: str
) -> None:
    async with open_node(first) as one, open_node(second) as other:
        link = await dial(one, other)
        await until(other.links.all)
        assert await one.links.dial(None, "127.0.0.1", other.port) is link
        assert await other.links.dial(None, "127.0.0.1", one.port) is (
            other.links.get(first)
        )
        assert (one.ended, other.ended) == ([], [])


async def test_a_node_that_dials_itself_is_told_so(open_node: OpenNode) -> None:
    async with open_node("a") as a:
        with pytest.raises(LinkRefusedError, match="name of this node") as caught:
            await a.links.dial(None, "127.0.0.1", a.port)
    assert (caught.value.peer, caught.value.reason) == ("a", "wrong_name")


async def test_a_dial_without_a_name_that_fails_names_the_address(
    open_node: OpenNode,
) -> None:
    async with open_node("a") as a, open_node("b") as b:
        port = b.port
    with pytest.raises(LinkRefusedError) as caught:
        async with open_node("a") as a:
            await a.links.dial(None, "127.0.0.1", port)
    assert (caught.value.peer, caught.value.reason) == (
        f"127.0.0.1:{port}",
        "unreachable",
    )


async def test_a_link_that_ends_before_it_runs_leaves_nothing_that_runs(
    open_node: OpenNode, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    def end(event: LinkEvent) -> None:
        # As another connection that takes its place does.
        if isinstance(event, LinkUp):
            event.link.end(Reason.REPLACED, "at once")

    options = LinkOptions(
        CLUSTER,
        Origin("a", 1),
        COOKIE,
        authority.credentials("a"),
        heartbeat_interval_s=0.01,
    )
    async with open_node("b") as b, open_links(options, observer=end) as links:
        link = await links.dial("b", "127.0.0.1", b.port)
        assert link.down is not None
        await until(lambda: not links._nursery.child_tasks)
        assert links.all() == ()
    assert caplog.text == ""
