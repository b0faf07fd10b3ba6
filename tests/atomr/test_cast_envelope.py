"""A cast to a server without a task has a shorter envelope, which nobody sees."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.core.messages import IdleTimeout
from atomr.interop import from_thread
from atomr.otp import (
    Cast,
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
from atomr.process import send, wait_exit

if TYPE_CHECKING:
    from tests.atomr.conftest import CleanNode

settle = trio.testing.wait_all_tasks_blocked


class Lean(GenServer):
    def __init__(self) -> None:
        self.log: list[object] = []

    def handle_call(self, request: object, from_: From) -> Reply:
        return Reply(list(self.log))

    def handle_cast(self, message: object) -> NoReply | None:
        if message == "crash":
            raise ValueError("asked to")
        if message == "wait":
            return NoReply(timeout_s=1.0)
        self.log.append(("cast", message))
        return None

    def handle_info(self, message: object) -> None:
        self.log.append(("info", message))


class Tasked(Lean):
    async def handle_info(self, message: object) -> None:  # type: ignore[override]
        super().handle_info(message)


@pytest.fixture(params=[Lean, Tasked])
def kind(request: pytest.FixtureRequest) -> type[Lean]:
    """A server without a task, and one with."""
    found: type[Lean] = request.param
    return found


async def test_whatever_looks_like_an_envelope_is_what_it_was_sent_as(
    clean_node: CleanNode, kind: type[Lean]
) -> None:
    messages: tuple[object, ...] = ((), ("a", 1), (object,), Cast(("x",)), [], None)
    async with clean_node() as node:
        pid = await node.start(kind())
        await settle()
        expected: list[object] = []
        for alone in (False, True):
            for message in messages:
                send(pid, message)
                if alone:
                    # Handled one by one, not as one batch.
                    await settle()
                cast(pid, message)
                if alone:
                    await settle()
                is_cast = type(message) is Cast
                sent = ("cast", "x") if is_cast else ("info", message)
                expected += [sent, ("cast", message)]
        assert await call(pid, None) == expected


async def test_it_does_not_matter_how_it_is_cast(
    clean_node: CleanNode, kind: type[Lean]
) -> None:
    limit = MailboxLimit(10, Overflow.WAIT)
    async with clean_node() as node:
        pid = await node.start(child(kind, mailbox=limit))
        await cast_wait(pid, 1)
        await trio.to_thread.run_sync(from_thread.cast, pid, 2)
        cast(pid, 3)
        await settle()
        expected = [("cast", 1), ("cast", 2), ("cast", 3)]
        assert await call(pid, None) == expected


async def test_a_trace_shows_a_cast(clean_node: CleanNode, kind: type[Lean]) -> None:
    seen: list[object] = []
    async with clean_node() as node:
        pid = await node.start(kind())
        await sys.trace(pid, lambda event: seen.append(event.message))
        cast(pid, 1)
        await settle()
    assert seen == [Cast((1,)), Cast((1,))]
    assert [type(each) for each in seen] == [Cast, Cast]


async def test_a_crash_report_shows_what_was_cast(
    clean_node: CleanNode, kind: type[Lean], caplog: pytest.LogCaptureFixture
) -> None:
    async with clean_node() as node:
        pid = await node.start(child(kind, restart=Restart.TEMPORARY))
        await settle()
        for message in ("crash", "second", "third"):
            cast(pid, message)
        with caplog.at_level(logging.ERROR):
            await wait_exit(pid)
    text = caplog.text
    assert "last message: 'crash'" in text
    assert "2 messages wait: 'second', 'third'" in text


async def test_a_cast_of_many_disarms_the_idle_timer(
    clean_node: CleanNode,
    kind: type[Lean],
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with clean_node() as node:
        pid = await node.start(kind())
        for message in ("wait", 1, "wait", 2):
            cast(pid, message)
        await trio.sleep(2.0)
        assert await call(pid, None) == [("cast", 1), ("cast", 2)]
        cast(pid, "wait")
        await trio.sleep(2.0)
        expected = [("cast", 1), ("cast", 2), ("info", IdleTimeout())]
        assert await call(pid, None) == expected
