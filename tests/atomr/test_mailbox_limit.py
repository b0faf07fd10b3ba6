"""Bounded mailboxes: each policy, and what passes the bound."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import pytest
import trio
import trio.testing

from atomr import telemetry
from atomr.core.exits import KILL
from atomr.core.messages import Down
from atomr.errors import MailboxFullError, ServerDownError
from atomr.otp import (
    From,
    GenServer,
    MailboxLimit,
    NoReply,
    Overflow,
    Reply,
    Restart,
    call,
    cast,
    cast_wait,
    child,
    sys,
)
from atomr.process import (
    Node,
    exit_process,
    monitor,
    receive,
    self_pid,
    send,
    send_after,
    send_wait,
    spawn,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]


class Keeper(GenServer):
    def __init__(self) -> None:
        self.kept: list[object] = []

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(tuple(self.kept))

    def handle_cast(self, message: object) -> None:
        self.kept.append(message)

    def handle_info(self, message: object) -> NoReply:
        self.kept.append(message)
        return NoReply()


class AsyncKeeper(Keeper):
    async def handle_call(  # type: ignore[override]
        self, request: object, from_: From
    ) -> Reply:
        return Reply(tuple(self.kept))


@pytest.fixture(params=[Keeper, AsyncKeeper])
def keeper(request: pytest.FixtureRequest) -> type[Keeper]:
    """Return each way to run a server."""
    found: type[Keeper] = request.param
    return found


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [(Overflow.DROP_NEWEST, ("a", "b")), (Overflow.DROP_OLDEST, ("b", "c"))],
)
async def test_a_policy_that_drops_drops_what_it_says(
    clean_node: CleanNode,
    keeper: type[Keeper],
    overflow: Overflow,
    kept: tuple[str, ...],
) -> None:
    events: list[dict[str, object]] = []
    telemetry.attach(
        "t", ("atomr", "mailbox"), lambda _e, _m, data: events.append(dict(data))
    )
    try:
        async with clean_node() as node:
            pid = await node.start(child(keeper, mailbox=MailboxLimit(2, overflow)))
            cast(pid, "a")
            send(pid, "b")
            cast(pid, "c")
            assert await call(pid, "kept") == kept
    finally:
        telemetry.detach("t")
    which = "newest" if overflow is Overflow.DROP_NEWEST else "oldest"
    assert events == [{"pid": pid, "dropped": which}]


@pytest.mark.parametrize("overflow", [Overflow.REJECT, Overflow.WAIT])
async def test_a_policy_that_keeps_all_raises(
    clean_node: CleanNode, keeper: type[Keeper], overflow: Overflow
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(keeper, mailbox=MailboxLimit(2, overflow)))
        cast(pid, "a")
        send(pid, "b")
        with pytest.raises(MailboxFullError, match=r"is full \(2 messages\)") as caught:
            cast(pid, "c")
        with pytest.raises(MailboxFullError):
            send(pid, "c")
        assert (caught.value.to, caught.value.size) == (pid, 2)
        assert ("cast_wait" in str(caught.value)) is (overflow is Overflow.WAIT)
        assert await call(pid, "kept") == ("a", "b")


async def test_wait_waits_for_room_and_keeps_the_order(
    clean_node: CleanNode, keeper: type[Keeper]
) -> None:
    async with clean_node() as node:
        limit = MailboxLimit(1, Overflow.WAIT)
        pid = await node.start(child(keeper, mailbox=limit))
        await sys.suspend(pid)
        sent: list[int] = []

        async def fill() -> None:
            for number in range(5):
                await (cast_wait if number % 2 else send_wait)(pid, number)
                sent.append(number)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == [0]
            await sys.resume(pid)
        assert await call(pid, "kept") == (0, 1, 2, 3, 4)


async def test_a_cancelled_wait_sends_nothing(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Keeper, mailbox=MailboxLimit(1, Overflow.WAIT)))
        await sys.suspend(pid)
        cast(pid, 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await cast_wait(pid, 2)
        assert scope.cancelled_caught
        assert not node.processes[pid.number].room_spots
        await sys.resume(pid)
        assert await call(pid, "kept") == (1,)


async def test_a_wait_ends_when_the_process_does(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await node.start(
            child(
                Keeper,
                mailbox=MailboxLimit(1, Overflow.WAIT),
                restart=Restart.TEMPORARY,
            )
        )
        await sys.suspend(pid)
        cast(pid, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_wait, pid, 2)
            await trio.testing.wait_all_tasks_blocked()
            exit_process(pid, KILL)


async def test_a_wait_on_a_rejecting_mailbox_raises(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Keeper, mailbox=MailboxLimit(1, Overflow.REJECT)))
        cast(pid, 1)
        with pytest.raises(MailboxFullError):
            await cast_wait(pid, 2)


async def test_calls_downs_timers_and_own_messages_pass_the_bound(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    got: list[object] = []

    async def run() -> None:
        monitor("nobody")
        send_after(1.0, self_pid(), "timer")
        await trio.sleep(2.0)
        send(self_pid(), "own")
        while len(got) < 5:
            got.append(await receive())

    async with clean_node():
        pid = spawn(run, mailbox=MailboxLimit(1, Overflow.DROP_NEWEST))
        await trio.testing.wait_all_tasks_blocked()
        send(pid, "dropped")
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ServerDownError):
                    await call(pid, "call", timeout_s=None)

            nursery.start_soon(ask)
            await trio.sleep(3.0)
            send(pid, "kept")
    kinds = [type(m).__name__ if isinstance(m, Down | From) else m for m in got]
    assert kinds == ["Down", "From", "timer", "own", "kept"]


async def test_drop_oldest_never_drops_a_call(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        limit = MailboxLimit(1, Overflow.DROP_OLDEST)
        pid = await node.start(child(Keeper, mailbox=limit))
        await sys.suspend(pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, pid, "first")
            await trio.testing.wait_all_tasks_blocked()
            cast(pid, "no room")
            assert (await sys.get_status(pid)).queue_size == 1
            await sys.resume(pid)
        assert await call(pid, "kept") == ()


async def test_a_plain_process_makes_room_by_receiving(clean_node: CleanNode) -> None:
    got: list[object] = []
    go_on = trio.Event()

    async def run() -> None:
        await go_on.wait()
        while len(got) < 4:
            got.append(await receive(lambda m: m != "never"))

    async with clean_node():
        pid = spawn(run, mailbox=MailboxLimit(2, Overflow.WAIT))
        async with trio.open_nursery() as nursery:

            async def fill() -> None:
                for number in range(4):
                    await send_wait(pid, number)

            nursery.start_soon(fill)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
    assert got == [0, 1, 2, 3]


def test_a_bound_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="size=0: expected at least 1"):
        MailboxLimit(0, Overflow.REJECT)


async def test_a_long_mailbox_is_warned_of_once_and_when_it_has_doubled(
    clean_node: CleanNode, caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(Keeper))
        for size in (9_999, 10_000, 15_000, 20_000):
            for number in range(size - 1):
                cast(pid, number)
            await call(pid, "kept")
    found = [r.getMessage() for r in caplog.records if "does not keep up" in r.message]
    assert [text.split(" had ")[1].split(" messages")[0] for text in found] == [
        "10000",
        "20000",
    ]
