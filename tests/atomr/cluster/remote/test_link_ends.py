"""What becomes of processes of another node when the link with it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster.peers import PeerUp
from atomr.cluster.remote import RemoteProcesses, at
from atomr.core.child_spec import Restart
from atomr.core.exits import NOCONNECTION, NOPROC
from atomr.core.messages import Down, Exit
from atomr.crdt.origin import Origin
from atomr.errors import NoConnectionError, NoProcessError, ServerDownError
from atomr.otp import call, cast, child
from atomr.process import (
    PlainProcess,
    demonitor,
    is_alive,
    link,
    monitor,
    receive,
    register,
    send,
    stop,
    trap_exit,
    unregister,
    wait_exit,
)
from tests.atomr.cluster.loopback import open_loopback
from tests.atomr.cluster.remote.servers import (
    MESSAGES,
    Add,
    Counter,
    Get,
    Give,
    Later,
    Waiter,
)
from tests.atomr.http2.conftest import until

if TYPE_CHECKING:
    from atomr.refs import Pid
    from tests.atomr.cluster.remote.conftest import Nodes, OpenNodes
    from tests.atomr.http2.conftest import Authority


async def counter_on(nodes: Nodes, name: str = "b") -> Pid:
    """Start a counter on a node; return its pid as node ``a`` sees it."""
    pid = await nodes[name].node.start(
        child(Counter, name="counter", restart=Restart.TEMPORARY)
    )
    return nodes.remotes["a"].life(nodes[name].origin).pid(pid.number)


async def test_the_end_of_the_link_is_the_end_of_all_that_waits(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def wait() -> None:
            trap_exit(True)
            ref = monitor(counter)
            by_name = monitor(at("b", "counter"))
            link(counter)
            register("alias", counter)
            ends: list[object] = []

            async def until_exit() -> None:
                ends.append(await wait_exit(counter))

            async def ask() -> None:
                with pytest.raises(ServerDownError) as caught:
                    await call(counter, Give("nothing, ever"))
                ends.append(caught.value.reason)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_exit)
                nursery.start_soon(ask)
                await call(counter, Get())
                nodes["a"].cut(nodes["b"])
            assert ends == [NOCONNECTION, NOCONNECTION]
            found = {type(m).__name__: m for m in [await receive(), await receive()]}
            assert found["Exit"] == Exit(counter, NOCONNECTION)
            downs = [found["Down"], await receive()]
            assert Down(ref, counter, NOCONNECTION) in downs
            assert by_name in [d.ref for d in downs if isinstance(d, Down)]
            with pytest.raises(NoProcessError):
                await call("alias", Get())

        with trio.fail_after(10):
            await nodes["a"].run(wait)


async def test_both_sides_of_a_link_between_processes_hear_of_it(
    open_nodes: OpenNodes,
) -> None:
    heard: list[object] = []

    async def trapping() -> None:
        trap_exit(True)
        heard.append(await receive())

    async with open_nodes("a", "b") as nodes:
        node = nodes["b"].node
        there = node.spawn(PlainProcess(trapping), label="there", name=None)
        seen = nodes.remotes["a"].life(nodes["b"].origin).pid(there.number)

        async def linked() -> None:
            trap_exit(True)
            link(seen)
            monitor(seen)
            # What comes back says that all before it was handled.
            monitor(at("b", "nobody"))
            assert getattr(await receive(), "reason") is NOPROC  # noqa: B009
            nodes["b"].cut(nodes["a"])
            for _ in range(2):
                assert getattr(await receive(), "reason") is NOCONNECTION  # noqa: B009

        with trio.fail_after(10):
            await nodes["a"].run(linked)
            await until(lambda: heard)
        (exit_,) = heard
        assert isinstance(exit_, Exit)
        assert exit_.reason is NOCONNECTION


async def test_out_of_reach_a_pid_is_told_of_as_such(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def away() -> None:
            await call(counter, Get())
            nodes["a"].cut(nodes["b"])
            trap_exit(True)
            with pytest.raises(NoConnectionError, match="no link with its node"):
                await call(counter, Get())
            with pytest.raises(NoConnectionError):
                await call(at("b", "counter"), Get())
            with pytest.raises(NoConnectionError):
                await call(at("never-seen", "counter"), Get())
            ref = monitor(counter)
            assert await receive() == Down(ref, counter, NOCONNECTION)
            link(counter)
            assert await receive() == Exit(counter, NOCONNECTION)
            assert await wait_exit(counter) is NOCONNECTION
            await stop(counter)
            send(counter, 1)
            cast(counter, 2)

        with trio.fail_after(10):
            await nodes["a"].run(away)
        assert nodes.remotes["a"].dropped == {"no_connection": 2}


async def test_a_pid_is_good_again_when_the_link_has_come_back(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def again() -> None:
            await call(counter, Add(1))
            first = monitor(counter)
            nodes["a"].cut(nodes["b"])
            assert await receive() == Down(first, counter, NOCONNECTION)
            await until(lambda: nodes["b"].links.get("a") is None)
            await nodes["a"].dial(nodes["b"])

            assert await call(counter, Add(1)) == 2
            assert await call(at("b", "counter"), Get()) == 2
            second = monitor(counter)
            cast(counter, Add(1))
            await stop(counter)
            down = await receive()
            assert isinstance(down, Down)
            assert (down.ref, down.pid) == (second, counter)
            assert down.reason is not NOCONNECTION

        with trio.fail_after(10):
            await nodes["a"].run(again)


async def test_what_was_waited_for_before_is_not_waited_for_on_the_new_link(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def watch() -> None:
            monitor(counter)
            await call(counter, Get())
            nodes["a"].cut(nodes["b"])
            await receive()
            await until(lambda: nodes["b"].links.get("a") is None)
            await nodes["a"].dial(nodes["b"])
            await call(counter, Get())

        with trio.fail_after(10):
            await nodes["a"].run(watch)
        session = nodes.remotes["b"].life(nodes["a"].origin).session
        assert session is not None
        assert (session.watched, session.answering) == ({}, {})


async def test_processes_of_an_earlier_life_stay_dead(authority: Authority) -> None:
    ours, theirs = RemoteProcesses(MESSAGES), RemoteProcesses(MESSAGES)
    async with open_loopback(authority, "a", [ours]) as a:
        async with open_loopback(authority, "b", [theirs], boot=1) as b:
            await a.dial(b)
            number = (await b.node.start(child(Counter, name="counter"))).number
            old = ours.life(b.origin).pid(number)
            assert await a.run(call, old, Add(1)) == 1
        again = RemoteProcesses(MESSAGES)
        async with open_loopback(authority, "b", [again], boot=2) as b:
            await a.dial(b)
            new = await b.node.start(
                child(Counter, name="counter", restart=Restart.TEMPORARY)
            )
            assert new.number == number

            async def ask() -> None:
                assert not is_alive(old)
                with pytest.raises(NoProcessError):
                    await call(old, Add(1))
                ref = monitor(old)
                assert await receive() == Down(ref, old, NOPROC)
                assert await call(at("b", "counter"), Add(5)) == 5
                # However the pid comes again: the other node had it all the time.
                assert await call(at("b", "counter"), [old]) == [old]

            with trio.fail_after(10):
                await a.run(ask)
            assert ours.life(old.life.origin).over


async def test_a_pid_of_this_nodes_own_earlier_life_is_dead(
    authority: Authority,
) -> None:
    remote = RemoteProcesses(MESSAGES)
    async with open_loopback(authority, "a", [remote], boot=7) as a:
        old = remote.pid_of(Origin("a", 6), 5)

        async def ask() -> None:
            with pytest.raises(NoProcessError) as caught:
                await call(old, Add(1))
            assert type(caught.value) is NoProcessError
            ref = monitor(old)
            assert await receive() == Down(ref, old, NOPROC)

        with trio.fail_after(10):
            await a.run(ask)


async def test_a_cut_in_the_midst_of_calls_fails_each_of_them_once(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(child(Waiter, name="waiter"))
        found: list[object] = []

        async def one() -> None:
            try:
                found.append(await call(at("b", "waiter"), Later(0.0), timeout_s=5))
            except ServerDownError as error:
                found.append(error.reason)

        async def ask() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(one)
                await call(at("b", "waiter"), "first")
                nodes["b"].cut(nodes["a"])

        with trio.fail_after(10):
            await nodes["a"].run(ask)
        assert len(found) == 200
        assert set(found) <= {0.0, NOCONNECTION}
        assert NOCONNECTION in found


async def test_a_later_life_ends_what_is_left_of_an_earlier_one(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def watch() -> None:
            ref = monitor(counter)
            await call(counter, Get())
            later = Origin("b", nodes["b"].origin.boot + 1)
            nodes.remotes["a"]._on_peer(PeerUp(later))
            assert await receive() == Down(ref, counter, NOCONNECTION)
            assert nodes["a"].links.get("b") is None
            with pytest.raises(NoProcessError):
                await call(counter, Get())

        with trio.fail_after(10):
            await nodes["a"].run(watch)


async def test_the_other_node_watches_only_while_somebody_waits(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        counter = await counter_on(nodes)

        async def watched() -> int:
            # It is asked last, and so answers behind all else.
            await call(counter, Get())
            there = nodes.remotes["b"].life(nodes["a"].origin).session
            here = nodes.remotes["a"].life(nodes["b"].origin).session
            assert there is not None
            assert here is not None
            assert there.watched.keys() == here.watches.keys()
            return len(there.watched)

        async def wait() -> None:
            first, second = monitor(counter), monitor(counter)
            assert await watched() == 1
            demonitor(first)
            assert await watched() == 1
            demonitor(second)
            assert await watched() == 0
            register("alias", counter)
            assert await watched() == 1
            unregister("alias")
            assert await watched() == 0
            with trio.move_on_after(0.02):
                await wait_exit(counter)
            assert await watched() == 0

        with trio.fail_after(10):
            await nodes["a"].run(wait)
        process = nodes["b"].node.names["counter"]
        assert not process.on_end
