"""A line of which only so many are at the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr_infer.policy.tenants.admission import Claim
from atomr_infer.serving.limits.turnstile import Turnstile

if TYPE_CHECKING:
    from trio.testing import MockClock


async def come(line: Turnstile, name: str, priority: int, came: list[str]) -> None:
    await line.come(priority)
    came.append(name)


async def all_of(line: Turnstile, *priorities: int) -> list[str]:
    """Let some come one after the other; return who was let through, in order."""
    came: list[str] = []
    async with trio.open_nursery() as nursery:
        for number, priority in enumerate(priorities):
            nursery.start_soon(come, line, f"{number}", priority, came)
            await trio.testing.wait_all_tasks_blocked()
        for _ in priorities:
            await trio.testing.wait_all_tasks_blocked()
            line.go()
    return came


async def test_the_more_urgent_goes_first_and_then_who_came_first() -> None:
    line = Turnstile(1)
    # The first one found nobody there.
    assert await all_of(line, 0, 0, 2, 1, 2) == ["0", "2", "4", "3", "1"]
    assert line.length == 0


@pytest.mark.parametrize("width", [1, 3])
async def test_so_many_are_at_the_front_at_once(width: int) -> None:
    line, came = Turnstile(width), list[str]()
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(come, line, f"{number}", 0, came)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(came), line.length) == (width, 5)
        for _ in range(5):
            line.go()
    assert line.length == 0
    # Nobody is there: the next ones need not wait.
    for _ in range(width):
        await line.come(0)


async def test_who_leaves_gives_its_turn_to_the_next(
    autojump_clock: MockClock,
) -> None:
    line, came = Turnstile(1), list[str]()
    await line.come(0)
    async with trio.open_nursery() as nursery:
        for number in range(3):
            with_left = trio.CancelScope(deadline=trio.current_time() + number)
            nursery.start_soon(leave_or_come, line, with_left, f"{number}", came)
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.5)
        assert line.length == 3
        line.go()
        await trio.testing.wait_all_tasks_blocked()
        assert came == ["1"]
        # Its turn comes in the moment in which it leaves.
        nursery.cancel_scope.cancel()
        line.go()
    assert line.length == 0
    await line.come(0)


async def leave_or_come(
    line: Turnstile, scope: trio.CancelScope, name: str, came: list[str]
) -> None:
    with scope:
        await come(line, name, 0, came)


async def test_tenants_take_turns_of_those_as_urgent() -> None:
    line, came = Turnstile(1), list[str]()

    async def pass_by(name: str, tenant: str) -> None:
        await line.come(0, Claim(((tenant, 1.0),)))
        came.append(name)
        line.go()

    async with trio.open_nursery() as nursery:
        await line.come(0)
        for number in range(9):
            nursery.start_soon(pass_by, f"flood{number}", "flood")
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pass_by, "single", "single")
        await trio.testing.wait_all_tasks_blocked()
        line.go()
    assert came.index("single") == 1
    assert line.length == 0
