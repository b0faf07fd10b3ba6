"""Links, monitors and exit signals between live processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.exits import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    ExitReason,
    Shutdown,
)
from atomr.core.messages import Down, Exit
from atomr.errors import NotAProcessError
from atomr.process import (
    Node,
    demonitor,
    exit_process,
    kill,
    link,
    monitor,
    receive,
    self_pid,
    send,
    spawn,
    stop,
    trap_exit,
    unlink,
    wait_exit,
)
from atomr.refs import Pid, Ref

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
CRASH = ValueError("x")
settle = trio.testing.wait_all_tasks_blocked


async def idle() -> None:
    await trio.sleep_forever()


async def crash(reason: Exception = CRASH) -> None:
    raise reason


async def collect(into: list[object], before: Callable[[], object]) -> None:
    before()
    while True:
        into.append(await receive())


def trap() -> None:
    trap_exit(True)


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (KILL, KILLED),
        (KILLED, KILLED),
        (SHUTDOWN, SHUTDOWN),
        (Shutdown(1), Shutdown(1)),
        (CRASH, CRASH),
    ],
)
async def test_an_exit_signal_ends_a_process_with_its_reason(
    clean_node: CleanNode, signal: ExitReason, reason: ExitReason
) -> None:
    async with clean_node():
        pid = spawn(idle)
        exit_process(pid, signal)
        assert await wait_exit(pid) == reason


async def test_normal_does_not_end_another_process_but_oneself(
    clean_node: CleanNode,
) -> None:
    async def end_itself() -> None:
        exit_process(self_pid(), NORMAL)
        await trio.sleep_forever()

    async with clean_node():
        pid = spawn(idle)
        exit_process(pid, NORMAL)
        await settle()
        send(pid, "still there")
        assert await wait_exit(spawn(end_itself)) is NORMAL
        kill(pid)
        assert await wait_exit(pid) is KILLED


async def test_a_trapping_process_gets_messages_and_only_kill_ends_it(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    got: list[object] = []
    signals: list[ExitReason] = [NORMAL, SHUTDOWN, KILLED, CRASH]
    async with clean_node():
        pid = spawn(collect, got, trap)
        await settle()
        for signal in signals:
            exit_process(pid, signal)
        await settle()
        assert got == [Exit(None, signal) for signal in signals]
        exit_process(pid, KILL)
        assert await wait_exit(pid) is KILLED


async def test_an_exit_signal_says_who_sent_it(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []

    async def sender(to: Pid) -> None:
        exit_process(to, SHUTDOWN)

    async with clean_node():
        pid = spawn(collect, got, trap)
        await settle()
        by = spawn(sender, pid)
        await settle()
        assert got == [Exit(by, SHUTDOWN)]


@pytest.mark.parametrize("reason", [SHUTDOWN, Shutdown(1), KILLED, CRASH])
async def test_a_link_takes_the_other_along_with_the_same_reason(
    clean_node: CleanNode, schedule: int, reason: ExitReason
) -> None:
    async def linked(to: Pid) -> None:
        link(to)
        await trio.sleep_forever()

    async with clean_node():
        first = spawn(idle)
        second = spawn(linked, first)
        third = spawn(linked, second)
        await settle()
        exit_process(second, reason)
        assert [await wait_exit(p) for p in (second,)] == [reason]
        await settle()
        assert [await wait_exit(p) for p in (first, third)] == [NOPROC, NOPROC]


async def test_both_sides_of_a_link_end_with_the_reason(clean_node: CleanNode) -> None:
    reasons: list[ExitReason] = []

    async def linked(to: Pid) -> None:
        link(to)
        await receive()
        raise CRASH

    async def note(pid: Pid) -> None:
        reasons.append(await wait_exit(pid))

    async with clean_node(), trio.open_nursery() as nursery:
        first = spawn(idle)
        second = spawn(linked, first)
        nursery.start_soon(note, first)
        nursery.start_soon(note, second)
        await settle()
        send(second, "go")

    assert reasons == [CRASH, CRASH]


async def test_a_normal_end_does_not_end_the_linked(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    got: list[object] = []

    async def done(to: Pid) -> None:
        link(to)

    async with clean_node():
        plain, trapping = spawn(idle), spawn(collect, got, trap)
        await settle()
        for pid in (plain, trapping):
            await wait_exit(last := spawn(done, pid))
        await settle()
        assert got == [Exit(last, NORMAL)]
        kill(plain)
        assert await wait_exit(plain) is KILLED


async def test_unlink_undoes_a_link_from_either_side(clean_node: CleanNode) -> None:
    async def link_and_unlink(to: Pid) -> None:
        link(to)
        link(to)
        unlink(to)
        raise CRASH

    async with clean_node():
        pid = spawn(idle)
        assert await wait_exit(spawn(link_and_unlink, pid)) is CRASH
        await settle()
        kill(pid)
        assert await wait_exit(pid) is KILLED


async def test_a_link_to_the_dead_is_an_exit_signal_noproc(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
) -> None:
    got: list[object] = []

    async def plain(to: Pid) -> None:
        link(to)
        await trio.sleep_forever()

    async with clean_node():
        dead = spawn(crash)
        await wait_exit(dead)
        assert await wait_exit(spawn(plain, dead)) is NOPROC

        def trap_and_link() -> None:
            trap()
            link(dead)

        spawn(collect, got, trap_and_link)
        await settle()
        assert got == [Exit(dead, NOPROC)]


async def test_each_monitor_gets_exactly_one_down(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    got: list[object] = []
    refs: list[Ref] = []
    async with clean_node():
        pid = spawn(idle)

        def watch() -> None:
            refs.extend([monitor(pid), monitor(pid)])

        spawn(collect, got, watch)
        await settle()
        exit_process(pid, CRASH)
        exit_process(pid, SHUTDOWN)
        kill(pid)
        await settle()

    assert got == [Down(ref, pid, got[0].reason) for ref in refs]  # type: ignore[attr-defined]
    assert got[0].reason in {CRASH, KILLED}  # type: ignore[attr-defined]


async def test_a_monitor_of_the_dead_or_of_no_name_is_down_at_once(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
) -> None:
    got: list[object] = []
    refs: list[Ref] = []
    async with clean_node():
        pid = spawn(crash)
        await wait_exit(pid)

        def watch() -> None:
            refs.extend([monitor(pid), monitor("nobody")])

        spawn(collect, got, watch)
        await settle()

    assert got == [Down(refs[0], pid, NOPROC), Down(refs[1], None, NOPROC)]


async def test_demonitor_with_flush_leaves_no_down(
    clean_node: CleanNode, schedule: int
) -> None:
    got: list[object] = []
    async with clean_node():
        pid = spawn(idle)

        async def watch() -> None:
            kept, dropped, flushed = monitor(pid), monitor(pid), monitor(pid)
            got.append(demonitor(dropped))
            send(self_pid(), "before")
            kill(pid)
            await trio.testing.wait_all_tasks_blocked()
            got.append(demonitor(flushed, flush=True))
            got.extend([await receive(), (await receive()) == Down(kept, pid, KILLED)])

        watcher = spawn(watch)
        assert await wait_exit(watcher) is NORMAL

    assert got == [True, False, "before", True]


async def test_a_dead_watcher_leaves_nothing_with_the_watched(
    clean_node: CleanNode,
) -> None:
    async def watch(pid: Pid) -> None:
        monitor(pid)

    async with clean_node() as node:
        pid = spawn(idle)
        await wait_exit(spawn(watch, pid))
        assert node.processes[pid.number].watchers == {}


async def test_the_crash_of_a_process_is_logged_with_its_traceback(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node():
        await wait_exit(spawn(crash))

    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.getMessage() == (
        "process <Pid 1 crash> crashed: ValueError('x')\n"
        "last message: None\nstate: None"
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is CRASH


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ExceptionGroup("g", [CRASH]), "leaf"),
        (ExceptionGroup("g", [CRASH, KeyError("y")]), "group"),
    ],
)
async def test_a_group_of_one_is_unwrapped_and_a_larger_one_is_the_reason(
    clean_node: CleanNode, raised: Exception, reason: str
) -> None:
    async with clean_node():
        expected = CRASH if reason == "leaf" else raised
        assert await wait_exit(spawn(crash, raised)) is expected


async def test_a_cancel_together_with_an_error_ends_with_the_error(
    clean_node: CleanNode,
) -> None:
    async def fails_while_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise CRASH

    async def in_nursery() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fails_while_cancelled)

    async with clean_node():
        for fn in (fails_while_cancelled, in_nursery):
            pid = spawn(fn)
            await settle()
            exit_process(pid, SHUTDOWN)
            assert await wait_exit(pid) is CRASH


async def test_killed_stays_killed_even_when_the_clean_up_fails(
    clean_node: CleanNode,
) -> None:
    async def fails_while_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise CRASH

    async with clean_node():
        pid = spawn(fails_while_cancelled)
        await settle()
        kill(pid)
        assert await wait_exit(pid) is KILLED


async def test_a_signal_before_the_first_step_ends_a_process_that_never_waits(
    clean_node: CleanNode,
) -> None:
    ran: list[str] = []

    async def never_waits() -> None:
        ran.append("ran")

    async with clean_node():
        pid = spawn(never_waits)
        kill(pid)
        assert (await wait_exit(pid), ran) == (KILLED, [])


async def test_signal_functions_need_a_process(clean_node: CleanNode) -> None:
    async with clean_node():
        pid = spawn(idle)
        for use in (
            self_pid,
            lambda: link(pid),
            lambda: unlink(pid),
            lambda: monitor(pid),
            lambda: demonitor(Ref()),
            lambda: trap_exit(True),
        ):
            with pytest.raises(NotAProcessError, match="is no process"):
                use()


async def test_a_process_cannot_wait_for_its_own_end(clean_node: CleanNode) -> None:
    async def stop_itself() -> None:
        with pytest.raises(NotAProcessError, match="cannot wait for its own end"):
            await stop(self_pid())

    async with clean_node():
        assert await wait_exit(spawn(stop_itself)) is NORMAL


async def test_stopping_a_plain_process_asks_it_when_it_traps(
    clean_node: CleanNode,
) -> None:
    got: list[object] = []

    async def orderly() -> None:
        trap()
        got.append(await receive())

    async with clean_node():
        pid = spawn(orderly)
        await settle()
        await stop(pid, SHUTDOWN)

    assert got == [Exit(None, SHUTDOWN)]
