"""Seeded schedules: the same again, and many different ones."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from atomr.otp import GenServer, cast
from atomr.process import link, self_pid, spawn, trap_exit
from atomr.testing import (
    Exploration,
    NoScheduleError,
    Probe,
    Schedule,
    explore,
    open_test_node,
    run,
    schedules,
    seeded,
    settle,
)

if TYPE_CHECKING:
    from atomr.core.exits import ExitReason


async def race(runners: int = 4, laps: int = 3) -> tuple[int, ...]:
    order: list[int] = []

    async def runner(number: int) -> None:
        for _ in range(laps):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(runners):
            nursery.start_soon(runner, number)
    return tuple(order)


async def lost_update() -> None:
    """Lose an update, in half of all orders."""
    balance = 0

    async def deposit(amount: int) -> None:
        nonlocal balance
        before = balance
        if amount == 1:
            await trio.lowlevel.checkpoint()
        balance = before + amount

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deposit, 1)
        nursery.start_soon(deposit, 2)
    assert balance == 3


def private() -> tuple[object, object]:
    return trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING


def test_a_seed_gives_the_same_order_each_time() -> None:
    for seed in range(8):
        assert run(race, seed=seed) == run(race, seed=seed)


def test_seeds_give_different_orders() -> None:
    assert len({run(race, seed=seed) for seed in range(0, 60, 2)}) == 30
    assert len({run(race, seed=seed) for seed in range(1, 60, 2)}) > 12


def test_every_order_of_a_batch_is_reached() -> None:
    for first in (0, 1):
        orders = {run(race, 3, 1, seed=seed) for seed in range(first, 100, 2)}
        assert orders == set(itertools.permutations(range(3)))


def test_odd_seeds_let_a_task_be_late_many_times_in_a_row() -> None:
    def always_last(seed: int) -> bool:
        order = run(race, 3, 8, seed=seed)
        return all(order[lap * 3 + 2] == order[2] for lap in range(8))

    late = [sum(map(always_last, range(first, 120, 2))) for first in (0, 1)]

    # By chance alone it is one in 2,000.
    assert late[0] == 0
    assert late[1] > 3


def test_a_node_under_a_seed_does_the_same_each_time() -> None:
    class Loud(GenServer):
        def __init__(self, name: int, log: list[object]) -> None:
            self.name, self.log = name, log

        def handle_cast(self, message: object) -> None:
            self.log.append((self.name, message))

        def terminate(self, reason: ExitReason) -> None:
            self.log.append((self.name, reason))

    async def linked(log: list[object], number: int, hub: Probe) -> None:
        link(hub.pid)
        try:
            await trio.sleep_forever()
        finally:
            log.append((number, self_pid().number))

    async def main() -> list[object]:
        log: list[object] = []
        async with open_test_node() as node:
            hub = Probe()
            servers = [await node.node.start(Loud(n, log)) for n in range(5)]
            for number in range(5):
                spawn(linked, log, number, hub)
            await settle()
            for server in servers:
                cast(server, "hello")
            hub.end(KeyError())
            await settle()
        return log

    logs = [run(main, seed=seed) for seed in (3, 3, 3, 4, 4, 4)]

    assert logs[:3] == [logs[0]] * 3
    assert logs[3:] == [logs[3]] * 3
    assert len(logs[0]) == 15


def test_the_order_of_signals_does_not_hang_on_addresses_in_memory() -> None:
    class Linked(GenServer):
        def __init__(self, number: int, hub: Probe, log: list[int]) -> None:
            self.number, self.hub, self.log = number, hub, log

        def init(self) -> None:
            trap_exit(enabled=True)
            link(self.hub.pid)

        def handle_info(self, message: object) -> None:
            self.log.append(self.number)

    async def main(noise: list[object], seed: int) -> list[int]:
        log: list[int] = []
        sizes = random.Random(seed)
        async with open_test_node() as node:
            hub = Probe()
            for number in range(30):
                noise += [bytearray(sizes.randrange(2000)) for _ in range(20)]
                await node.node.start(Linked(number, hub, log))
            hub.end()
            await settle()
        return log

    noise: list[object] = []
    assert [run(main, noise, n, seed=4) for n in range(4)] == [list(range(30))] * 4


@pytest.mark.parametrize("switch", [False, True])
def test_trio_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, *, switch: bool
) -> None:
    monkeypatch.setattr(trio_run, schedules._SWITCH, switch)
    before = private()
    with seeded(3) as schedule:
        assert private() == (schedule, True)
        with seeded(4) as inner:
            assert private() == (inner, True)
        assert private() == (schedule, True)
    assert private() == before
    with pytest.raises(KeyError), seeded(3):
        raise KeyError
    assert private() == before
    assert repr(schedule) == "<Schedule 3>"


def test_without_what_it_takes_nothing_is_pretended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedules, "AVAILABLE", False)
    with pytest.raises(NoScheduleError, match="lacks the hook"):
        run(race)
    with pytest.raises(NoScheduleError):
        explore(race)


def test_time_is_virtual_unless_a_clock_is_given() -> None:
    async def sleep_long() -> float:
        began_at = trio.current_time()
        await trio.sleep(3600)
        return trio.current_time() - began_at

    clock = MockClock(rate=1e9)

    assert run(sleep_long) == 3600
    assert run(sleep_long) == 3600
    assert run(sleep_long, clock=clock) >= 3600
    assert clock.current_time() >= 3600


def test_explore_names_the_seed_that_failed_and_how_to_run_it_again() -> None:
    with pytest.raises(AssertionError) as caught:
        explore(lost_update, seeds=range(50))

    [note] = caught.value.__notes__
    seed = int(note.split()[1])
    assert note == (
        f"seed {seed} failed; run it again: atomr.testing.run(lost_update, seed={seed})"
    )
    with pytest.raises(AssertionError):
        run(lost_update, seed=seed)
    for earlier in range(seed):
        run(lost_update, seed=earlier)


def test_explore_says_the_arguments_too() -> None:
    async def fail(_a: int, _b: str) -> None:
        raise KeyError

    with pytest.raises(KeyError) as caught:
        explore(fail, 3, "x", seeds=[7])

    [note] = caught.value.__notes__
    assert note.endswith("atomr.testing.run(fail, 3, 'x', seed=7)")


def test_explore_says_that_it_ran_nothing() -> None:
    seeds = iter(range(2))
    assert explore(race, seeds=seeds).runs == 2
    with pytest.raises(ValueError, match="there are no seeds"):
        explore(race, seeds=seeds)


def test_explore_counts_the_orders_that_it_saw() -> None:
    async def nothing_at_once() -> None:
        await trio.lowlevel.checkpoint()

    alone = explore(nothing_at_once, seeds=range(10))
    many = explore(race, seeds=range(50))

    assert alone == Exploration(runs=10, orders=1)
    assert many.runs == 50
    assert many.orders > 40


def test_one_task_draws_nothing() -> None:
    schedule = Schedule(0)
    state = random.Random.getstate(schedule)
    schedule.shuffle([object()])

    assert random.Random.getstate(schedule) == state


def test_tasks_that_ended_are_forgotten() -> None:
    with seeded(1) as schedule:
        trio.run(race)

    assert schedule._priorities is not None
    assert len(schedule._priorities) <= 1


@pytest.mark.seeds(3, 17)
async def test_the_marker_lists_seeds(schedule: int) -> None:
    assert schedule in (3, 17)
    assert repr(trio_run._r) == f"<Schedule {schedule}>"


@pytest.mark.seeds(2)
async def test_the_marker_counts_seeds() -> None:
    assert repr(trio_run._r) in ("<Schedule 0>", "<Schedule 1>")
