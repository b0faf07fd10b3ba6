"""Many small questions are asked together, and each has its own answer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from atomr.otp import KILL, Supervisor, which_children
from atomr.process import exit_process, open_node
from atomr.refs import Pid
from atomr_infer.errors import (
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    UpstreamError,
)
from atomr_infer.pipeline.batching.queue import BatchRules
from atomr_infer.pipeline.batching.server import DynamicBatchingServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio.testing import MockClock


class Work:
    """Doubles numbers, a batch a second.

    Attributes:
        batches: what it was asked.
        cancelled: batches that were ended.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[Any, ...]] = []
        self.cancelled = 0

    async def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(tuple(items))
        try:
            await trio.sleep(1.0)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if "down" in items:
            raise UpstreamError("it is down")
        if "bad" in items:
            raise InvalidRequestError("it is bad")
        if "short" in items:
            return []
        if "nothing" in items:
            return None  # type: ignore[return-value] # that is the test
        return [ValueError(each) if each == "odd" else each * 2 for each in items]


Server = DynamicBatchingServer[Any, Any]


@asynccontextmanager
async def opened(work: Work, **rules: Any) -> AsyncIterator[Server]:
    server = Server(
        work,
        BatchRules(**rules),
        divides=lambda error: isinstance(error, InvalidRequestError),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        await trio.testing.wait_all_tasks_blocked()
        yield server
        nursery.cancel_scope.cancel()


async def together(server: Server, *items: Any) -> list[Any]:
    """Ask for each in a task of its own, in order; return results or errors."""
    found: dict[int, Any] = {}

    async def ask(number: int) -> None:
        try:
            found[number] = await server.ask(items[number])
        except Exception as error:  # noqa: BLE001 - it is looked at
            found[number] = error

    async with trio.open_nursery() as nursery:
        for number in range(len(items)):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
    return [found[number] for number in range(len(items))]


async def test_what_comes_while_a_batch_runs_is_the_next_one(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, concurrency=1) as server:
        assert await together(server, 1, 2, 3, 4) == [2, 4, 6, 8]
        assert trio.current_time() == pytest.approx(2.0, abs=0.01)
        assert (server.waiting, server.under_way, server.batches) == (0, 0, 2)
    assert work.batches == [(1,), (2, 3, 4)]


async def test_who_comes_alone_has_no_wait(autojump_clock: MockClock) -> None:
    async with opened(Work(), max_wait_s=0.5) as server:
        for number in range(3):
            assert await server.ask(number) == 2 * number
        assert trio.current_time() == pytest.approx(3.0)


async def test_a_wait_ends_though_nothing_else_happens(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, max_wait_s=0.25) as server:
        assert await together(server, 1, 2, 3) == [2, 4, 6]
        assert trio.current_time() == pytest.approx(1.25)
    assert work.batches == [(1,), (2, 3)]


async def test_an_item_may_fail_by_itself(autojump_clock: MockClock) -> None:
    async with opened(Work(), wait="always") as server:
        one, odd, two = await together(server, 1, "odd", 2)
    assert (one, two) == (2, 4)
    assert isinstance(odd, ValueError)


async def test_a_batch_that_fails_is_each_ones_own_failure(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, wait="always") as server:
        one, other = await together(server, 1, "down")
    assert (type(one), str(one)) == (type(other), str(other))
    assert isinstance(one, UpstreamError)
    assert one is not other
    assert len(work.batches) == 1


async def test_who_is_to_blame_fails_alone_and_the_others_have_their_results(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, wait="always") as server:
        *good, bad = await together(server, 1, 2, 3, 4, 5, 6, 7, "bad")
    assert good == [2, 4, 6, 8, 10, 12, 14]
    assert isinstance(bad, InvalidRequestError)
    assert [len(batch) for batch in work.batches] == [8, 4, 4, 2, 2, 1, 1]


async def test_work_that_returns_too_little_fails_and_nobody_waits_on(
    autojump_clock: MockClock,
) -> None:
    async with opened(Work(), wait="always") as server:
        found = await together(server, 1, "short")
    assert {str(each) for each in found} == {
        "a batch's work returned 0 results for 2 items"
    }


async def test_work_that_returns_nothing_fails_and_the_server_works_on(
    autojump_clock: MockClock,
) -> None:
    async with opened(Work(), wait="always") as server:
        found = await together(server, 1, "nothing")
        assert {type(each) for each in found} == {TypeError}
        assert await together(server, 2) == [4]


async def test_who_leaves_harms_nobody_and_the_last_one_ends_the_batch(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, wait="always", max_batch=2) as server:
        with trio.move_on_after(0.5) as left:
            assert await together(server, 1, 2, 3) == []
        assert left.cancelled_caught
        # Both had left when this returns, and what waited is in no batch.
        assert (work.cancelled, server.waiting, server.under_way) == (2, 0, 0)

        async def leave() -> None:
            with trio.move_on_after(0.5):
                await server.ask(4)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
            assert await server.ask(5) == 10
    assert work.cancelled == 2
    assert work.batches == [(1, 2), (3,), (5, 4)]


async def test_one_of_several_batches_of_a_request_fails_and_the_rest_is_there(
    autojump_clock: MockClock,
) -> None:
    async with opened(Work(), max_batch=2) as server:
        found = await server.ask_all([1, 2, "down", 4, 5], sizes=[1] * 5)
        assert await server.ask_all([], sizes=[]) == []
    assert [each for each in found if not isinstance(each, Exception)] == [2, 4, 10]


async def test_items_without_a_size_are_refused_and_none_of_them_waits(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with opened(work, wait="always") as server:
        with pytest.raises(ValueError, match="1 sizes are given for 2 items"):
            await server.ask_all([1, 2], sizes=[1])
        assert server.waiting == 0
        assert await together(server, 3) == [6]
    assert work.batches == [(3,)]


async def test_a_full_queue_refuses(autojump_clock: MockClock) -> None:
    async with opened(Work(), max_queue=2, concurrency=1) as server:
        found = await together(server, 1, 2, 3, 4)
    assert found[:3] == [2, 4, 6]
    assert isinstance(found[3], OverloadedError)


async def test_nobody_waits_for_a_server_that_does_not_run(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    async with trio.open_nursery() as asking:
        found: list[str] = []

        async def ask(item: Any) -> None:
            with pytest.raises(NotReadyError) as raised:
                await server.ask(item)
            found.append(str(raised.value))

        async with opened(work, concurrency=1) as server:
            asking.start_soon(ask, 1)
            asking.start_soon(ask, 2)
            await trio.sleep(0.5)
        asking.start_soon(ask, 3)
    assert found == ["the batching server was stopped"] * 3
    assert work.cancelled == 1


async def test_a_supervisor_starts_it_anew_and_who_waited_is_told(
    autojump_clock: MockClock,
) -> None:
    work = Work()
    server = Server(work)

    async def ask() -> None:
        with pytest.raises(NotReadyError, match="was stopped"):
            await server.ask(1)

    async with open_node() as node:
        top = await node.start(Supervisor([server.child("batches")]))
        [batches] = await which_children(top)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            assert isinstance(batches.pid, Pid)
            exit_process(batches.pid, KILL)
        await trio.testing.wait_all_tasks_blocked()
        assert await server.ask(2) == 4
    assert work.batches == [(1,), (2,)]
