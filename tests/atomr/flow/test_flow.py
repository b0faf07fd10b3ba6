"""What comes out of a flow, and how it ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from atomr import flow
from atomr.core.child_spec import Restart
from atomr.errors import FlowRestartsError, RootExitError
from atomr.flow import KillSwitch, OnError, Retry
from atomr.otp import Supervisor, child
from atomr.process import PlainProcess, open_node, wait_exit
from tests.atomr.flow.counted import Counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trio.testing import MockClock


def is_even(number: int) -> bool:
    return number % 2 == 0


async def doubled(number: int) -> int:
    await trio.sleep(1.0)
    return number * 2


def fails_at(bad: int, number: int) -> int:
    if number == bad:
        raise ValueError(f"{bad} is bad")
    return number


# --- what comes out -----------------------------------------------------------------


async def test_steps_are_taken_in_the_order_in_which_they_are_written() -> None:
    numbers = flow.from_iterable(range(6))

    assert await numbers.map(lambda n: n + 1).filter(is_even).collect() == [2, 4, 6]
    assert await numbers.filter(is_even).map(lambda n: n + 1).collect() == [1, 3, 5]
    assert await numbers.flat_map(range).collect() == [
        *range(1),
        *range(2),
        *range(3),
        *range(4),
        *range(5),
    ]
    assert await numbers.scan(0, lambda total, n: total + n).collect() == [
        0, 1, 3, 6, 10, 15
    ]  # fmt: skip


async def test_a_flow_runs_again_with_states_of_its_own() -> None:
    sums = flow.from_iterable([1, 2, 3]).scan(0, lambda total, n: total + n).take(2)

    assert [await sums.collect(), await sums.collect()] == [[1, 3], [1, 3]]


async def test_sinks_drain_fold_and_send() -> None:
    seen: list[int] = []
    send, receive = trio.open_memory_channel[int](10)
    numbers = flow.from_iterable(range(4)).tap(seen.append)

    assert await numbers.drain() == 4
    assert await numbers.fold(10, lambda total, n: total + n) == 16
    await numbers.send_to(send)
    assert [receive.receive_nowait() for _ in range(4)] == [0, 1, 2, 3]
    assert seen == [0, 1, 2, 3] * 3


async def test_a_channel_gives_what_is_there_and_stays_open() -> None:
    send, receive = trio.open_memory_channel[int](10)
    for number in range(5):
        send.send_nowait(number)

    async with flow.from_channel(receive).open() as stream:
        assert list(await stream.pull(3)) == [0, 1, 2]
        assert list(await stream.pull(3)) == [3, 4]
        send.close()
        assert list(await stream.pull(3)) == []
        assert list(await stream.pull(3)) == []
    receive.clone()  # would raise, were it closed


async def test_an_async_generator_is_closed_when_its_flow_ends_early() -> None:
    ended: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                await trio.lowlevel.checkpoint()
                yield number
        finally:
            ended.append("closed")

    taken = flow.from_async_iterable(numbers).take(2)

    assert await taken.collect() == [0, 1]
    assert await taken.collect() == [0, 1]
    assert ended == ["closed"] * 2


async def test_a_generator_is_closed_and_its_events_before_an_error_come_out() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the file ends")

    seen: list[int] = []

    with pytest.raises(OSError, match="the file ends"):
        await flow.from_iterable(numbers()).tap(seen.append).drain()
    assert seen == [1, 2]


async def test_a_tick_is_given_on_time_and_what_was_missed_is_left_out(
    autojump_clock: MockClock,
) -> None:
    seen: list[tuple[int, float]] = []
    began_at = trio.current_time()

    async with flow.tick(2.0).open(max_demand=1) as stream:
        async for number in stream:
            seen.append((number, trio.current_time() - began_at))
            if number == 1:
                await trio.sleep(5.0)
            if number > 3:
                break

    assert seen == [(0, 0.0), (1, 2.0), (3, 7.0), (4, 8.0)]


async def test_batches_are_full_but_for_the_last() -> None:
    batches = flow.from_iterable(range(5)).batch(2)

    assert await batches.collect() == [(0, 1), (2, 3), (4,)]


async def test_a_batch_waits_no_longer_than_its_first_event_may(
    autojump_clock: MockClock,
) -> None:
    ticks = flow.tick(1.0).take(7).batch(3, within_s=1.5)
    began_at = trio.current_time()
    seen: list[tuple[tuple[int, ...], float]] = []

    async with ticks.open() as stream:
        async for batch in stream:
            seen.append((batch, trio.current_time() - began_at))

    # Each first event waits for one more, and half a second in vain.
    assert seen == [((0, 1), 1.5), ((2, 3), 3.5), ((4, 5), 5.5), ((6,), 6.0)]


async def test_a_throttle_lets_its_burst_pass_and_then_its_rate(
    autojump_clock: MockClock,
) -> None:
    times: list[float] = []
    began_at = trio.current_time()

    await (
        flow.from_iterable(range(6))
        .throttle(2.0, burst=3)
        .tap(lambda _: times.append(trio.current_time() - began_at))
        .drain()
    )

    assert times == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


async def test_a_throttle_saves_no_more_permits_than_its_burst(
    autojump_clock: MockClock,
) -> None:
    async with flow.from_iterable(range(9)).throttle(10.0, burst=2).open() as stream:
        await trio.sleep(60)
        assert list(await stream.pull(9)) == [0, 1]
        assert list(await stream.pull(9)) == [2]


# --- async functions ----------------------------------------------------------------


@pytest.mark.parametrize(("concurrency", "taken_s"), [(1, 6.0), (2, 3.0), (6, 1.0)])
async def test_calls_run_at_the_same_time_up_to_the_bound_and_keep_their_order(
    autojump_clock: MockClock, concurrency: int, taken_s: float
) -> None:
    began_at = trio.current_time()
    made = flow.from_iterable(range(6)).map_async(doubled, concurrency=concurrency)

    assert await made.collect() == [0, 2, 4, 6, 8, 10]
    assert trio.current_time() - began_at == pytest.approx(taken_s)


async def test_unordered_results_come_as_they_are_there(
    autojump_clock: MockClock,
) -> None:
    async def wait(length_s: float) -> float:
        await trio.sleep(length_s)
        return length_s

    lengths = flow.from_iterable([3.0, 1.0, 2.0])
    unordered = lengths.map_async(wait, concurrency=3, ordered=False)

    assert await unordered.collect() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_failed_call_is_tried_again_with_growing_waits(
    autojump_clock: MockClock, concurrency: int
) -> None:
    times: list[float] = []
    began_at = trio.current_time()

    async def flaky(number: int) -> int:
        times.append(trio.current_time() - began_at)
        if len(times) < 4:
            raise OSError("busy")
        return number

    retry = Retry(attempts=4, backoff_s=1.0, max_backoff_s=2.0, on=(OSError,))
    asked = flow.from_iterable([7]).map_async(
        flaky, concurrency=concurrency, retry=retry
    )

    assert await asked.collect() == [7]
    assert times == [0.0, 1.0, 3.0, 5.0]


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_the_last_error_of_a_call_fails_the_flow_behind_what_came_before(
    autojump_clock: MockClock, concurrency: int
) -> None:
    seen: list[int] = []

    async def ask(number: int) -> int:
        await trio.sleep(1.0)
        return fails_at(2, number)

    asked = flow.from_iterable(range(9)).map_async(ask, concurrency=concurrency)

    with pytest.raises(ValueError, match="2 is bad") as raised:
        await asked.tap(seen.append).drain()
    assert seen == [0, 1]
    assert "map_async" in raised.value.__notes__[0]


# --- errors -------------------------------------------------------------------------


async def test_an_error_keeps_its_type_and_says_its_stage() -> None:
    seen: list[int] = []
    broken = flow.from_iterable(range(9)).map(partial(fails_at, 3)).tap(seen.append)

    with pytest.raises(ValueError, match="3 is bad") as raised:
        await broken.drain()
    assert seen == [0, 1, 2]
    assert raised.value.__notes__ == ["in the flow's stage map(fails_at)"]


async def test_of_two_errors_in_a_batch_the_earlier_events_is_raised() -> None:
    broken = (
        flow.from_iterable(range(9))
        .map(partial(fails_at, 5))
        .map(lambda n: 1 // (n - 3))
    )

    with pytest.raises(ZeroDivisionError):
        await broken.drain()


async def test_a_skipped_event_is_logged_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    numbers = flow.from_iterable([1, 2, 0, 4])
    skipping = numbers.map(lambda n: 4 // n, on_error=OnError.SKIP)

    async def ask(number: int) -> int:
        return fails_at(2, number)

    assert await skipping.collect() == [4, 2, 1]
    asking = numbers.map_async(ask, on_error=OnError.SKIP)
    assert await asking.collect() == [1, 0, 4]
    concurrent = numbers.map_async(ask, on_error=OnError.SKIP, concurrency=2)
    assert await concurrent.collect() == [1, 0, 4]
    assert len(caplog.records) == 3
    assert "ZeroDivisionError" in caplog.messages[0]


async def test_a_flow_that_failed_is_over() -> None:
    async with flow.from_iterable([0, 1]).map(lambda n: 1 // n).open() as stream:
        with pytest.raises(ZeroDivisionError):
            await stream.pull(2)
        assert await stream.pull(2) == ()


async def test_an_error_of_the_block_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with flow.from_iterable([1]).buffer(2).open():
            raise KeyError("mine")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.map(doubled), "map: doubled: expected a plain function"),
        (lambda f: f.map_async(is_even), "map_async: is_even: expected an async"),
        (lambda f: f.batch(0), "size=0: expected at least 1"),
        (lambda f: f.batch(2, within_s=0), "within_s=0: expected seconds, above 0"),
        (lambda f: f.buffer(2, when_full="fail"), "did you mean WhenFull.FAIL"),
        (lambda f: f.take(-1), "count=-1: expected at least 0"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(
    make: object, message: str
) -> None:
    assert callable(make)
    with pytest.raises((TypeError, ValueError), match=message):
        make(flow.from_iterable([1]))


# --- restarts -----------------------------------------------------------------------


async def test_a_restart_begins_anew_and_loses_what_was_on_its_way(
    autojump_clock: MockClock,
) -> None:
    source, crashes = Counted(12), iter([4])

    def crash(number: int) -> int:
        if number == bad:
            raise OSError("crash")
        return number

    bad = next(crashes)
    restarted = source.flow().map(crash).restarted(1, backoff_s=3.0)
    began_at = trio.current_time()

    # The source goes on, as a channel does; 4 to 7 were taken out with the crash.
    assert await restarted.collect(max_demand=8) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert (source.opened, trio.current_time() - began_at) == (2, 3.0)


async def test_a_state_is_made_anew_with_its_stage() -> None:
    send, receive = trio.open_memory_channel[int](10)
    for number in (1, 2, 0, 3, 4):
        send.send_nowait(number)
    send.close()
    ratios = flow.from_channel(receive).map(lambda n: 12 // n)

    sums = ratios.scan(0, lambda total, n: total + n).restarted()

    assert await sums.collect(max_demand=1) == [12, 18, 4, 7]


async def test_restarts_have_an_intensity(autojump_clock: MockClock) -> None:
    source = Counted()

    def crash(number: int) -> int:
        raise OSError(f"crash {number}")

    with pytest.raises(
        FlowRestartsError, match="after 2 restarts within 5 s"
    ) as raised:
        await source.flow().map(crash).restarted(2, 5.0).drain(max_demand=1)
    assert str(raised.value.__cause__) == "crash 2"
    assert source.opened == source.closed - 1 == 3


async def test_a_supervisor_restarts_a_flow_that_is_a_process() -> None:
    runs: list[int] = []

    async def run() -> None:
        runs.append(len(runs))
        await flow.from_iterable([1, 0]).map(lambda n: 1 // n).drain()

    top = Supervisor(
        [child(partial(PlainProcess, run), id="flow", restart=Restart.PERMANENT)],
        max_restarts=2,
    )
    with pytest.raises(RootExitError, match="GaveUp"):
        async with open_node() as node:
            await wait_exit(await node.start(top))

    assert runs == [0, 1, 2]


# --- ends from outside --------------------------------------------------------------


async def test_a_switch_ends_a_flow_as_if_it_had_no_more(
    autojump_clock: MockClock,
) -> None:
    switch, source = KillSwitch(), Counted()
    until = source.flow().throttle(1.0).until(switch).map(lambda n: n * 10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, 2.5, switch.shutdown)
        assert await until.collect() == [0, 10, 20]

    assert (switch.used, source.closed > 0, source.given) == (True, True, 3)
    assert await until.collect() == []


async def test_a_switch_ends_a_flow_with_an_error(autojump_clock: MockClock) -> None:
    switch = KillSwitch()
    until = flow.tick(1.0).buffer(5).until(switch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_later, 2.5, lambda: switch.abort(OSError("enough")))
        with pytest.raises(OSError, match="enough"):
            await until.drain()


async def _later(after_s: float, do: object) -> None:
    assert callable(do)
    await trio.sleep(after_s)
    do()


@pytest.mark.parametrize("kind", ["inline", "buffer", "concurrent", "merge", "fan"])
async def test_cancelling_a_run_ends_all_its_stages(
    autojump_clock: MockClock, kind: str
) -> None:
    ended: list[str] = []

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                await trio.sleep(1.0)
                yield 1
        finally:
            ended.append("source")

    async def slow(number: int) -> int:
        try:
            await trio.sleep(3600)
        finally:
            ended.append("call")
        return number

    source = flow.from_async_iterable(endless)
    flows = {
        "inline": source.map_async(slow),
        "buffer": source.buffer(3).map_async(slow),
        "concurrent": source.map_async(slow, concurrency=3),
        "merge": source.merge(source).map_async(slow),
        "fan": source.broadcast(lambda f: f.map_async(slow), lambda f: f.take(1)),
    }

    with pytest.raises(trio.TooSlowError), trio.fail_after(10.0):
        await flows[kind].drain()

    assert ended.count("source") == (2 if kind == "merge" else 1)
    assert ended.count("call") == (3 if kind == "concurrent" else 1)
