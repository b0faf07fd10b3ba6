"""Exit signals: reason x trapping x how it comes x kind of receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.core.exits import KILL, KILLED, NOPROC, NORMAL, SHUTDOWN, ExitReason
from atomr.core.messages import Exit
from atomr.otp import Stop, cast
from atomr.process import exit_process, link, self_pid, send, spawn, trap_exit
from tests.atomr.conformance.kit import (
    CRASH,
    DETAIL,
    LIVES,
    RECEIVERS,
    CleanNode,
    Receivers,
    Told,
    end_of,
    settle,
    start,
    trap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid

HEARS = "hears of it and lives"

# how, reason: what becomes of one that does not trap, and of one that does.
TABLE: dict[tuple[str, ExitReason], tuple[Any, Any]] = {
    ("sent", NORMAL): (LIVES, HEARS),
    ("sent", SHUTDOWN): (SHUTDOWN, HEARS),
    ("sent", DETAIL): (DETAIL, HEARS),
    ("sent", KILL): (KILLED, KILLED),
    ("sent", KILLED): (KILLED, HEARS),
    ("sent", NOPROC): (NOPROC, HEARS),
    ("sent", CRASH): (CRASH, HEARS),
    ("linked", NORMAL): (LIVES, HEARS),
    ("linked", SHUTDOWN): (SHUTDOWN, HEARS),
    ("linked", DETAIL): (DETAIL, HEARS),
    ("linked", KILL): (KILL, HEARS),
    ("linked", KILLED): (KILLED, HEARS),
    ("linked", NOPROC): (NOPROC, HEARS),
    ("linked", CRASH): (CRASH, HEARS),
    ("self", NORMAL): (NORMAL, HEARS),
    ("self", SHUTDOWN): (SHUTDOWN, HEARS),
    ("self", DETAIL): (DETAIL, HEARS),
    ("self", KILL): (KILLED, KILLED),
    ("self", KILLED): (KILLED, HEARS),
    ("self", NOPROC): (NOPROC, HEARS),
    ("self", CRASH): (CRASH, HEARS),
}


async def _send_signal(how: str, reason: ExitReason, to: Pid, all_: Receivers) -> Pid:
    if how == "sent":

        async def sender() -> None:
            exit_process(to, reason)

        return spawn(sender)
    if how == "linked":
        linked = await start(all_.node, Told, init=lambda: link(to))
        cast(linked, Stop(reason))
        return linked
    send(to, lambda: exit_process(self_pid(), reason))
    return to


@pytest.mark.parametrize("trapping", [False, True], ids=["plain", "trapping"])
@pytest.mark.parametrize("receiver", RECEIVERS)
async def test_an_exit_signal_does_what_the_table_says(
    clean_node: CleanNode, schedule: int, receiver: str, trapping: bool
) -> None:
    """[Processes: Receiving Exit Signals] A signal that was sent with the reason kill
      ends its receiver with killed, trapped or not.
    [Processes: Receiving Exit Signals] A signal with the reason normal is dropped by a
      receiver that does not trap exits, unless it sent it to itself.
    [Processes: Receiving Exit Signals] Any other reason ends a receiver that does not
      trap exits, with the same reason.
    [Processes: Receiving Exit Signals] The reason kill that comes over a link can be
      trapped, and is not turned into killed.
    [Processes: Receiving Exit Signals] A process that sends itself normal ends with
      normal.
    [Processes: Receiving Exit Signals] A trapped signal becomes a message with sender
      and reason, last in the mailbox.
    [Process.exit/2] A process that traps exits gets its own normal as a message.
    """
    got: dict[tuple[str, ExitReason], object] = {}
    async with clean_node() as node, trio.open_nursery() as nursery:
        all_ = Receivers(node, nursery)
        for how, reason in TABLE:
            heard: list[Any] = []
            pid = await all_.start(receiver, heard, trap if trapping else _nothing)
            ended = end_of(node, pid)
            by = await _send_signal(how, reason, pid, all_)
            await settle()
            heard = [m for m in heard if not isinstance(m, tuple)]
            end = ended()
            if heard == [Exit(by, reason)] and end == LIVES:
                end = HEARS
            else:
                assert heard == []
            got[how, reason] = end
            exit_process(pid, KILL)

    assert got == {row: ends[trapping] for row, ends in TABLE.items()}


def _nothing() -> None:
    pass


async def test_a_supervisor_traps_all_but_a_kill(
    clean_node: CleanNode, schedule: int
) -> None:
    """[supervisor] A supervisor traps exits, and outlives signals of others than its
    parent.
    """
    got: dict[tuple[str, ExitReason], object] = {}
    async with clean_node() as node, trio.open_nursery() as nursery:
        all_ = Receivers(node, nursery)
        rows = [row for row in TABLE if row[0] != "self"]
        for how, reason in rows:
            pid = await all_.start("supervisor", [])
            ended = end_of(node, pid)
            await _send_signal(how, reason, pid, all_)
            await settle()
            got[how, reason] = ended()
            exit_process(pid, KILL)

    assert got == {row: KILLED if row == ("sent", KILL) else LIVES for row in rows}


@pytest.mark.parametrize("receiver", RECEIVERS)
async def test_a_trapped_signal_keeps_its_place_among_the_messages(
    clean_node: CleanNode, schedule: int, receiver: str
) -> None:
    """[Processes: Receiving Signals] What is sent by one process arrives in the order
    in which it was sent, signals and messages alike.
    """
    heard: list[Any] = []
    async with clean_node() as node, trio.open_nursery() as nursery:
        pid = await Receivers(node, nursery).start(receiver, heard, trap)

        async def sender() -> None:
            send(pid, 1)
            exit_process(pid, SHUTDOWN)
            send(pid, 2)

        by = spawn(sender)
        await settle()
        assert heard == [1, Exit(by, SHUTDOWN), 2]
        exit_process(pid, KILL)


@pytest.mark.parametrize("receiver", RECEIVERS)
async def test_trapping_counts_when_the_signal_comes(
    clean_node: CleanNode, schedule: int, receiver: str
) -> None:
    """[Processes: Receiving Exit Signals] What a signal does depends on the trap_exit
      flag at the time when it is received.
    [process_flag(trap_exit)] Setting the flag returns what it was before.
    """
    heard: list[Any] = []
    before: list[bool] = []

    def flip(enabled: bool) -> Callable[[], None]:
        return lambda: before.append(trap_exit(enabled))

    async with clean_node() as node, trio.open_nursery() as nursery:
        pid = await Receivers(node, nursery).start(receiver, heard)
        ended = end_of(node, pid)
        send(pid, flip(True))
        await settle()
        exit_process(pid, SHUTDOWN)
        send(pid, flip(False))
        await settle()
        assert (heard, before, ended()) == (
            [Exit(None, SHUTDOWN)],
            [False, True],
            LIVES,
        )
        exit_process(pid, DETAIL)
        exit_process(pid, SHUTDOWN)
        await settle()
        # The first one ended it.
        assert ended() == DETAIL


@pytest.mark.parametrize("receiver", [*RECEIVERS, "supervisor"])
async def test_signals_and_messages_to_the_dead_do_nothing(
    clean_node: CleanNode, receiver: str
) -> None:
    """[Process.exit/2] A signal to a process that is not there does nothing.
    [Processes: Delivery of Signals] A message to a process that has ended is lost.
    """
    async with clean_node() as node, trio.open_nursery() as nursery:
        pid = await Receivers(node, nursery).start(receiver, [])
        exit_process(pid, KILL)
        await settle()
        for reason in (KILL, NORMAL, CRASH):
            exit_process(pid, reason)
        send(pid, "lost")
        cast(pid, "lost")
        await settle()
