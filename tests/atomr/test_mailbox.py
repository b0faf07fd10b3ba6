"""Plain processes: mailbox, selective receive, names, timers, threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.messages import Down
from atomr.errors import (
    NameTakenError,
    NoNodeError,
    NotAProcessError,
    ReceiveTimeoutError,
)
from atomr.process import (
    Node,
    call,
    cancel_timer,
    current_node,
    demonitor,
    is_alive,
    kill,
    monitor,
    open_node,
    receive,
    register,
    self_pid,
    send,
    send_after,
    send_from_thread,
    spawn,
    unregister,
    wait_exit,
    whereis,
)

if TYPE_CHECKING:
    from atomr.refs import Pid

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


async def sleeper() -> None:
    await trio.sleep_forever()


async def test_messages_of_one_sender_arrive_in_order(
    clean_node: CleanNode, schedule: int
) -> None:
    got: list[object] = []

    async def collect() -> None:
        for _ in range(1000):
            got.append(await receive())

    async with clean_node():
        pid = spawn(collect)
        for number in range(1000):
            send(pid, number)
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
        await wait_exit(pid)

    assert got == list(range(1000))


async def test_selective_receive_takes_the_oldest_match_and_keeps_the_rest(
    clean_node: CleanNode, schedule: int
) -> None:
    got: list[object] = []

    async def choose() -> None:
        got.append(await receive(lambda m: m == 5))
        got.append(await receive(lambda m: m == "late"))
        got.extend([await receive() for _ in range(9)])

    async with clean_node():
        pid = spawn(choose)
        for number in range(10):
            send(pid, number)
        await trio.testing.wait_all_tasks_blocked()
        send(pid, "late")
        await wait_exit(pid)

    assert got == [5, "late", 0, 1, 2, 3, 4, 6, 7, 8, 9]


async def test_selective_receive_also_finds_what_an_earlier_receive_took_along(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []

    async def choose() -> None:
        got.append(await receive())
        got.append(await receive(lambda m: m == 2))
        got.append(await receive())

    async with clean_node():
        pid = spawn(choose)
        for number in range(3):
            send(pid, number)
        await wait_exit(pid)

    assert got == [0, 2, 1]


async def test_a_flush_by_a_helper_does_not_make_a_selective_receive_miss(
    clean_node: CleanNode,
) -> None:
    """The helper shortens the mailbox that the receive has looked through."""
    got: list[object] = []

    async def choose() -> None:
        dead = spawn(sleeper)
        ref = monitor(dead)
        kill(dead)
        await wait_exit(dead)

        async def helper() -> None:
            await trio.testing.wait_all_tasks_blocked()
            demonitor(ref, flush=True)
            send(self_pid(), "wanted")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper)
            got.append(await receive(lambda m: m == "wanted"))

    async with clean_node():
        pid = spawn(choose)
        await wait_exit(pid)

    assert got == ["wanted"]


async def test_receive_gives_up_after_its_timeout_and_takes_nothing(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []

    async def choose() -> None:
        began = trio.current_time()
        with pytest.raises(ReceiveTimeoutError) as caught:
            await receive(lambda m: m == "never", timeout_s=2.5)
        got.append((trio.current_time() - began, str(caught.value)))
        got.append(await receive(timeout_s=1.0))
        with pytest.raises(ReceiveTimeoutError):
            await receive(timeout_s=0.0)

    async with clean_node():
        pid = spawn(choose)
        send(pid, "other")
        await wait_exit(pid)

    assert got == [
        (2.5, "receive(): no matching message within 2.5 s"),
        "other",
    ]


async def test_a_full_mailbox_does_not_stop_other_tasks(clean_node: CleanNode) -> None:
    ticks = 0

    async def drain() -> None:
        for _ in range(10_000):
            await receive()

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async with clean_node():
        pid = spawn(drain)
        for number in range(10_000):
            send(pid, number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await wait_exit(pid)
            nursery.cancel_scope.cancel()

    assert ticks >= 10_000 // 256 - 1


async def test_only_a_process_own_task_can_receive(clean_node: CleanNode) -> None:
    async def with_helper() -> None:
        async def helper() -> None:
            assert self_pid() is pid
            with pytest.raises(NotAProcessError, match="only a process' own task"):
                await receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper)

    async with clean_node():
        with pytest.raises(NotAProcessError):
            await receive()
        pid = spawn(with_helper)
        await wait_exit(pid)


async def test_sending_to_the_dead_and_to_unknown_names_does_nothing(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        pid = spawn(sleeper)
        kill(pid)
        await wait_exit(pid)
        send(pid, "x")
        send("nobody", "x")
        send_from_thread(pid, "x")
        node.send_from_thread("nobody", "x")
        assert (is_alive(pid), repr(pid)) == (False, "<Pid 1 sleeper>")


async def test_a_thread_can_send(clean_node: CleanNode) -> None:
    got: list[object] = []

    async def collect() -> None:
        got.extend([await receive(), await receive()])

    async with clean_node() as node:
        pid = spawn(collect, name="collector")

        def in_thread() -> None:
            send_from_thread(pid, 1)
            node.send_from_thread("collector", 2)

        await trio.to_thread.run_sync(in_thread)
        await wait_exit(pid)

    assert got == [1, 2]


def test_a_thread_that_sends_after_the_end_of_the_run_does_not_fail() -> None:
    async def main() -> Node:
        async with open_node() as node:
            return node

    trio.run(main).send_from_thread("anybody", 1)


async def test_a_name_belongs_to_one_process_and_is_free_after_its_end(
    clean_node: CleanNode,
) -> None:
    async with clean_node():
        first = spawn(sleeper, name="it")
        with pytest.raises(NameTakenError) as caught:
            spawn(sleeper, name="it")
        assert (caught.value.name, caught.value.pid) == ("it", first)
        assert whereis("it") is first
        kill(first)
        await wait_exit(first)
        assert whereis("it") is None
        second = spawn(sleeper, name="it")
        register("alias", second)
        register("alias", second)
        assert (whereis("it"), whereis("alias")) == (second, second)
        assert (unregister("it"), unregister("it")) == (True, False)
        assert (whereis("it"), whereis("alias")) == (None, second)


async def test_the_name_is_free_before_anybody_hears_of_the_end(
    clean_node: CleanNode, schedule: int
) -> None:
    seen: list[object] = []

    async def watch(pid: Pid) -> None:
        monitor(pid)
        register("watching")
        message = await receive()
        assert isinstance(message, Down)
        seen.append(whereis("it"))
        register("it")

    async with clean_node():
        pid = spawn(sleeper, name="it")
        watcher = spawn(watch, pid)
        await trio.testing.wait_all_tasks_blocked()
        kill(pid)
        await wait_exit(watcher)

    assert seen == [None]


async def test_the_dead_and_those_outside_get_no_name(clean_node: CleanNode) -> None:
    async with clean_node():
        pid = spawn(sleeper)
        kill(pid)
        await wait_exit(pid)
        with pytest.raises(NotAProcessError, match="has ended"):
            register("it", pid)
        with pytest.raises(NotAProcessError, match="is no process"):
            register("it")


async def test_a_timer_sends_after_its_delay(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []

    async def collect() -> None:
        began = trio.current_time()
        for _ in range(3):
            message = await receive()
            got.append((message, trio.current_time() - began))

    async with clean_node():
        pid = spawn(collect, name="collector")
        send_after(3.0, pid, "third")
        send_after(1.0, pid, "first")
        send_after(2.0, "collector", "second")
        send_after(0.5, "nobody", "dropped")
        await wait_exit(pid)

    assert got == [("first", 1.0), ("second", 2.0), ("third", 3.0)]


async def test_a_cancelled_timer_sends_nothing(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def quiet() -> None:
        with pytest.raises(ReceiveTimeoutError):
            await receive(timeout_s=5.0)

    async with clean_node():
        pid = spawn(quiet)
        timer = send_after(1.0, pid, "x")
        assert (cancel_timer(timer), cancel_timer(timer)) == (True, False)
        await wait_exit(pid)
        assert cancel_timer(send_after(1.0, pid, "x")) is False


async def test_a_timer_is_disarmed_when_its_target_ends(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async with clean_node() as node:
        pid = spawn(sleeper)
        timer = send_after(1000.0, pid, "x")
        assert node.timers.size == 1
        kill(pid)
        await wait_exit(pid)
        assert (node.timers.size, timer.cancel()) == (0, False)


async def test_many_cancelled_timers_do_not_pile_up(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = spawn(sleeper)
        for _ in range(10_000):
            send_after(1000.0, pid, "x").cancel()
        assert len(node.timers._heap) <= 65


async def test_outside_a_node_names_and_spawn_say_so() -> None:
    for use in (current_node, lambda: whereis("x"), lambda: spawn(sleeper)):
        with pytest.raises(NoNodeError, match="outside open_node"):
            use()
    with pytest.raises(NoNodeError):
        await call("x", "y")
