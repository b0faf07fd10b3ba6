"""async_stream: so many at the same time, no more input than that, no leak."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing

from atomr.core.child_spec import BRUTAL_KILL
from atomr.core.exits import KILL, KILLED, NORMAL, SHUTDOWN, ExitReason
from atomr.errors import (
    MaxChildrenError,
    NoProcessError,
    StartError,
    TaskExitError,
    TaskTimeoutError,
)
from atomr.otp import (
    Done,
    ItemExited,
    OnItemTimeout,
    Restart,
    TaskStream,
    TaskSupervisor,
    async_stream,
    async_stream_nolink,
    callers,
    child,
    task_children,
)
from atomr.process import (
    Node,
    exit_process,
    kill,
    self_pid,
    spawn,
    trap_exit,
    wait_exit,
    whereis,
)

CleanNode: TypeAlias = Callable[[], AbstractAsyncContextManager[Node]]
settle = trio.testing.wait_all_tasks_blocked
CRASH = ValueError("x")


Source: TypeAlias = Callable[..., Iterator[int] | AsyncIterator[int]]


@pytest.fixture(params=["sync", "async"])
def source(request: pytest.FixtureRequest) -> Source:
    """Return what makes an input of numbers: one that waits, or one that does not."""
    if request.param == "sync":
        return numbers
    return async_numbers


def numbers(stop: int | None = None, pulled: list[int] | None = None) -> Iterator[int]:
    for number in itertools.count() if stop is None else range(stop):
        if pulled is not None:
            pulled.append(number)
        yield number


async def async_numbers(
    stop: int | None = None, pulled: list[int] | None = None
) -> AsyncIterator[int]:
    for number in numbers(stop, pulled):
        await trio.lowlevel.checkpoint()
        yield number


async def same(number: int) -> int:
    return number


async def crash_at_two(number: int) -> int:
    await trio.sleep(number / 10)
    if number == 2:
        raise CRASH
    return number


async def forever(number: int) -> int:
    await trio.sleep_forever()


async def sleeps(seconds: float) -> float:
    await trio.sleep(seconds)
    return seconds


async def open_tasks(node: Node, max_children: int | None = None) -> None:
    await node.start(
        child(
            lambda: TaskSupervisor(max_children=max_children),
            id="tasks",
            name="tasks",
            restart=Restart.TEMPORARY,
        )
    )


async def process_of(fn: Callable[[], Awaitable[object]]) -> ExitReason:
    """Run ``fn`` as a process, and return why it ended."""
    return await wait_exit(spawn(fn))


async def all_of(stream: TaskStream[int, int]) -> list[object]:
    async with stream as results:
        return [result async for result in results]


# --- results ---------------------------------------------------------------------


@pytest.mark.parametrize("stream", [async_stream, async_stream_nolink])
@pytest.mark.parametrize("max_concurrency", [1, 3, 100])
async def test_results_come_in_the_order_of_the_input(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    stream: Callable[..., TaskStream[int, int]],
    max_concurrency: int,
    source: Source,
) -> None:
    """[Task.async_stream/5] A task for each item; the results come in the order of the
    input.
    """

    async def uneven(number: int) -> int:
        await trio.sleep(number * 7 % 5)
        return number

    async with clean_node() as node:
        await open_tasks(node)
        found = await all_of(
            stream("tasks", source(20), uneven, max_concurrency=max_concurrency)
        )
        assert found == [Done(number) for number in range(20)]


async def test_without_an_order_results_come_as_they_are_there(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
) -> None:
    """[Task.async_stream/5] ordered: without it they come as they are there."""

    async def uneven(number: int) -> int:
        await trio.sleep((10, 7, 3, 1, 8, 1)[number])
        return number

    async with clean_node() as node:
        await open_tasks(node)
        found = await all_of(
            async_stream(
                "tasks",
                source(6),
                uneven,
                max_concurrency=3,
                ordered=False,
                timeout_s=None,
            )
        )
        assert found == [Done(number) for number in (2, 3, 1, 5, 0, 4)]


@pytest.mark.parametrize(
    "options",
    [
        {"max_concurrency": 0},
        {"timeout_s": -1.0},
        {"timeout_s": math.nan},
        {"shutdown": -1.0},
        {"shutdown": math.nan},
    ],
)
def test_a_number_that_makes_no_sense_is_an_error_at_once(
    options: dict[str, Any],
) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*: expected"):
        async_stream("tasks", numbers(1), same, **options)


async def test_no_input_has_no_results(clean_node: CleanNode, source: Source) -> None:
    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream("tasks", source(0), same)
        async with stream as results:
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(results)


async def test_eight_run_at_the_same_time_unless_told_otherwise(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.async_stream/5] max_concurrency bounds how many run at a time.
    [Task.async_stream/5] differs: the default is 8. Elixir takes the number of cores,
      which says nothing of one thread that waits for the network.
    """
    running: list[int] = [0]
    most: list[int] = []

    async def run(number: int) -> int:
        running[0] += 1
        most.append(running[0])
        await trio.sleep(1)
        running[0] -= 1
        return number

    async with clean_node() as node:
        await open_tasks(node)
        await all_of(async_stream("tasks", range(40), run))
        assert (max(most), trio.current_time()) == (8, 5.0)


def test_less_than_one_at_a_time_is_refused() -> None:
    for stream in (async_stream, async_stream_nolink):
        with pytest.raises(ValueError, match="max_concurrency=0: expected at least 1"):
            stream("tasks", [1], same, max_concurrency=0)


async def test_a_stream_may_be_entered_again_but_not_twice_at_once(
    clean_node: CleanNode,
) -> None:
    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream("tasks", [1, 2], same)
        assert await all_of(stream) == await all_of(stream) == [Done(1), Done(2)]
        async with stream:
            with pytest.raises(RuntimeError, match="has been entered already"):
                async with stream:
                    pass


async def test_one_task_at_a_time_asks_for_results(clean_node: CleanNode) -> None:
    async with clean_node() as node:
        await open_tasks(node)
        async with async_stream("tasks", [100.0], sleeps) as results:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(anext, results)
                    await settle()
                    with pytest.raises(trio.BusyResourceError):
                        await anext(results)
                    scope.cancel()
        with pytest.raises(trio.ClosedResourceError):
            await anext(results)


# --- input -----------------------------------------------------------------------


@pytest.mark.parametrize(("ordered", "outside"), [(False, 3), (True, 6)])
async def test_a_slow_consumer_stops_the_input(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
    ordered: bool,
    outside: int,
) -> None:
    """[Task.async_stream/5] It is lazy: no item is taken before a result is asked for,
    and no more are than may run.
    """
    pulled: list[int] = []

    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream(
            "tasks",
            source(None, pulled),
            same,
            max_concurrency=3,
            ordered=ordered,
        )
        async with stream as results:
            await settle()
            assert pulled == []
            for taken in range(1, 30):
                await anext(results)
                await trio.sleep(1)
                assert taken <= len(pulled) <= taken + outside


async def test_a_slow_item_holds_a_bounded_number_of_results(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
) -> None:
    """[Task.async_stream/5] differs: results that wait in order are bounded. Elixir
    buffers as many as the input has.
    """
    pulled: list[int] = []

    async def first_is_slow(number: int) -> int:
        await trio.sleep(0 if number else 100)
        return number

    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream(
            "tasks",
            source(None, pulled),
            first_is_slow,
            max_concurrency=4,
            timeout_s=None,
        )
        async with stream as results:
            async for result in results:
                if result == Done(0):
                    assert trio.current_time() == 100.0
                    assert len(pulled) == 8
                if result == Done(50):
                    break


async def test_results_do_not_wait_for_a_slow_input(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    async def slowly() -> AsyncIterator[int]:
        for number in range(3):
            await trio.sleep(10)
            yield number

    times = []
    async with clean_node() as node:
        await open_tasks(node)
        async with async_stream("tasks", slowly(), same) as results:
            async for _ in results:
                times.append(trio.current_time())
    assert times == [10.0, 20.0, 30.0]


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_the_input_raises_is_raised_in_the_consumer(
    clean_node: CleanNode, schedule: int, ordered: bool
) -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise CRASH

    async def fails_too() -> AsyncIterator[int]:
        yield 1
        raise CRASH

    async with clean_node() as node:
        await open_tasks(node)
        for items in (fails(), fails_too()):
            with pytest.raises(ValueError, match="x") as caught:
                await all_of(async_stream("tasks", items, same, ordered=ordered))
            assert caught.value is CRASH
        async with async_stream("tasks", fails(), same) as results:
            for _ in range(2):
                with pytest.raises(ValueError, match="x"):
                    await anext(results)


async def test_a_generator_is_closed_when_the_block_is_left(
    clean_node: CleanNode, schedule: int
) -> None:
    closed: list[str] = []

    def sync() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append("sync")

    async def parked() -> AsyncIterator[int]:
        try:
            for number in itertools.count():
                yield number
        finally:
            closed.append("parked")

    async def waiting() -> AsyncIterator[int]:
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            closed.append("waiting")

    async with clean_node() as node:
        await open_tasks(node)
        for items in (sync(), parked(), waiting()):
            async with async_stream("tasks", items, same) as results:
                async for _ in results:
                    break
                await settle()
    assert closed == ["sync", "parked", "waiting"]


async def test_what_is_no_generator_is_left_as_it_is(clean_node: CleanNode) -> None:
    send, receive = trio.open_memory_channel[int](10)
    for number in range(10):
        send.send_nowait(number)
    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream("tasks", receive, same, max_concurrency=1)
        async with stream as results:
            assert await anext(results) == Done(0)
        assert receive.receive_nowait() in (1, 2)
    send.close()
    receive.close()


async def test_an_input_that_is_killed_is_an_error_not_an_end(
    clean_node: CleanNode, schedule: int
) -> None:
    async def never() -> AsyncIterator[int]:
        yield 1
        await trio.sleep_forever()

    async with clean_node() as node:
        await open_tasks(node)
        async with async_stream("tasks", never(), same) as results:
            await anext(results)
            await settle()
            [reader] = [
                p.pid for p in node.processes.values() if "input" in p.pid.label
            ]
            kill(reader)
            with pytest.raises(TaskExitError, match="input of a stream"):
                await anext(results)


async def test_an_input_that_is_killed_before_it_is_read_is_an_error_too(
    clean_node: CleanNode, schedule: int
) -> None:
    async def never() -> AsyncIterator[int]:
        await trio.Event().wait()
        yield 1

    async def kill_the_reader() -> None:
        while True:
            for process in tuple(node.processes.values()):
                if "input" in process.pid.label:
                    kill(process.pid)
                    return
            await trio.lowlevel.checkpoint()

    async with clean_node() as node:
        await open_tasks(node)
        async with (
            async_stream("tasks", never(), same) as results,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(kill_the_reader)
            with pytest.raises(TaskExitError, match="input of a stream"):
                await anext(results)


# --- failures ---------------------------------------------------------------------


async def test_a_failure_is_a_result_with_its_item_when_nothing_is_linked(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
) -> None:
    """[Task.Supervisor.async_stream_nolink/6] A failure is a result.
    [Task.async_stream/5] zip_input_on_exit: a failure comes with its item; here always.
    """
    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream_nolink("tasks", source(4), crash_at_two)
        assert await all_of(stream) == [
            Done(0),
            Done(1),
            ItemExited(CRASH, 2),
            Done(3),
        ]


async def test_a_failure_ends_the_process_that_a_stream_is_linked_to(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
) -> None:
    """[Task.Supervisor.async_stream/6] A failure ends the caller, and with it all
    tasks.
    """
    got: list[object] = []

    async def consumer() -> None:
        stream = async_stream("tasks", source(None), crash_at_two)
        async with stream as results:
            async for result in results:
                got.append(result)

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consumer) is CRASH
        assert await task_children("tasks") == ()
        assert node.size == 1
    assert got == [Done(0), Done(1)]


async def test_a_process_that_a_failure_ends_sees_no_more_results(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    got: list[object] = []

    async def consume() -> None:
        stream = async_stream("tasks", range(8), crash_at_two)
        async with stream as results:
            async for result in results:
                got.append(result)
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)  # meanwhile all of them end

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consume) is CRASH
    assert got == [Done(0)]


async def test_a_process_that_traps_exits_gets_a_result_and_no_messages(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.Supervisor.async_stream/6] A caller that traps exits gets the failure as a
    result.
    """

    async def consumer() -> None:
        trap_exit(True)
        found = await all_of(async_stream("tasks", range(4), crash_at_two))
        assert found == [Done(0), Done(1), ItemExited(CRASH, 2), Done(3)]
        assert node.processes[self_pid().number].queue_size == 0

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consumer) is NORMAL


async def test_a_failure_is_raised_in_a_consumer_that_is_no_process(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    got: list[object] = []

    async with clean_node() as node:
        await open_tasks(node)
        with pytest.raises(TaskExitError) as caught:
            async with async_stream("tasks", numbers(), crash_at_two) as results:
                async for result in results:
                    got.append(result)
        assert caught.value.__cause__ is CRASH
        assert got == [Done(0), Done(1)]
        assert await task_children("tasks") == ()


async def test_a_task_that_ends_itself_normally_fails_nobody(
    clean_node: CleanNode, schedule: int
) -> None:
    async def leave(number: int) -> int:
        exit_process(self_pid(), NORMAL)
        await trio.sleep_forever()

    async with clean_node() as node:
        await open_tasks(node)
        found = await all_of(async_stream("tasks", [1], leave))
        assert found == [ItemExited(NORMAL, 1)]


async def test_an_item_that_takes_too_long_fails_the_stream(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    """[Task.async_stream/5] on_timeout: by default the caller fails when an item takes
    longer than its time, 5 s if nothing is said.
    """
    async with clean_node() as node:
        await open_tasks(node)
        async with async_stream_nolink("tasks", [1.0, 9.0], sleeps) as results:
            assert await anext(results) == Done(1.0)
            for _ in range(2):
                with pytest.raises(TaskTimeoutError, match="not ended within 5"):
                    await anext(results)
            assert trio.current_time() == 5.0
            assert len(await task_children("tasks")) == 1
        assert await task_children("tasks") == ()


@pytest.mark.parametrize("stream", [async_stream, async_stream_nolink])
async def test_an_item_that_takes_too_long_may_be_killed_alone(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    stream: Callable[..., TaskStream[float, float]],
) -> None:
    """[Task.async_stream/5] on_timeout: kill_task ends that task, and its result says
    so.
    """
    found: list[object] = []

    async def consumer() -> None:
        run = stream(
            "tasks",
            [1.0, 9.0, 2.0],
            sleeps,
            timeout_s=3.0,
            on_timeout=OnItemTimeout.KILL_TASK,
        )
        async with run as results:
            found.extend([result async for result in results])

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consumer) is NORMAL
        assert trio.current_time() == 3.0

    assert [found[0], found[2]] == [Done(1.0), Done(2.0)]
    killed = found[1]
    assert isinstance(killed, ItemExited)
    assert isinstance(killed.reason, TaskTimeoutError)
    assert (killed.reason.timeout_s, killed.item) == (3.0, 9.0)


async def test_a_killed_task_keeps_its_place_until_it_has_ended(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    async def shields(number: int) -> int:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        return number

    async with clean_node() as node:
        await open_tasks(node)
        run = async_stream_nolink(
            "tasks",
            [1, 2],
            shields,
            max_concurrency=1,
            timeout_s=1,
            on_timeout=OnItemTimeout.KILL_TASK,
        )
        # What is returned in spite of the kill is a value.
        assert await all_of(run) == [Done(1), Done(2)]
        assert trio.current_time() == 20.0


async def test_the_time_of_an_item_begins_when_it_begins(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock
) -> None:
    """[Task.async_stream/5] The time is that of each task."""
    async with clean_node() as node:
        await open_tasks(node)
        items = [4.0] * 5
        async with async_stream("tasks", items, sleeps, max_concurrency=1) as results:
            assert [r async for r in results] == [Done(4.0)] * 5
        assert trio.current_time() == 20.0


async def test_a_supervisor_that_is_full_or_gone_fails_the_stream(
    clean_node: CleanNode, schedule: int, source: Source
) -> None:
    """[Task.Supervisor.async_stream/6] A supervisor that is full, or not there, is an
    error.
    """
    async with clean_node() as node:
        await open_tasks(node, max_children=2)
        for items in (numbers(9), async_numbers(9)):
            with pytest.raises(MaxChildrenError):
                await all_of(async_stream("tasks", items, forever, max_concurrency=3))
        assert await task_children("tasks") == ()
        with pytest.raises(NoProcessError):
            await all_of(async_stream("nobody", source(9), same))


async def test_a_supervisor_that_is_killed_meanwhile_fails_the_stream(
    clean_node: CleanNode, schedule: int, source: Source
) -> None:
    async def stopped_at_five(number: int) -> int:
        if number == 5:
            top = whereis("tasks")
            assert top is not None
            kill(top)
            await trio.sleep_forever()
        return number

    got: list[Done[int] | ItemExited[int]] = []
    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream_nolink("tasks", source(), stopped_at_five)
        with pytest.raises((NoProcessError, StartError)):
            async with stream as results:
                async for result in results:
                    got.append(result)
        await settle()
        assert node.processes == {}
    found = [r.value if isinstance(r, Done) else r.item for r in got]
    assert found == list(range(len(found)))
    assert {r.reason for r in got if isinstance(r, ItemExited)} <= {SHUTDOWN}


# --- leaving -----------------------------------------------------------------------


class LeftError(Exception):
    """What a consumer raises."""


@pytest.mark.parametrize("way", ["break", "raise", "cancel", "timeout"])
async def test_leaving_in_any_way_ends_all_tasks_before_control_returns(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    source: Source,
    way: str,
) -> None:
    """[Task.Supervisor.async_stream_nolink/4] When the stream halts, however, all tasks
    that still run are shut down: none is left behind.
    """
    running: set[int] = set()

    async def run(number: int) -> int:
        running.add(number)
        try:
            await trio.sleep(0 if number == 0 else 3)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            running.discard(number)
        return number

    async def consume(scope: trio.CancelScope) -> None:
        stream = async_stream("tasks", source(), run, max_concurrency=4)
        try:
            async with stream as results:
                async for result in results:
                    assert result == Done(0)
                    if way == "break":
                        break
                    if way == "raise":
                        raise LeftError
                    if way == "cancel":
                        scope.cancel()
        finally:
            assert running == set()

    async with clean_node() as node:
        await open_tasks(node)
        with trio.CancelScope() as scope:
            if way == "timeout":
                scope.deadline = 2.0
            if way == "raise":
                with pytest.raises(LeftError):
                    await consume(scope)
            else:
                await consume(scope)
        assert scope.cancelled_caught is (way in ("cancel", "timeout"))
        assert await task_children("tasks") == ()
        assert (node.size, node.timers.size) == (1, 0)
        assert trio.current_time() == (3.0 if way == "timeout" else 2.0)


async def test_an_input_that_gives_one_more_item_as_it_is_stopped_begins_no_task(
    clean_node: CleanNode, schedule: int
) -> None:
    more = trio.Event()
    begun: list[int] = []

    async def two_numbers() -> AsyncIterator[int]:
        yield 0
        with trio.CancelScope(shield=True):
            await more.wait()
        yield 1

    async def run(number: int) -> int:
        begun.append(number)
        return number if number == 0 else await forever(number)

    async with clean_node() as node:
        await open_tasks(node)
        async with async_stream("tasks", two_numbers(), run) as results:
            assert await anext(results) == Done(0)
            more.set()
        assert (await task_children("tasks"), begun) == ((), [0])


@pytest.mark.parametrize("whose", ["scope", "consumer", "supervisor"])
async def test_an_end_at_any_step_leaves_nothing(
    clean_node: CleanNode, schedule: int, source: Source, whose: str
) -> None:
    async def run(number: int) -> int:
        try:
            for _ in range(number % 3):
                await trio.lowlevel.checkpoint()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
        return number

    async def consumer() -> None:
        stream = async_stream_nolink("tasks", source(12), run, max_concurrency=3)
        try:
            with scope:
                async with stream as results:
                    async for _ in results:
                        await trio.lowlevel.checkpoint()
        except (NoProcessError, StartError):
            assert whose == "supervisor"

    for steps in range(0, 40, 3):
        async with clean_node() as node:
            await open_tasks(node)
            top = whereis("tasks")
            assert top is not None
            scope = trio.CancelScope()
            pid = spawn(consumer)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            if whose == "scope":
                scope.cancel()
            else:
                kill(pid if whose == "consumer" else top)
            await wait_exit(pid)
            await settle()
            left = {p.pid for p in node.processes.values()}
            assert left == (set() if whose == "supervisor" else {top})


@pytest.mark.parametrize(("shutdown", "took_s"), [(5.0, 2.0), (BRUTAL_KILL, 0.0)])
async def test_tasks_that_trap_exits_are_asked_when_the_block_is_left(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    shutdown: float,
    took_s: float,
) -> None:
    """[Task.Supervisor.async_stream/6] shutdown: the time that tasks which trap exits
    have, or brutal_kill.
    """

    async def closes(number: int) -> int:
        trap_exit(True)
        await trio.sleep(2)
        return number

    async with clean_node() as node:
        await open_tasks(node)
        stream = async_stream("tasks", range(3), closes, shutdown=shutdown)
        with trio.move_on_after(1):
            async with stream as results:
                await anext(results)
        assert trio.current_time() == max(1.0, took_s)


async def test_the_end_of_a_consuming_process_ends_the_tasks(
    clean_node: CleanNode, schedule: int, source: Source
) -> None:
    """[Task.async_stream/5] The end of the caller ends all tasks."""

    async def consumer() -> None:
        stream = async_stream_nolink("tasks", source(), forever)
        async with stream as results:
            await anext(results)

    async with clean_node() as node:
        await open_tasks(node)
        pid = spawn(consumer)
        await settle()
        assert len(await task_children("tasks")) == 8
        exit_process(pid, KILL)
        assert await wait_exit(pid) is KILLED
        assert await task_children("tasks") == ()


async def test_what_a_task_raises_while_it_is_stopped_fails_nobody(
    clean_node: CleanNode,
    autojump_clock: trio.testing.MockClock,
    schedule: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(number: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise CRASH

    async def consumer() -> None:
        async with async_stream("tasks", range(3), breaks) as results:
            with trio.move_on_after(1):
                await anext(results)

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consumer) is NORMAL
    assert caplog.text.count("crashed: ValueError('x')") == 3


async def test_a_stop_of_the_node_ends_streams_in_order(
    clean_node: CleanNode, autojump_clock: trio.testing.MockClock, schedule: int
) -> None:
    ended: list[ExitReason] = []

    async def consumer() -> None:
        async with async_stream_nolink("tasks", async_numbers(), forever) as results:
            async for result in results:
                assert isinstance(result, ItemExited)
                ended.append(result.reason)

    async with clean_node() as node:
        await open_tasks(node)
        spawn(consumer)
        await settle()
    assert set(ended) <= {SHUTDOWN}


async def test_an_item_that_was_taken_leaves_nothing_for_the_collector(
    clean_node: CleanNode,
) -> None:
    class Big:
        pass

    gone: list[weakref.ref[Big]] = []

    def bigs() -> Iterator[Big]:
        for _ in range(20):
            big = Big()
            gone.append(weakref.ref(big))
            yield big
            del big

    async def use(big: Big) -> int:
        return 1

    async with clean_node() as node:
        await open_tasks(node)
        gc.disable()
        try:
            stream = async_stream("tasks", bigs(), use, max_concurrency=2)
            async with stream as results:
                assert [result async for result in results] == [Done(1)] * 20
                await settle()
                assert {ref() for ref in gone} == {None}
        finally:
            gc.enable()


# --- callers -----------------------------------------------------------------------


async def test_tasks_of_a_stream_know_their_caller_and_its_context(
    clean_node: CleanNode, source: Source
) -> None:
    """[Task: Ancestor and Caller Tracking] The caller of a task of a stream is who
    consumes it.
    """
    request: ContextVar[str] = ContextVar("request", default="none")

    async def known(number: int) -> tuple[object, str]:
        return callers(), request.get()

    async def consumer() -> None:
        request.set("r1")
        stream = async_stream("tasks", source(3), known)
        async with stream as results:
            found = [result async for result in results]
        assert found == [Done(((self_pid(),), "r1"))] * 3

    async with clean_node() as node:
        await open_tasks(node)
        assert await process_of(consumer) is NORMAL
