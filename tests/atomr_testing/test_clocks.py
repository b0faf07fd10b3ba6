"""Virtual time: what advance and settle bring about."""

from __future__ import annotations

import time
from math import inf, nan
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from atomr.errors import CallTimeoutError
from atomr.otp import GenServer, Supervisor, call, cast, child
from atomr.process import send_after, spawn, whereis
from atomr.testing import (
    NoVirtualTimeError,
    Probe,
    TestNode,
    advance,
    open_test_node,
    settle,
)


class Fragile(GenServer):
    def handle_cast(self, message: object) -> None:
        raise ValueError(message)


async def silent() -> None:
    await trio.sleep_forever()


async def test_a_call_timeout_takes_no_real_time(
    node: TestNode, virtual_clock: MockClock
) -> None:
    began_at = time.monotonic()
    outcomes: list[BaseException] = []

    async def ask(pid: Any) -> None:
        try:
            await call(pid, "hello?")
        except CallTimeoutError as error:
            outcomes.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, spawn(silent))
        await advance(4.999)
        assert outcomes == []
        await advance(0.001)
        assert [type(error) for error in outcomes] == [CallTimeoutError]

    assert trio.current_time() == 5.0
    assert time.monotonic() - began_at < trio.current_time()


async def test_restarts_with_backoff_come_when_they_are_due(
    virtual_clock: MockClock,
) -> None:
    async with open_test_node(allow_crashes=True) as node:
        tree = Supervisor(
            [child(Fragile, name="fragile")], backoff_s=1.0, max_restarts=10
        )
        await node.start_supervised(tree)
        alive = []
        for wait_s in (0.5, 0.5, 1.0, 1.0):
            if whereis("fragile") is not None:
                cast("fragile", "x")
            await advance(wait_s)
            alive.append(whereis("fragile") is not None)

    # It waits 1 s, and then 2 s.
    assert alive == [False, True, False, True]


async def test_a_timer_armed_by_a_timer_fires_when_it_is_due(
    virtual_clock: MockClock,
) -> None:
    ticks = []

    async def tick() -> None:
        while True:
            await trio.sleep(0.7)
            ticks.append(round(trio.current_time(), 6))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await advance(2.2)
        assert ticks == [0.7, 1.4, 2.1]
        await advance(0)
        await advance(10)
        assert ticks[-1] == 11.9
        assert len(ticks) == 17
        nursery.cancel_scope.cancel()

    assert trio.current_time() == pytest.approx(12.2)


async def test_a_deadline_at_the_very_end_is_met(virtual_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for tenths in range(1, 100):
            nursery.start_soon(trio.sleep, tenths / 10)
            await advance(0.0)
        for _ in range(99):
            # A tenth is no binary fraction: the sum goes astray.
            await advance(0.1)
        await settle()
        assert nursery.child_tasks == set()


async def test_under_an_autojump_clock_time_moves_as_far_as_it_is_told(
    node: TestNode, autojump_clock: MockClock
) -> None:
    probe = Probe()
    send_after(1, probe.pid, "one")
    send_after(3, probe.pid, "three")

    await advance(2)

    assert (trio.current_time(), probe.messages) == (2.0, ("one",))


def test_it_works_without_pytest() -> None:
    async def main() -> float:
        await advance(5)
        return trio.current_time()

    assert trio.run(main, clock=MockClock()) == 5.0


async def test_a_real_clock_cannot_be_moved() -> None:
    with pytest.raises(NoVirtualTimeError, match="this run has a SystemClock"):
        await advance(1)


@pytest.mark.parametrize("seconds", [-1, nan, inf])
async def test_time_does_not_go_back_nor_to_its_end(
    virtual_clock: MockClock, seconds: float
) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        await advance(seconds)
    assert trio.current_time() == 0.0


async def test_a_cancelled_advance_leaves_time_where_it_was(
    virtual_clock: MockClock,
) -> None:
    with trio.move_on_after(3) as scope:
        await advance(10)

    assert scope.cancelled_caught
    assert trio.current_time() == 3.0


async def test_settle_waits_until_all_that_can_happen_has() -> None:
    steps = []

    async def work() -> None:
        for number in range(100):
            await trio.lowlevel.checkpoint()
            steps.append(number)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await settle()
        assert len(steps) == 100
