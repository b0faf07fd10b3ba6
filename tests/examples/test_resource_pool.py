"""The resource pool: nothing that was lent is lost, whoever dies when."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr.errors import CallTimeoutError, NotAProcessError
from atomr.otp import TaskSupervisor, async_nolink, child, start_task
from atomr.process import exit_process, kill, open_node, wait_exit, whereis
from tests.examples.loading import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

settle = trio.testing.wait_all_tasks_blocked


@pytest.fixture(scope="module")
def pool() -> ModuleType:
    return load("resource_pool")


@asynccontextmanager
async def running(pool: ModuleType) -> AsyncIterator[None]:
    async with open_node() as node:
        await node.start(child(pool.pool))
        await node.start(child(TaskSupervisor, name="borrowers"))
        yield
    assert node.processes == {}
    assert node.timers.size == 0


async def test_who_is_no_process_cannot_borrow(pool: ModuleType) -> None:
    async with running(pool):
        with pytest.raises(NotAProcessError):
            async with pool.DATABASE.checkout():
                pytest.fail("nobody would give it back")
        assert await pool.DATABASE.status() == pool.Status(2, 0, 0)


async def test_who_asked_first_is_served_first(
    pool: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    served: list[int] = []

    async def borrow(number: int) -> None:
        async with pool.DATABASE.checkout(timeout_s=100):
            served.append(number)
            await trio.sleep(1 + number / 10)

    async with running(pool):
        for number in range(6):
            last = start_task("borrowers", borrow, number)
            await settle()
        assert await pool.DATABASE.status() == pool.Status(0, 2, 4)
        await wait_exit(last)

    assert served == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_borrower_that_is_killed_gives_back_or_leaves_the_line(
    pool: ModuleType, waiting: bool
) -> None:
    async def hold() -> None:
        await pool.DATABASE.take()
        await trio.sleep_forever()

    async with running(pool):
        pids = []
        for _ in range(3):
            pids.append(start_task("borrowers", hold))
            await settle()
        victim = pids[2] if waiting else pids[0]
        kill(victim)
        await wait_exit(victim)

        expected = pool.Status(0, 2, 0)
        assert await pool.DATABASE.status() == expected


async def test_a_broken_connection_is_replaced_while_it_is_lent_and_while_it_is_free(
    pool: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    async def break_one() -> None:
        async with pool.DATABASE.checkout() as database:
            exit_process(database.connection, RuntimeError("gone"))
            await trio.sleep(1)

    async with running(pool):
        await async_nolink("borrowers", break_one).result()
        assert await pool.DATABASE.status() == pool.Status(2, 0, 0)

        async def break_free_one() -> None:
            async with pool.DATABASE.checkout() as database:
                connection = database.connection
            exit_process(connection, RuntimeError("gone"))

        await async_nolink("borrowers", break_free_one).result()
        await trio.sleep(1)
        assert await pool.DATABASE.status() == pool.Status(2, 0, 0)


async def test_connections_join_a_pool_that_was_restarted(
    pool: ModuleType, autojump_clock: trio.testing.MockClock
) -> None:
    async with running(pool):
        kill(whereis(pool.DATABASE.name))  # type: ignore[arg-type]
        await trio.sleep(1)
        assert await pool.DATABASE.status() == pool.Status(2, 0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_nothing_is_lost_in_a_storm_of_time_outs_cancellations_and_kills(
    pool: ModuleType, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    chance = random.Random(seed)

    def moment() -> float:
        # Few values, so that a loan and a time-out often meet in one instant.
        return chance.choice((0.0, 0.1, 0.1, 0.2, 0.3))

    async def borrow(until_s: float, hold_s: float, wait_s: float, keep: bool) -> None:
        loan = None
        with trio.move_on_after(until_s), suppress(CallTimeoutError):
            loan = await pool.DATABASE.take(timeout_s=wait_s)
            await trio.sleep(hold_s)
        if loan is not None and keep:
            return
        if loan is not None:
            pool.DATABASE.give_back(loan.ticket)
        await trio.sleep_forever()  # with nothing, so its end gives nothing back

    async with running(pool):
        pids = []
        for _ in range(60):
            keep = chance.random() < 0.5
            wait_s = moment() + 0.1
            pids.append(
                start_task("borrowers", borrow, moment(), moment(), wait_s, keep)
            )
            if chance.random() < 0.3:
                await trio.sleep(moment())
            if chance.random() < 0.3:
                kill(chance.choice(pids))
        await trio.sleep(10)

        assert await pool.DATABASE.status() == pool.Status(2, 0, 0)
