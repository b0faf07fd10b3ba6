"""Timers: order, cancel, read, names, the dead, thousands, far futures."""

from __future__ import annotations

import random
from math import inf, nan
from typing import Any

import pytest
import trio
import trio.testing

from atomr.otp import Registry, RegistryRef, Restart, child
from atomr.process import (
    cancel_timer,
    current_node,
    kill,
    read_timer,
    receive,
    register,
    self_pid,
    send,
    send_after,
    send_interval,
    spawn,
    unregister,
)
from atomr.refs import Address, Pid, Via
from tests.atomr.conformance.kit import CleanNode, Kind, collect, settle, start

Clock = trio.testing.MockClock


async def test_timers_fire_in_the_order_of_their_times_then_of_their_making(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int, kind: Kind
) -> None:
    """[erlang:send_after/3] The message is sent when so much time has passed, not
      before.
    [timer] Of timers that are due at the same time, the one that was made first fires
      first.
    """
    delays = [random.Random(schedule).choice([0, 1, 2, 3, 5]) for _ in range(40)]
    log: list[Any] = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        for n, delay in enumerate(delays):
            send_after(delay, server, (delay, n))
        for at in range(6):
            await trio.sleep_until(at + 0.5)
            assert all(delay <= at for delay, _ in log)
    expected = sorted((delay, n) for n, delay in enumerate(delays))
    assert log[: len(delays)] == expected


async def test_a_timer_of_no_delay_is_still_not_immediate(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int
) -> None:
    """[Process.send_after/4] The message is not sent at once, even with a time of 0:
    others may come before it.
    """
    got: list[object] = []

    async def timed() -> None:
        send_after(0, self_pid(), "timer")
        send(self_pid(), "message")
        got.extend([await receive(), await receive()])

    async with clean_node():
        spawn(timed)
        await settle()
        assert got == ["message", "timer"]


@pytest.mark.parametrize("delay_s", [-1, -0.001, nan])
async def test_a_delay_is_not_negative(clean_node: CleanNode, delay_s: float) -> None:
    """[erlang:send_after/3] A negative time is refused."""
    async with clean_node():
        pid = spawn(trio.sleep_forever)
        with pytest.raises(ValueError, match="expected seconds, at least 0"):
            send_after(delay_s, pid, "never")


async def test_read_and_cancel_tell_whether_it_was_armed(
    clean_node: CleanNode, autojump_clock: Clock
) -> None:
    """[erlang:read_timer/1] Tells the time that is left, and false once it has fired or
      was cancelled.
    [erlang:cancel_timer/1] After it the message is not sent; it says whether the timer
      was armed.
    [erlang:cancel_timer/1] A message that was sent already stays.
    [erlang:cancel_timer/1] differs: it answers True or False. Erlang answers with the
      time left, which read_timer tells.
    """
    log: list[Any] = []
    async with clean_node():
        pid = spawn(collect, log)
        first, second, far = (
            send_after(delay, pid, delay) for delay in (10.0, 20.0, 1e9)
        )
        assert read_timer(first) == 10.0
        await trio.sleep(4)
        assert [read_timer(first), read_timer(second)] == [6.0, 16.0]
        assert [cancel_timer(second), cancel_timer(second)] == [True, False]
        assert read_timer(second) is None
        await trio.sleep(6.5)
        assert [read_timer(first), cancel_timer(first)] == [None, False]
        await trio.sleep(100)
        assert (log, read_timer(far)) == ([10.0], 1e9 - 110.5)
        kill(pid)
        await settle()
        assert [read_timer(far), cancel_timer(far)] == [None, False]
        dead = send_after(1, pid, "never")
        assert [read_timer(dead), cancel_timer(dead)] == [None, False]


async def test_timers_of_the_dead_are_gone_with_them(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[Process.send_after/4] A timer for a pid is cancelled when the process ends, or
    when it has ended already.
    """
    async with clean_node() as node:
        server = await start(node, kind)
        before = node.timers.size
        for n in range(1000):
            send_after(n, server, n)
            send_interval(n + 1, server, n)
        assert node.timers.size == before + 2000
        kill(server)
        await settle()
        assert node.timers.size == before
        await trio.sleep(10_000)


async def test_a_name_is_looked_up_when_the_timer_fires(
    clean_node: CleanNode, autojump_clock: Clock, schedule: int
) -> None:
    """[Process.send_after/4] A name is looked up when the message is sent, and nothing
      happens when nobody has it.
    [Process.send_after/4] The end of a process cancels no timer for its name.
    """
    old: list[Any] = []
    new: list[Any] = []
    rooms: RegistryRef[str, object] = RegistryRef("rooms")
    addresses: list[Address] = ["name", rooms.via("key")]
    async with clean_node() as node:
        await node.start(child(Registry, name="rooms", restart=Restart.TEMPORARY))
        first = spawn(collect, old, lambda: rooms.register("key", None), name="name")
        await settle()
        for to in (*addresses, "nobody"):
            for at in (1, 3, 5, 7):
                send_after(at, to, at)
        await trio.sleep(2)
        kill(first)
        await trio.sleep(2)

        def take_over() -> None:
            register("name")
            rooms.register("key", None)

        second = spawn(collect, new, take_over)
        await trio.sleep(2)
        unregister("name")
        kill(second)
        await trio.sleep(2)

    assert (old, new) == ([1, 1], [5, 5])


async def test_a_timer_for_a_name_whose_look_up_fails_breaks_nothing(
    clean_node: CleanNode, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """[Process.send_after/4] A timer for an address that cannot be looked up is no
    error of anybody.
    """

    class Broken(Via):
        def whereis(self) -> Pid | None:
            raise KeyError("broken")

        def register(self, pid: Pid) -> None: ...

        def unregister(self, pid: Pid) -> None: ...

    heard: list[Any] = []
    async with clean_node() as node:
        gone: RegistryRef[str, object] = RegistryRef("gone")
        send_after(1, gone.via("key"), "nobody")
        node.send_from_thread(gone.via("key"), "nobody")
        send_after(1, Broken(), "broken")
        node.send_from_thread(Broken(), "broken")
        send_after(2, spawn(collect, heard), "still there")
        await trio.sleep(3)

    assert heard == ["still there"]
    assert [r.getMessage().split(":")[-1].split(" of ")[0] for r in caplog.records] == [
        " the look-up"
    ] * 2


async def test_a_thread_reaches_a_via_of_the_node(
    clean_node: CleanNode, autojump_clock: Clock
) -> None:
    """[Registry] A via name works wherever a message can be sent."""
    heard: list[Any] = []
    rooms: RegistryRef[str, object] = RegistryRef("rooms")
    async with clean_node() as node:
        await node.start(child(Registry, name="rooms"))
        spawn(collect, heard, lambda: rooms.register("key", None))
        await settle()
        node.send_from_thread(rooms.via("key"), "hello")
        await settle()
        assert heard == ["hello"]


async def test_an_interval_ticks_in_step_until_it_is_cancelled(
    clean_node: CleanNode, autojump_clock: Clock, kind: Kind
) -> None:
    """[timer:send_interval/3] The message is sent again and again, the first time after
      one interval.
    [timer:send_interval/3] It ends when it is cancelled, or with the process.
    """
    log: list[Any] = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        ticks = send_interval(2.0, server, "tick")
        await trio.sleep(7)
        assert (log, read_timer(ticks)) == (["tick"] * 3, 1.0)
        assert [cancel_timer(ticks), cancel_timer(ticks)] == [True, False]
        await trio.sleep(7)
        assert len(log) == 3
        send_interval(1.0, server, "tock")
        named = send_interval(1.0, "nobody", "tick")
        await trio.sleep(3.5)
        kill(server)
        await trio.sleep(100)
        assert log[3:] == ["tock"] * 3
        assert named.cancel()
        assert read_timer(send_interval(1.0, server, "to the dead")) is None
        with pytest.raises(ValueError, match=r"at least 0\.001"):
            send_interval(0.0, server, "never")


async def test_ticks_that_a_blocked_loop_missed_come_once_and_stay_in_step(
    clean_node: CleanNode, mock_clock: Clock
) -> None:
    """[timer:send_interval/3] differs: what was missed while nothing could run is sent
    once. Erlang never blocks whole, so the question does not come up there.
    """
    log: list[Any] = []
    async with clean_node():
        ticks = send_interval(1.0, spawn(collect, log), "tick")
        await settle()
        mock_clock.jump(10.25)
        await settle()
        assert (log, read_timer(ticks)) == (["tick"], 0.75)


async def test_many_timers_of_many_processes_and_a_far_clock(
    clean_node: CleanNode, mock_clock: Clock
) -> None:
    """[erlang:send_after/3] Any number of timers may be armed, for any time."""
    log: list[Any] = []
    async with clean_node() as node:
        pid = spawn(collect, log)
        order = random.Random(1)
        delays = [order.uniform(0, 1e6) for _ in range(3000)]
        timers = [send_after(delay, pid, delay) for delay in delays]
        never = send_after(inf, pid, "never")
        kept = [n for n in range(3000) if order.random() < 0.5]
        for n in sorted(set(range(3000)) - set(kept)):
            assert timers[n].cancel()
        await settle()
        mock_clock.jump(1e8)
        await settle()
        assert log == sorted(delays[n] for n in kept)
        assert (read_timer(never), node.timers.size) == (inf, 1)
        assert current_node() is node
