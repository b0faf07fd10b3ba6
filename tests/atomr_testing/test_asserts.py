"""Expectations of a test that is a process itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.errors import NotAProcessError
from atomr.otp import Cast, cast
from atomr.process import self_pid, send, send_after, spawn, wait_exit
from atomr.testing import (
    ExpectationError,
    TestNode,
    assert_receive,
    assert_received,
    refute_receive,
    refute_received,
)

if TYPE_CHECKING:
    from trio.testing import MockClock


def said(caught: pytest.ExceptionInfo[ExpectationError]) -> list[str]:
    return str(caught.value).splitlines()


async def test_a_message_is_waited_for_and_others_stay(
    node: TestNode, autojump_clock: MockClock
) -> None:
    async with node.as_process() as me:
        send(me, "other")
        send_after(0.5, me, ("ok", 3))

        assert await assert_receive(("ok", int)) == ("ok", 3)
        assert trio.current_time() == 0.5
        assert await assert_received(str) == "other"


async def test_a_missing_message_fails_with_what_waits(
    node: TestNode, autojump_clock: MockClock
) -> None:
    async with node.as_process() as me:
        send(me, "a")
        send(me, "b")
        await assert_received("a")
        send(me, "c")
        with pytest.raises(ExpectationError) as caught:
            await assert_receive(int, timeout_s=2)

        assert trio.current_time() == 2
        assert caught.value.__context__ is None
        assert said(caught) == [
            f"{me!r} expected int within 2 s",
            "waiting:",
            "  'b'",
            "  'c'",
        ]
        with pytest.raises(ExpectationError, match="int to be there"):
            await assert_received(int)


async def test_where_the_clock_stands_it_fails_at_once(
    node: TestNode, virtual_clock: MockClock
) -> None:
    async def answer(to: Any) -> None:
        await trio.lowlevel.checkpoint()
        send(to, "soon")

    async with node.as_process() as me:
        spawn(answer, me)
        assert await assert_receive(str) == "soon"
        with pytest.raises(ExpectationError):
            await assert_receive(str)


async def test_a_message_that_must_not_come_fails(
    node: TestNode, autojump_clock: MockClock
) -> None:
    async with node.as_process() as me:
        refute_received("x")
        await refute_receive("x")
        send_after(3, me, "x")
        await refute_receive("x", for_s=2)
        with pytest.raises(ExpectationError) as caught:
            await refute_receive("x", for_s=2)

        assert said(caught) == [
            f"{me!r} expected no message like this, but got 'x'",
            "all that waits:",
            "  'x'",
        ]
        began_at = trio.current_time()
        with pytest.raises(ExpectationError):
            await refute_receive("x", for_s=2)
        assert trio.current_time() == began_at  # it is there: nothing to wait for
        refute_received(int)
        with pytest.raises(ExpectationError):
            refute_received(str)
        assert await assert_received("x") == "x"


async def test_what_must_not_come_must_not_come_in_a_cast(
    node: TestNode, autojump_clock: MockClock
) -> None:
    async with node.as_process() as me:
        cast(me, 3)
        await refute_receive(str)
        refute_received(str)
        with pytest.raises(ExpectationError, match="but got cast 3"):
            await refute_receive(int)
        with pytest.raises(ExpectationError, match="but got cast 3"):
            refute_received(int)
        assert await assert_received(Cast)


async def test_a_clock_that_stands_is_moved(
    node: TestNode, virtual_clock: MockClock
) -> None:
    async with node.as_process() as me:
        send_after(3, me, "x")
        await refute_receive("x", for_s=2)
        with pytest.raises(ExpectationError):
            await refute_receive("x", for_s=1)


async def test_a_spawned_test_may_use_them(node: TestNode) -> None:
    async def test() -> None:
        send(self_pid(), 1)
        await assert_receive(2, timeout_s=0.0)

    async with node.expect_crash(error=ExpectationError) as crash:
        await wait_exit(spawn(test))

    assert "expected 2" in str(crash.reason)


async def test_elsewhere_they_say_that_there_is_no_process(node: TestNode) -> None:
    with pytest.raises(NotAProcessError):
        await assert_receive(int)
    with pytest.raises(NotAProcessError):
        refute_received(int)
