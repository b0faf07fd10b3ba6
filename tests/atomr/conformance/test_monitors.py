"""Monitors: one down each, in order, for pids, names and the dead; demonitor."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.core.exits import KILLED, NOPROC, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Down, Exit
from atomr.errors import ReceiveTimeoutError
from atomr.otp import Registry, RegistryRef, Stop, call, cast, child
from atomr.process import (
    demonitor,
    exit_process,
    kill,
    link,
    monitor,
    receive,
    register,
    self_pid,
    send,
    spawn,
    trap_exit,
    unregister,
    wait_exit,
)
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    RECEIVERS,
    CleanNode,
    Kind,
    Receivers,
    collect,
    reason_of,
    settle,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid, Ref


async def idle() -> None:
    await trio.sleep_forever()


async def _as_process(job: Callable[[], Any]) -> ExitReason:
    return await wait_exit(spawn(job))


@pytest.mark.parametrize("watched", [*RECEIVERS, "supervisor"])
@pytest.mark.parametrize("watcher", RECEIVERS)
async def test_the_end_of_any_kind_is_told_to_any_kind_once_for_each_monitor(
    clean_node: CleanNode, watched: str, watcher: str
) -> None:
    """[Processes: Monitors] When the monitored process ends, the monitoring one gets
      one message with reference, pid and reason.
    [Processes: Monitors] Each call makes a monitor of its own, and each sends its
      message.
    [Processes: Monitors] Monitors are unidirectional: the end of the watcher is nothing
      to the watched.
    """
    heard: list[Any] = []
    refs: list[Ref] = []
    async with clean_node() as node, trio.open_nursery() as nursery:
        all_ = Receivers(node, nursery)
        target = await all_.start(watched, [])
        by = await all_.start(watcher, heard)
        other = await all_.start(watcher, [])
        for _ in range(2):
            send(by, lambda: refs.append(monitor(target)))
        send(other, lambda: monitor(target))
        await settle()
        kill(other)
        await settle()
        assert node.processes[target.number].reason is None
        kill(target)
        await settle()
        assert heard == [Down(ref, target, KILLED) for ref in refs]
        assert not node.processes[by.number].monitoring
        kill(by)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, DETAIL, CRASH])
async def test_a_down_carries_the_exit_reason(
    clean_node: CleanNode, schedule: int, kind: Kind, reason: ExitReason
) -> None:
    """[GenServer: terminate] A monitor hears the same reason that terminate got."""
    heard: list[Any] = []
    log: list[Any] = []
    async with clean_node() as node:
        server = await start(node, kind, log)
        spawn(collect, heard, lambda: monitor(server))
        await settle()
        cast(server, Stop(reason))
        await settle()
        assert [(m.pid, m.reason) for m in heard] == [(server, reason)]
        assert log == [("terminate", reason)]


async def test_a_monitor_of_the_dead_and_of_no_name_tells_noproc_at_once(
    clean_node: CleanNode, schedule: int
) -> None:
    """[Processes: Monitors] For a process that is not there the message comes at once,
      with noproc.
    [Processes: Monitors] Names can be monitored: the one that has the name when monitor
      is called.
    [erlang:monitor/2] differs: for a name, the message carries the pid, None when
      nobody had the name. It needs no more, as the reference already says which monitor
      it is.
    """
    got: list[Any] = []

    async def watch() -> None:
        refs = [monitor(dead), monitor("nobody"), monitor(ref.via("nobody"))]
        refs.append(monitor("somebody"))
        unregister("somebody")
        register("somebody", other)
        kill(first)
        expected = [(dead, NOPROC), (None, NOPROC), (None, NOPROC), (first, KILLED)]
        for each, (pid, reason) in zip(refs, expected, strict=True):
            got.append(await receive() == Down(each, pid, reason))

    async with clean_node() as node:
        ref: RegistryRef[str, object] = RegistryRef("names")
        await node.start(child(Registry, name="names"))
        dead, first, other = spawn(idle), spawn(idle, name="somebody"), spawn(idle)
        kill(dead)
        await settle()
        assert await _as_process(watch) is NORMAL

    assert got == [True] * 4


async def test_a_process_may_monitor_itself_and_hears_nothing(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[erlang:monitor/2] A monitor of oneself is a reference, and no message."""
    async with clean_node() as node:
        server = await start(node, kind)
        cast(server, lambda: (monitor(self_pid()), None)[1])
        await settle()
        assert await reason_of(server, lambda: cast(server, Stop(CRASH))) is CRASH


async def test_the_down_comes_after_all_that_the_ended_has_sent(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes: Delivery of Signals] The messages of a process arrive before the news
    of its end.
    """
    heard: list[Any] = []
    async with clean_node() as node:
        server = await start(node, kind)

        def watch() -> None:
            trap_exit(True)
            monitor(server)
            link(server)

        watcher = spawn(collect, heard, watch)
        await settle()

        def send_and_end() -> Stop:
            for n in range(3):
                send(watcher, n)
            return Stop(SHUTDOWN)

        cast(server, send_and_end)
        await settle()
        assert heard[:3] == [0, 1, 2]
        assert sorted(type(m).__name__ for m in heard[3:]) == ["Down", "Exit"]


async def test_demonitor_ends_a_monitor_and_flush_takes_what_has_come(
    clean_node: CleanNode, schedule: int
) -> None:
    """[erlang:demonitor/1] After it no message of that monitor comes, but one that came
      before stays.
    [erlang:demonitor/2] With flush, one that came before is taken out, wherever it
      lies.
    [erlang:demonitor/2] The answer says whether the monitor was still there.
    [erlang:demonitor/1] differs: for a reference of another process nothing happens, as
      for one that is gone. Erlang raises badarg. Nothing can be broken by it.
    """
    got: list[Any] = []
    foreign: list[Ref] = []

    async def other() -> None:
        foreign.append(monitor(server))
        await trio.sleep_forever()

    async def watch() -> None:
        dropped, kept, flushed = (monitor(server) for _ in range(3))
        got.append([demonitor(dropped), demonitor(dropped), demonitor(foreign[0])])
        send(self_pid(), "a message")
        kill(server)
        await settle()
        send(self_pid(), "another")
        # One more way for it to lie: in the part that was taken already.
        got.append(await receive(lambda m: m == "another"))
        got.append([demonitor(kept), demonitor(flushed, flush=True)])
        got.append(await receive())
        got.append(await receive() == Down(kept, server, KILLED))
        with pytest.raises(ReceiveTimeoutError):
            await receive(timeout_s=0)

    async with clean_node():
        server = spawn(idle)
        spawn(other)
        await settle()
        assert await _as_process(watch) is NORMAL

    assert got == [[True, False, False], "another", [False, False], "a message", True]


async def test_monitor_link_and_the_end_in_one_tick_each_tell_once(
    clean_node: CleanNode, schedule: int, kind: Kind
) -> None:
    """[Processes: Monitors] However a monitor and the end meet, there is one message;
    the same holds for a link.
    """
    for seed in range(6):
        heard: list[Any] = []
        async with clean_node() as node:
            server = await start(node, kind)
            watcher = spawn(collect, heard, lambda: trap_exit(True))
            await settle()
            acts: list[Callable[[], object]] = [
                partial(send, watcher, partial(monitor, server)),
                partial(send, watcher, partial(link, server)),
                partial(cast, server, Stop(SHUTDOWN)),
                partial(exit_process, server, SHUTDOWN),
            ]
            random.Random(100 * seed + schedule).shuffle(acts)
            for act in acts:
                act()
            await settle()
            kill(watcher)
        told = sorted(type(m).__name__ for m in heard if isinstance(m, Exit | Down))
        assert told == ["Down", "Exit"]
        assert {m.reason for m in heard} <= {SHUTDOWN, NOPROC}


async def test_the_caller_of_an_ended_server_hears_and_its_monitor_too(
    clean_node: CleanNode, schedule: int, kind: Kind, way: str
) -> None:
    """[gen_server:call/2] A call adds no message of its own to the mailbox of the
    caller, whatever the server's end.
    """
    got: list[Any] = []

    async def ask(server: Pid) -> None:
        ref = monitor(server)
        with pytest.raises(Exception, match="exited before replying"):
            await call(server, Stop(SHUTDOWN))
        got.append(await receive() == Down(ref, server, SHUTDOWN))
        with pytest.raises(ReceiveTimeoutError):
            await receive(timeout_s=0)

    async with clean_node() as node:
        server = await start(node, kind)
        assert await wait_exit(spawn(ask, server)) is NORMAL

    assert got == [True]
