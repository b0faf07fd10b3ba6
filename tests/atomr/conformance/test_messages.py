"""Messages of plain processes: order, selective receive, names; fairness."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.core.exits import KILLED, NORMAL
from atomr.errors import NameTakenError, NotAProcessError, ReceiveTimeoutError
from atomr.otp import Reply, call, cast, sys
from atomr.process import (
    is_alive,
    kill,
    receive,
    register,
    self_pid,
    send,
    spawn,
    stop,
    unregister,
    wait_exit,
    whereis,
)
from tests.atomr.conformance.kit import CleanNode, Kind, Log, settle, start

if TYPE_CHECKING:
    from atomr.refs import Pid

Clock = trio.testing.MockClock


async def test_messages_of_one_sender_keep_their_order(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Processes: Delivery of Signals] Of two messages from one sender to one receiver
    the first arrives first; nothing is promised across senders.
    """
    got: Log = []

    async def receiver() -> None:
        for _ in range(60):
            got.append(await receive())

    async def sender(to: Pid, who: int) -> None:
        for n in range(20):
            send(to, (who, n))
            if random.Random(who * n + schedule).random() < 0.3:
                await trio.lowlevel.checkpoint()

    async with clean_node():
        to = spawn(receiver)
        for who in range(3):
            spawn(sender, to, who)
        assert await wait_exit(to) is NORMAL
    for who in range(3):
        assert [n for by, n in got if by == who] == list(range(20))


async def test_a_selective_receive_takes_the_first_that_matches_and_keeps_the_rest(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int
) -> None:
    """[Expressions: Receive] The first message in the queue that matches is taken; all
      others stay, in order.
    [Expressions: Receive] With a time of 0 the queue is looked through once, and
      nothing is waited for.
    [Expressions: Receive] When the time passes nothing was taken.
    [Expressions: Receive] An error of the match leaves the message where it is.
    """
    order = random.Random(schedule)
    got: Log = []

    async def take_of_kind(kind: int, waiting: list[tuple[int, int]]) -> None:
        first = next((m for m in waiting if m[0] == kind), None)
        try:
            found = await receive(lambda m: m[0] == kind, timeout_s=0)  # type: ignore[index]
        except ReceiveTimeoutError:
            found = None
        else:
            waiting.remove(first)  # type: ignore[arg-type]
        assert found == first

    def bad(message: object) -> bool:
        raise KeyError(message)

    async def selective() -> None:
        waiting: list[tuple[int, int]] = []
        me = self_pid()
        for n in range(120):
            act = order.random()
            if act < 0.5 or not waiting:
                waiting.append((order.randrange(6), n))
                send(me, waiting[-1])
            elif act < 0.6:
                assert await receive() == waiting.pop(0)
            elif act < 0.7:
                with pytest.raises(KeyError):
                    await receive(bad)
            else:
                await take_of_kind(order.randrange(6), waiting)
        send(me, "end")
        began = trio.current_time()
        with pytest.raises(ReceiveTimeoutError):
            await receive(lambda m: m == "never", timeout_s=2.0)
        assert trio.current_time() - began == 2.0
        got.extend([waiting, [await receive() for _ in waiting], await receive()])

    async with clean_node():
        assert await wait_exit(spawn(selective)) is NORMAL
    assert got[0] == got[1]
    assert got[2] == "end"


async def test_names_are_held_by_one_process_and_free_after_it(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[erlang:register/2] A name that another process holds is refused, and so is one
      for the dead.
    [erlang:unregister/1] The name is free for others at once.
    [erlang:whereis/1] Tells who holds it, or nothing.
    [Processes: Registered Processes] The name is free when its process ends.
    [erlang:register/2] differs: a process may hold several names. Erlang allows one.
    [erlang:unregister/1] differs: for a name that nobody holds it returns False. Erlang
      raises badarg.
    [erlang:send/2] differs: a message to a name that nobody holds is dropped, as one to
      the dead is. Erlang raises badarg.
    """
    async with clean_node() as node:
        one, two = await start(node, kind), await start(node, kind)
        register("a", one)
        register("b", one)
        register("a", one)
        with pytest.raises(NameTakenError) as caught:
            register("a", two)
        assert (caught.value.name, caught.value.pid) == ("a", one)
        assert [unregister("a"), unregister("a"), whereis("a")] == [True, False, None]
        register("a", two)
        assert [whereis("a"), whereis("b")] == [two, one]
        kill(one)
        await settle()
        assert [whereis("b"), is_alive(one)] == [None, False]
        with pytest.raises(NotAProcessError):
            register("b", one)
        register("b", two)
        send("nobody", "dropped")


async def _ticks(into: Log) -> None:
    while True:
        into.append(None)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("what", ["cast", "info", "self"])
async def test_a_full_mailbox_starves_neither_others_nor_system_messages_nor_a_stop(
    clean_node: CleanNode, schedule: int, kind: Kind, what: str
) -> None:
    """[Processes] No process keeps others from running, whatever its mailbox holds.
    [sys] A long mailbox does not hide a system message, nor a stop.
    """
    handled = 0

    def handle() -> None:
        nonlocal handled
        handled += 1
        if what == "self":
            cast(self_pid(), handle)

    ticks: Log = []
    async with clean_node() as node, trio.open_nursery() as nursery:
        server = await start(node, kind)
        nursery.start_soon(_ticks, ticks)
        for _ in range(4000 if what != "self" else 3):
            if what == "info":
                send(server, handle)
            else:
                cast(server, handle)
        state = await sys.get_state(server)
        assert isinstance(state, kind)
        assert handled < 600
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        assert handled < 2500
        assert len(ticks) >= 3
        await stop(server)
        assert handled < 3000
        nursery.cancel_scope.cancel()


async def test_a_full_mailbox_does_not_hold_up_a_cancellation(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Process.exit/2] A signal ends a process that is never idle within its next
    messages.
    """
    handled: Log = []

    def handle() -> None:
        handled.append(None)
        cast(self_pid(), handle)

    async with clean_node() as node:
        server = await start(node, kind)
        cast(server, handle)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        process = node.processes[server.number]
        kill(server)
        before = len(handled)
        await wait_exit(server)
        assert process.reason is KILLED
        assert len(handled) - before <= 256


async def test_a_loop_of_calls_lets_others_run_and_can_be_cancelled(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[Processes] A process that calls without end keeps nobody from running."""
    ticks: Log = []
    async with clean_node() as node, trio.open_nursery() as nursery:
        server = await start(node, kind)
        nursery.start_soon(_ticks, ticks)
        for _ in range(1100):
            await call(server, Reply(1))
        assert len(ticks) >= 4
        with trio.CancelScope() as scope:
            scope.cancel()
            for _ in range(1000):
                await call(server, Reply(1))
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_many_busy_servers_share_the_time(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes] Of many processes with full mailboxes each gets its turns."""
    counts = [0] * 8

    def handle(n: int) -> None:
        counts[n] += 1

    async with clean_node() as node:
        servers = [await start(node, kind, id=str(n)) for n in range(8)]
        for n, server in enumerate(servers):
            for _ in range(1000):
                cast(server, partial(handle, n))
        await trio.lowlevel.checkpoint()
        while min(counts) < 500:
            await trio.lowlevel.checkpoint()
        assert max(counts) - min(counts) <= 512
        for server in servers:
            kill(server)
