"""Names on all nodes, pids that come by way of a third, nodes that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from atomr.cluster.remote import (
    NodeDown,
    NodeUp,
    RemoteProcesses,
    at,
    demonitor_node,
    everywhere,
    monitor_node,
)
from atomr.core.child_spec import ChildSpec, Restart
from atomr.core.exits import KILL, KILLED, NOCONNECTION, NORMAL
from atomr.core.messages import Down, Exit
from atomr.errors import (
    CallTimeoutError,
    NoProcessError,
    NotAProcessError,
    ServerDownError,
    StartError,
)
from atomr.otp import Registry, abcast, call, cast, child, multi_call
from atomr.otp.registry import RegistryRef
from atomr.process import (
    kill,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send,
    send_from_thread,
    stop,
    trap_exit,
    wait_exit,
)
from atomr.process.context import find_process
from atomr.refs import Pid
from tests.atomr.cluster.loopback import open_loopback
from tests.atomr.cluster.remote.servers import MESSAGES, Add, Counter, Get, Give
from tests.atomr.http2.conftest import until

if TYPE_CHECKING:
    from tests.atomr.cluster.remote.conftest import Nodes, OpenNodes
    from tests.atomr.http2.conftest import Authority


def counter() -> ChildSpec:
    return child(Counter, name="counter", restart=Restart.TEMPORARY)


async def start_all(nodes: Nodes) -> None:
    for node in nodes.by_name.values():
        await node.node.start(counter())


async def test_a_name_on_all_nodes_is_asked_and_told_at_once(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b", "c") as nodes:
        await start_all(nodes)
        await nodes["c"].run(stop, "counter")

        async def ask() -> dict[str, object]:
            servers = everywhere("counter")
            abcast(servers, Add(2))
            found = await multi_call(servers, Add(1))
            got: dict[str, object] = {str(k): v for k, v in found.replies.items()}
            got.update((str(k), type(v).__name__) for k, v in found.failures.items())
            return got

        assert await nodes["b"].run(ask) == {
            "counter@b": 3,
            "counter@a": 3,
            "counter@c": "NoProcessError",
        }


async def test_a_name_is_looked_up_at_each_use(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(counter())

        async def ask() -> None:
            there = at("b", "counter")
            assert await call(there, Add(1)) == 1
            first = monitor(there)
            kill(there)
            down = await receive()
            assert isinstance(down, Down)
            assert (down.ref, down.reason) == (first, KILLED)
            assert repr(down.pid) == "<Pid counter counter@b>"
            await nodes["b"].node.start(counter())
            second = monitor(there)
            assert await call(there, Add(1)) == 1
            await stop(there)
            assert await receive() == Down(second, down.pid, NORMAL)

        with trio.fail_after(10):
            await nodes["a"].run(ask)


async def test_a_name_of_ones_own_node_is_one_as_any_other(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a") as nodes:
        pid = await nodes["a"].node.start(counter())
        with nodes["a"].here():
            assert at("a", "counter").whereis() is pid
            assert at("a", "nobody").whereis() is None


async def test_names_are_given_on_their_own_node(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        pid = await nodes["a"].node.start(counter())
        with pytest.raises(ValueError, match="names on a node are given there"):
            at("b", "counter").register(pid)
        spec = child(Counter, name=at("b", "counter"))
        with nodes["a"].here(), pytest.raises(StartError):
            await nodes["a"].node.start(spec)


async def test_a_link_with_a_name_is_refused_whole(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(counter())

        async def linked() -> object:
            there = at("b", "counter")
            await call(there, Get())
            with pytest.raises(TypeError, match="link with a pid"):
                link(there)
            kill(there)
            ref = monitor(there)
            return (await receive(lambda m: getattr(m, "ref", None) is ref)) is not None

        assert await nodes["a"].run(linked)


async def test_a_pid_that_came_by_way_of_a_third_node_is_as_good(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b", "c") as nodes:
        await start_all(nodes)
        seen: list[Pid] = []

        async def hand_on() -> None:
            pid = await receive()
            assert isinstance(pid, Pid)
            seen.append(pid)
            trap_exit(True)
            link(pid)
            assert await call(pid, Add(7)) == 7
            kill(pid)
            assert await receive() == Exit(pid, KILLED)

        c = nodes["c"].node.names["counter"].pid
        as_a_sees = nodes.remotes["a"].life(nodes["c"].origin).pid(c.number, c.label)

        async def b_takes() -> None:
            register("taker")
            await hand_on()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes["b"].run, b_takes)
            await until(lambda: "taker" in nodes["b"].node.names)

            async def give() -> None:
                send(at("b", "taker"), as_a_sees)

            await nodes["a"].run(give)
        assert [repr(pid) for pid in seen] == [f"<Pid {c.number} Counter@c>"]


async def test_a_registry_drops_its_entry_with_a_process_of_another_node(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        pid = await nodes["b"].node.start(counter())
        await nodes["a"].node.start(child(Registry, name="rooms"))
        seen = nodes.remotes["a"].life(nodes["b"].origin).pid(pid.number)
        rooms: RegistryRef[str, int] = RegistryRef("rooms")

        async def use() -> None:
            rooms.via("lobby").register(seen)
            assert rooms.whereis("lobby") is seen
            assert await call(rooms.via("lobby"), Add(2)) == 2
            ref = monitor(seen)
            kill(rooms.via("lobby"))
            assert await receive() == Down(ref, seen, KILLED)
            assert rooms.whereis("lobby") is None

        with trio.fail_after(10):
            await nodes["a"].run(use)


async def test_who_watches_nodes_is_told_of_each_change(authority: Authority) -> None:
    remote = RemoteProcesses(MESSAGES)
    async with (
        open_loopback(authority, "a", [remote]) as a,
        open_loopback(authority, "b") as first,
    ):

        async def watch() -> None:
            ref, named, all_ = (
                monitor_node("b"),
                monitor_node("nobody"),
                monitor_node(),
            )
            assert await receive() == NodeDown(ref, "b", None, "unknown")
            assert await receive() == NodeDown(named, "nobody", None, "unknown")
            await a.dial(first)
            up = [await receive(), await receive()]
            assert up == [NodeUp(ref, first.origin), NodeUp(all_, first.origin)]
            again = monitor_node("b")
            assert await receive() == NodeUp(again, first.origin)
            assert demonitor_node(again)
            assert not demonitor_node(again)
            a.cut(first)
            downs = [await receive(), await receive()]
            assert downs == [
                NodeDown(ref, "b", first.origin, "broken"),
                NodeDown(all_, "b", first.origin, "broken"),
            ]
            send(self_pid(), "nothing else")
            assert await receive() == "nothing else"

        with trio.fail_after(10):
            await a.run(watch)
        assert len(remote.monitors) == 0


async def test_only_a_process_can_watch_nodes(open_nodes: OpenNodes) -> None:
    async with open_nodes("a") as nodes:
        with nodes["a"].here(), pytest.raises(NotAProcessError):
            monitor_node()


async def test_a_cast_to_all_nodes_reaches_those_that_are_up(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b", "c") as nodes:
        await start_all(nodes)
        nodes["a"].cut(nodes["c"])

        async def tell() -> None:
            servers = everywhere("counter")
            assert servers == (at("a", "counter"), at("b", "counter"))
            for server in servers:
                cast(server, Add(1))
            assert await call(servers[1], Get()) == 1

        await nodes["a"].run(tell)


async def test_a_name_here_can_lead_to_a_process_of_a_third_node(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b", "c") as nodes:
        pid = await nodes["c"].node.start(counter())

        async def give_name() -> None:
            seen = nodes.remotes["b"].life(nodes["c"].origin).pid(pid.number)
            register("alias", seen)

        async def ask() -> None:
            there = at("b", "alias")
            assert await call(there, Add(3)) == 3
            # Nobody at c could answer it there: it is of neither b nor c.
            assert await call(there, Give("caller")) is None
            with pytest.raises(CallTimeoutError):
                await call(there, Give("nothing"), timeout_s=0.02)
            ref = monitor(there)
            kill(there)
            down = await receive()
            assert isinstance(down, Down)
            assert (down.ref, down.reason) == (ref, KILLED)
            with pytest.raises(NoProcessError):
                await call(there, Get())

        await nodes["b"].run(give_name)
        with trio.fail_after(10):
            await nodes["a"].run(ask)
        back = nodes.remotes["c"].life(nodes["b"].origin).session
        assert back is not None
        await until(lambda: not back.answering)


async def test_a_call_by_name_outlives_a_former_holder(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        await nodes["b"].node.start(counter())
        there = at("b", "counter")

        async def ask(found: list[object]) -> None:
            try:
                await call(there, Give("nothing"))
            except ServerDownError as error:
                found.append(error.reason)

        async def use() -> list[object]:
            found: list[object] = []
            ref = monitor(there)
            await call(there, Get())
            node = nodes["b"].node
            # The first holder's end is on its way while the second one is asked.
            node.names["counter"].exit_signal(KILL, None)
            await wait_exit(there)
            await node.start(counter())
            down = await receive()
            assert isinstance(down, Down)
            assert down.ref is ref
            monitor(there)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, found)
                await call(there, Get())
                here = nodes.remotes["a"].life(nodes["b"].origin).session
                assert here is not None
                proxy = next(iter(here.watches.values()))
                proxy.holder_ended(KILLED)
                assert not found
                nodes["a"].cut(nodes["b"])
            return found

        with trio.fail_after(10):
            assert await nodes["a"].run(use) == [NOCONNECTION]


async def test_a_thread_sends_to_a_process_of_another_node(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        pid = await nodes["b"].node.start(counter())

        async def use() -> object:
            seen = nodes.remotes["a"].life(nodes["b"].origin).pid(pid.number)
            life = nodes.remotes["a"].life(nodes["b"].origin)
            # The tables are the event loop's: a thread finds out the node alone.
            found = await trio.to_thread.run_sync(find_process, seen)
            assert found is not None
            assert (found.node, life.size) == (nodes["a"].node, 0)
            await trio.to_thread.run_sync(send_from_thread, seen, "from a thread")
            await until(lambda: pid._process.behaviour.notes)
            return await call(seen, Give("notes"))

        assert await nodes["a"].run(use) == ["from a thread"]
