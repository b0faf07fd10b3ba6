"""Nodes meet, know of each other, and part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster import (
    ClusterOptions,
    FileSeeds,
    MemberRow,
    PeerDown,
    PeerUp,
    open_cluster,
)
from atomr.errors import (
    ClusterTimeoutError,
    LinkDownError,
    NoNodeError,
    StartError,
    SupersededError,
)
from atomr.gossip.membership import Status
from atomr.testing import open_test_node
from tests.atomr.cluster.members.conftest import (
    WITHIN_S,
    status,
    told,
    watched,
)
from tests.atomr.http2.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.atomr.cluster.members.conftest import OpenMember
    from tests.atomr.http2.conftest import Authority

ALIVE, SUSPECT, DEAD, LEFT = Status


async def test_three_nodes_meet_by_one_seed(open_member: OpenMember) -> None:
    async with (
        open_member("b") as b,
        open_member("a", b.address) as a,
        open_member("c", b.address) as c,
    ):
        every = (a, b, c)
        for node in every:
            await node.wait_for(3, timeout_s=WITHIN_S)
            others = tuple(o.origin for o in every if o is not node)
            assert node.peers.all() == others
            assert node.peers.get(others[0].name) == others[0]
            rows = tuple(
                MemberRow(o.origin.name, o.origin.boot, o.address, ALIVE) for o in every
            )
            # Somebody may be held suspect for a moment, on a busy machine.
            await until(partial(_equal, node.members, rows))


def _equal(look: Callable[[], object], wanted: object) -> bool:
    return look() == wanted


async def test_a_node_that_leaves_is_seen_to_have_left_at_once_by_all(
    open_member: OpenMember,
) -> None:
    async with open_member("b") as b, open_member("a", b.address) as a:
        with watched(a) as at_a, watched(b) as at_b:
            async with open_member("c", b.address) as c:
                for node in (a, b, c):
                    await node.wait_for(3, timeout_s=WITHIN_S)
                gone = c.origin
            await until(lambda: (at_a[-1], at_b[-1]) == (PeerDown(gone, "left"),) * 2)
        assert (status(a, "c"), status(b, "c")) == (LEFT, LEFT)
        assert (a.peers.all(), b.peers.all()) == ((b.origin,), (a.origin,))
        assert a.peers.link(gone) is None


async def test_a_node_that_is_cancelled_is_missed_at_once(
    open_member: OpenMember,
) -> None:
    async with open_member("a") as a:
        with watched(a) as events:
            with trio.CancelScope() as scope:
                async with open_member("b", a.address) as b:
                    await b.wait_for(2, timeout_s=WITHIN_S)
                    await a.wait_for(2, timeout_s=WITHIN_S)
                    scope.cancel()
                    await trio.sleep_forever()
            await until(lambda: len(events) == 2)
        assert told(events)[1] in [("b", "left"), ("b", "goodbye")]


async def test_a_watcher_first_hears_of_those_that_are_up(
    open_member: OpenMember,
) -> None:
    async with open_member("a") as a, open_member("b", a.address) as b:
        await a.wait_for(2, timeout_s=WITHIN_S)
        known: list[str] = []
        with (
            watched(a) as events,
            a.peers.watch_members(lambda change: known.append(change.after.name)),
        ):
            assert events == [PeerUp(b.origin)]
            assert sorted(known) == ["a", "b"]
        async with open_member("c", a.address) as c:
            await c.wait_for(2, timeout_s=WITHIN_S)
            await a.wait_for(3, timeout_s=WITHIN_S)
        # It has left its block, and hears no more.
        assert events == [PeerUp(b.origin)]


async def test_a_watcher_that_raises_is_logged_and_harms_nobody(
    open_member: OpenMember, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with open_member("a") as a:
        with a.peers.watch(fail), watched(a) as events:
            async with open_member("b", a.address) as b:
                await b.wait_for(2, timeout_s=WITHIN_S)
                await until(lambda: len(events) == 1)
    assert "a watcher of peers failed on PeerUp" in caplog.text


async def test_a_restarted_node_is_another_peer(
    open_member: OpenMember, unused_port: int
) -> None:
    at = f"127.0.0.1:{unused_port}"
    async with open_member("a") as a:
        with watched(a) as events:
            async with open_member("b", a.address, listen=at) as b:
                await a.wait_for(2, timeout_s=WITHIN_S)
                first = b.origin
            async with open_member("b", a.address, listen=at) as b:
                await b.wait_for(2, timeout_s=WITHIN_S)
                await until(lambda: len(events) == 3)
                second = b.origin
                assert first < second
                assert a.peers.all() == (second,)
                assert a.peers.link(first) is None
                assert a.peers.link(second) is not None
                assert events == [
                    PeerUp(first),
                    PeerDown(first, "left"),
                    PeerUp(second),
                ]


async def test_seeds_that_are_written_later_are_found(
    open_member: OpenMember, tmp_path: Path
) -> None:
    file = tmp_path / "seeds"
    seeds = [FileSeeds(file, interval_s=0.05)]
    async with open_member("a", discovery=seeds) as a, open_member("b") as b:
        with pytest.raises(ClusterTimeoutError):
            await a.wait_for(2, timeout_s=0.1)
        # It is there already: no time is needed.
        await a.wait_for(1, timeout_s=0.0)
        file.write_text(f"# where they are\n{b.address}\n", encoding="utf-8")
        await a.wait_for(2, timeout_s=WITHIN_S)


async def test_a_seed_that_comes_up_later_is_found(
    open_member: OpenMember, unused_port: int
) -> None:
    seed = f"127.0.0.1:{unused_port}"
    async with open_member("a", seed) as a:
        with pytest.raises(ClusterTimeoutError):
            await a.wait_for(2, timeout_s=0.1)
        async with open_member("b", listen=seed):
            await a.wait_for(2, timeout_s=WITHIN_S)


async def test_a_seed_that_is_the_node_itself_does_no_harm(
    open_member: OpenMember, unused_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    # Another name for its own address, as that of a headless service is.
    alias, at = f"localhost:{unused_port}", f"127.0.0.1:{unused_port}"
    async with open_member("a", alias, listen=at) as a:
        book = a._station.switchboard._book
        await until(lambda: book.whom(alias, trio.current_time()) == ("a",))
        assert a.peers.all() == ()
        async with open_member("b", at) as b:
            await b.wait_for(2, timeout_s=WITHIN_S)
    assert "cannot reach" not in caplog.text


async def test_wait_for_says_who_is_missing(open_member: OpenMember) -> None:
    async with open_member("a") as a:
        with pytest.raises(ClusterTimeoutError) as caught:
            await a.wait_for(3, timeout_s=0.01)
        assert str(caught.value) == "wait_for(3): 1 nodes up within 0.01 s: a"
        await a.wait_for(1, timeout_s=0.01)


# --- who may not ----------------------------------------------------------------------


async def test_a_node_of_another_cluster_is_refused_and_it_is_said_once(
    open_member: OpenMember,
    unreachable: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        open_member("a") as a,
        open_member("b", a.address, cluster="other") as b,
    ):
        await until(lambda: len(unreachable) >= 3)
        assert (a.peers.all(), b.peers.all()) == ((), ())
        assert [row.name for row in a.members()] == ["a"]
        assert [row.name for row in b.members()] == ["b"]
    said = [r.getMessage() for r in caplog.records if r.name == "atomr.cluster"]
    assert set(unreachable) == {"wrong_cluster"}
    [told] = said
    assert told.startswith(f"cannot reach {a.address} (wrong_cluster): ")


async def test_a_node_with_another_cookie_is_refused(
    open_member: OpenMember, unreachable: list[str]
) -> None:
    cookie = b"something else than that"
    async with open_member("a") as a, open_member("b", a.address, cookie=cookie):
        await until(lambda: len(unreachable) >= 2)
        assert set(unreachable) == {"wrong_cookie"}
        assert a.peers.all() == ()


async def test_of_two_processes_with_one_name_the_later_one_stays(
    open_member: OpenMember,
) -> None:
    async with open_member("b") as b, trio.open_nursery() as nursery:
        began = trio.Event()
        error: list[SupersededError] = []

        async def first() -> None:
            with pytest.raises(SupersededError) as caught:
                async with open_member("a", b.address) as a:
                    await a.wait_for(2, timeout_s=WITHIN_S)
                    began.set()
                    await trio.sleep_forever()
            error.append(caught.value)

        nursery.start_soon(first)
        await until(began.is_set)
        async with open_member("a", b.address) as a:
            await until(lambda: error)
            await until(lambda: b.peers.all() == (a.origin,))
            assert error[0].by == a.origin
            assert error[0].origin.name == "a"  # type: ignore[attr-defined]
            await a.wait_for(2, timeout_s=WITHIN_S)
    assert "another process has its name" in str(error[0])


async def test_a_superseded_node_does_not_hide_the_error_of_its_own_body(
    open_member: OpenMember,
) -> None:
    async with open_member("a") as a:
        with pytest.raises(ZeroDivisionError):
            async with open_member("b", a.address) as b:
                b._station.fail(SupersededError(b.origin, b.origin))
                raise ZeroDivisionError


# --- how it begins and ends -----------------------------------------------------------


async def test_nothing_is_left_behind(
    options: Callable[..., ClusterOptions], open_member: OpenMember
) -> None:
    async with open_member("b") as b, open_test_node() as test:
        async with open_cluster(options("a", b.address)) as a:
            await a.wait_for(2, timeout_s=WITHIN_S)
        assert test.node.size == 0


async def test_a_cluster_needs_a_node(options: Callable[..., ClusterOptions]) -> None:
    with pytest.raises(NoNodeError):
        async with open_cluster(options("a")):
            pass


async def test_an_address_in_use_is_told_of(open_member: OpenMember) -> None:
    async with open_member("a") as a:
        with pytest.raises(StartError) as caught:
            async with open_member("b", listen=a.address):
                pass
        said = f"listen='{a.address}': Address already in use; stop what listens there"
        assert said in str(caught.value)


async def test_what_the_body_raises_comes_out_as_it_is(open_member: OpenMember) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_member("a"):
            raise ZeroDivisionError


async def test_a_tell_or_call_to_who_is_not_up_is_refused(
    open_member: OpenMember,
) -> None:
    async with open_member("a") as a:
        async with open_member("b", a.address) as b:
            await a.wait_for(2, timeout_s=WITHIN_S)
            gone = b.origin
        await until(lambda: not a.peers.all())
        assert a.peers.tell(gone, "anything", None) is False
        assert a._station.switchboard.peers.refused == 1
        with pytest.raises(LinkDownError, match="no link with that life"):
            await a.peers.call(gone, "anything", None, returns=int)


async def test_certificates_are_changed_while_links_are_up(
    open_member: OpenMember, authority: Authority
) -> None:
    async with open_member("a") as a, open_member("b", a.address) as b:
        await a.wait_for(2, timeout_s=WITHIN_S)
        link = a.peers.link(b.origin)
        fresh = authority.credentials("a", days=30)
        a.reload(fresh)
        assert a._station.links is not None
        assert a._station.links._credentials is fresh
        with pytest.raises(ValueError, match=r"expected.*node:test/a alone, .*test/x;"):
            a.reload(authority.credentials("x"))
        assert a._station.links._credentials is fresh
        assert a.peers.link(b.origin) is link
        async with open_member("c", a.address) as c:
            await c.wait_for(3, timeout_s=WITHIN_S)
