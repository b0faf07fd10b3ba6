"""Links: both ways, once each, through chains and cycles; unlink and its races."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.core.exits import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.otp import Stop, cast
from atomr.process import (
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send,
    spawn,
    trap_exit,
    unlink,
    wait_exit,
    whereis,
)
from tests.atomr.conformance.kit import (
    CRASH,
    LIVES,
    RECEIVERS,
    CleanNode,
    Kind,
    Receivers,
    collect,
    end_of,
    reason_of,
    settle,
    start,
    trap,
)

if TYPE_CHECKING:
    from atomr.refs import Pid


async def idle() -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("first", RECEIVERS)
@pytest.mark.parametrize("second", RECEIVERS)
async def test_a_link_works_both_ways_between_all_kinds(
    clean_node: CleanNode, first: str, second: str
) -> None:
    """[Processes: Links] A link is bidirectional, whichever side made it.
    [Processes: Links] An exit signal over a link carries the reason of the one that
      ended.
    """
    async with clean_node() as node, trio.open_nursery() as nursery:
        all_ = Receivers(node, nursery)
        for who_ends in (0, 1):
            pids = [await all_.start(first, []), await all_.start(second, [])]
            send(pids[0], lambda to=pids[1]: link(to))
            await settle()
            ends = [end_of(node, pid) for pid in pids]
            exit_process(pids[who_ends], SHUTDOWN)
            await settle()
            assert [end() for end in ends] == [SHUTDOWN, SHUTDOWN]


@pytest.mark.parametrize("links", [1, 2, 5])
async def test_there_is_one_link_however_often_it_is_made(
    clean_node: CleanNode, schedule: int, kind: Kind, links: int
) -> None:
    """[Processes: Links] Two processes have at most one link: linking again changes
      nothing, and one unlink removes it.
    [erlang:link/1] Either side may make it and either side may remove it.
    """
    heard: list[Any] = []
    async with clean_node() as node:
        server = await start(node, kind)

        def link_often() -> None:
            trap_exit(True)
            for _ in range(links):
                link(server)

        watcher = spawn(collect, heard, link_often)
        await settle()
        for _ in range(links):
            cast(server, lambda: link(watcher))
        await settle()
        cast(server, Stop(CRASH))
        await settle()
        assert heard == [Exit(server, CRASH)]

        heard.clear()
        server = await start(node, kind)
        send(watcher, link_often)
        await settle()
        cast(server, lambda: unlink(watcher))
        cast(server, Stop(CRASH))
        await settle()
        assert heard == []


async def test_a_link_to_oneself_is_nothing(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[erlang:link/1] A process that links to itself is as before."""
    async with clean_node() as node:
        server = await start(node, kind)
        cast(server, lambda: link(server))
        await settle()
        assert not node.processes[server.number].links
        assert await reason_of(server, lambda: cast(server, Stop(SHUTDOWN))) is SHUTDOWN


@pytest.mark.parametrize("receiver", RECEIVERS)
async def test_a_link_to_the_dead_is_a_signal_noproc_from_the_dead(
    clean_node: CleanNode, schedule: int, receiver: str
) -> None:
    """[Processes: Delivery of Signals] A link to a process that is not there triggers
      an exit signal back.
    [Processes: Sending Exit Signals] Its reason is noproc, and its sender the process
      that was named.
    """
    async with clean_node() as node, trio.open_nursery() as nursery:
        dead = spawn(idle)
        kill(dead)
        await settle()
        all_ = Receivers(node, nursery)
        heard: list[Any] = []
        trapping = await all_.start(receiver, heard, trap)
        plain = await all_.start(receiver, [])
        ended = end_of(node, plain)
        for pid in (trapping, plain):
            send(pid, lambda: link(dead))
        await settle()
        assert (heard, ended()) == ([Exit(dead, NOPROC)], NOPROC)
        kill(trapping)


@pytest.mark.parametrize("reason", [SHUTDOWN, CRASH, KILLED, KILL, NORMAL])
@pytest.mark.parametrize("shape", ["chain", "cycle", "star", "all with all"])
async def test_a_reason_goes_through_all_that_are_linked_and_each_ends_once(
    clean_node: CleanNode, schedule: int, shape: str, reason: ExitReason
) -> None:
    """[Processes: Error Handling] The end of a process with any reason but normal
    reaches all that are linked with it, and those linked with them, with the first
    one's reason.
    """
    size = 6
    edges = {
        "chain": [(n, n + 1) for n in range(size - 1)],
        "cycle": [(n, (n + 1) % size) for n in range(size)],
        "star": [(0, n) for n in range(1, size)],
        "all with all": [(a, b) for a in range(size) for b in range(a)],
    }[shape]
    heard: list[Any] = []
    async with clean_node() as node, trio.open_nursery() as nursery:
        all_ = Receivers(node, nursery)
        kinds = [RECEIVERS[n % len(RECEIVERS)] for n in range(size)]
        kinds[3] = "lean"
        pids = [await all_.start(kind, []) for kind in kinds]
        ends = [end_of(node, pid) for pid in pids]
        for a, b in edges:
            send(pids[a], lambda to=pids[b]: link(to))
        await settle()

        def watch_all() -> None:
            for pid in pids:
                monitor(pid)

        watcher = spawn(collect, heard, watch_all)
        await settle()
        cast(pids[3], Stop(reason))
        await settle()
        got = [end() for end in ends]
        if reason is NORMAL:
            assert got == [NORMAL if n == 3 else LIVES for n in range(size)]
        else:
            assert got == [reason] * size
            assert sorted(m.pid.number for m in heard) == [p.number for p in pids]
        for pid in (*pids, watcher):
            kill(pid)


async def test_a_trapping_process_in_a_chain_stops_the_spreading(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes: Error Handling] A process that traps exits hears of the end and
    lives, and so do those behind it.
    """
    heard: list[Any] = []
    async with clean_node() as node:
        behind = await start(node, kind)
        middle = await start(node, kind, heard, init=trap)
        front = await start(node, kind)
        cast(middle, lambda: link(behind))
        cast(middle, lambda: link(front))
        await settle()
        ends = [end_of(node, pid) for pid in (front, middle, behind)]
        kill(front)
        await settle()
        assert [end() for end in ends] == [KILLED, LIVES, LIVES]
        assert heard == [Exit(front, KILLED)]


async def test_nothing_comes_after_unlink_but_what_came_before(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[erlang:unlink/1] Once unlink has returned, the link has no effect on the caller
      any more.
    [erlang:unlink/1] A message of a trapped exit that was there before stays in the
      mailbox.
    [erlang:unlink/1] Without a link, and with the dead, it does nothing.
    """
    got: list[object] = []
    async with clean_node() as node:
        one, two = await start(node, kind), await start(node, kind)

        async def watch() -> None:
            trap_exit(True)
            unlink(two)
            link(one)
            link(two)
            kill(one)
            kill(two)
            unlink(two)
            await settle()
            unlink(one)
            got.append(await receive(timeout_s=0))
            with pytest.raises(Exception, match="no matching message"):
                await receive(timeout_s=0)

        assert await wait_exit(spawn(watch)) is NORMAL
        assert got == [Exit(one, KILLED)]


async def test_unlink_and_the_end_in_one_tick_yield_one_of_the_two(
    clean_node: CleanNode, schedule: int
) -> None:
    """[erlang:unlink/1] Whoever is first: a signal has come, or is never seen."""
    reasons: set[ExitReason] = set()
    for seed in range(6):
        async with clean_node():
            one = spawn(idle)

            async def linked(to: Pid) -> None:
                link(to)
                await receive()
                unlink(to)
                await receive()

            two = spawn(linked, one)
            await settle()
            acts: list[Any] = [partial(kill, one), partial(send, two, "unlink")]
            random.Random(seed + schedule).shuffle(acts)
            for act in acts:
                act()
            await settle()
            send(two, "end")
            reasons.add(await reason_of(two, lambda: None))
            await settle()

    assert reasons <= {NORMAL, KILLED, NOPROC}


async def test_a_link_right_after_spawn_is_in_time(
    clean_node: CleanNode, schedule: int
) -> None:
    """[erlang:spawn_link] differs: link() right after spawn() does the same. A new
    process has not begun when spawn returns, so nothing can come between, and
    spawn_link is not needed.
    """
    heard: list[Any] = []

    async def crash() -> None:
        raise CRASH

    async def parent() -> None:
        trap_exit(True)
        child = spawn(crash)
        link(child)
        monitor(child)
        heard.extend([child, await receive(), await receive()])

    async with clean_node():
        assert await wait_exit(spawn(parent)) is NORMAL
        child, exit_, down = heard
        assert (exit_, down.pid, down.reason) == (Exit(child, CRASH), child, CRASH)


async def test_links_of_the_ended_are_gone_on_both_sides(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes: Links] A link ends with either of its processes."""
    async with clean_node() as node:
        server = await start(node, kind, init=trap)

        async def linked() -> None:
            link(server)
            await receive()

        pids = [spawn(linked) for _ in range(5)]
        await settle()
        assert len(node.processes[server.number].links or ()) == 5
        for pid in pids:
            send(pid, "end")
        await settle()
        assert not node.processes[server.number].links


async def test_the_ended_is_gone_and_its_name_free_when_a_link_tells(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes: Directly Visible Erlang Resources] Exit signals and downs are sent
    after the name of the ended process was released.
    """
    seen: list[object] = []
    async with clean_node() as node:
        server = await start(node, kind, name="held")

        async def watch() -> None:
            trap_exit(True)
            link(server)
            monitor(server)
            for _ in range(2):
                await receive()
                seen.append((is_alive(server), whereis("held")))
            register("held")
            seen.append(whereis("held") is self_pid())

        watcher = spawn(watch)
        await settle()
        assert await reason_of(watcher, lambda: cast(server, Stop())) is NORMAL
        assert seen == [(False, None), (False, None), True]
