"""Seeded schedules: the same order of tasks again, and many different ones.

In each turn of its loop trio runs all tasks that are runnable, in an order that
it draws.  That order is the only choice that trio makes, so under a virtual
clock and without I/O a seed for it fixes the whole run.

What is explored: the order of each batch.  Even seeds draw every order with the
same chance.  Odd seeds give each task a priority that it keeps, and redraw one
now and then, which finds the bugs that need one task to be late many times in a
row.  What is not: a runnable task is never held back for a whole turn (trio
itself never does that), nothing is preempted between two checkpoints, and the
order in which sockets, threads and child processes answer is the machine's.

What it takes from trio that is private: the generator that it draws from, and
the switch that sorts a batch before it is shuffled.  Both are used by
pytest-trio and Hypothesis too, and are the same since trio 0.22.

Source: Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees
of Finding Bugs", 2010, for the priorities.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

import attrs
import trio
import trio._core._run as trio_run
from trio.testing import MockClock

from atomr.errors import AtomrError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

R = TypeVar("R")

_GENERATOR: Final = "_r"
_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_REDRAW: Final = 1 / 16
"""Chance that a batch changes one task's priority."""

AVAILABLE: Final = hasattr(trio_run, _GENERATOR) and hasattr(trio_run, _SWITCH)
"""Whether this trio has what it takes."""


class NoScheduleError(AtomrError):
    """This version of trio offers no way to fix the order of tasks."""


class Schedule(random.Random):
    """One order of tasks; trio draws from it as from its own generator.

    Attributes:
        seed_number: where it comes from.
        order: stands for the orders drawn so far: two runs with the same one
            ran in the same order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.seed_number = seed
        self.order = 0
        self._priorities: WeakKeyDictionary[object, float] | None = None
        if seed % 2:
            self._priorities = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Schedule {self.seed_number}>"

    def shuffle(self, x: Any) -> None:  # noqa: ANN401 - as random.Random
        """Put a batch of tasks in order; trio runs the last one first."""
        if len(x) < 2:
            return
        places = list(range(len(x)))
        if self._priorities is None:
            super().shuffle(places)
        else:
            given = [self._priority(task, self._priorities) for task in x]
            places.sort(key=given.__getitem__)
        x[:] = [x[place] for place in places]
        self.order = hash((self.order, *places))

    def _priority(
        self, task: object, priorities: WeakKeyDictionary[object, float]
    ) -> float:
        if task not in priorities or self.random() < _REDRAW:
            priorities[task] = self.random()
        return priorities[task]


@contextmanager
def seeded(seed: int) -> Iterator[Schedule]:
    """Let each ``trio.run`` inside the block run under the schedule of that seed.

    One at a time: runs in several threads at once would share it.

    Raises:
        NoScheduleError: trio has changed too much.
    """
    if not AVAILABLE:
        raise NoScheduleError(f"seeded({seed}): trio {trio.__version__} lacks the hook")
    schedule = Schedule(seed)
    before = getattr(trio_run, _GENERATOR), getattr(trio_run, _SWITCH)
    setattr(trio_run, _GENERATOR, schedule)
    setattr(trio_run, _SWITCH, True)
    try:
        yield schedule
    finally:
        setattr(trio_run, _GENERATOR, before[0])
        setattr(trio_run, _SWITCH, before[1])


def run(
    async_fn: Callable[..., Awaitable[R]],
    *args: object,
    seed: int = 0,
    clock: trio.abc.Clock | None = None,
) -> R:
    """Run ``async_fn(*args)`` under one order of tasks, in virtual time.

    Args:
        async_fn: the test.
        args: its arguments.
        seed: of the order of tasks.
        clock: None: a MockClock that jumps when all tasks are blocked.  With a
            real clock the order depends on the machine as well.

    Returns:
        What it returned.

    Raises:
        NoScheduleError: trio has changed too much.
        BaseException: what it raised.
    """
    with seeded(seed):
        return _run(async_fn, args, clock)


def _run(
    async_fn: Callable[..., Awaitable[R]],
    args: tuple[object, ...],
    clock: trio.abc.Clock | None,
) -> R:
    # A fresh one for each run: a clock keeps its time.
    chosen = clock if clock is not None else MockClock(autojump_threshold=0.0)
    return trio.run(partial(async_fn, *args), clock=chosen)


@attrs.frozen
class Exploration:
    """What :func:`explore` did.

    Attributes:
        runs: how many there were.
        orders: how many of them differed in the order of tasks; with 1, nothing
            runs at the same time, and nothing was explored.
    """

    runs: int
    orders: int


def explore(
    async_fn: Callable[..., Awaitable[object]],
    *args: object,
    seeds: Iterable[int] = range(100),
) -> Exploration:
    """Run a test under many orders of tasks, until one fails.

    Args:
        async_fn: the test; run afresh for each seed, in virtual time.
        args: its arguments.
        seeds: one run for each.

    Raises:
        NoScheduleError: trio has changed too much.
        ValueError: there are no seeds, so nothing was run.
        BaseException: what the test raised, with a note that names the seed and
            says how to run it again.
    """
    orders = set()
    runs = 0
    for seed in seeds:
        with seeded(seed) as schedule:
            try:
                _run(_counted, (schedule, async_fn, args), None)
            except BaseException as error:
                error.add_note(_how_to_run_again(async_fn, args, seed))
                raise
        runs += 1
        orders.add(schedule.order)
    if not runs:
        raise ValueError(f"explore({async_fn!r}): there are no seeds")
    return Exploration(runs, len(orders))


async def _counted(
    schedule: Schedule,
    async_fn: Callable[..., Awaitable[object]],
    args: tuple[object, ...],
) -> None:
    # trio's own tasks began before this one, in an order that means nothing.
    schedule.order = 0
    await async_fn(*args)


def _how_to_run_again(
    async_fn: Callable[..., object], args: tuple[object, ...], seed: int
) -> str:
    name = getattr(async_fn, "__name__", repr(async_fn))
    call = ", ".join([name, *map(repr, args), f"seed={seed}"])
    return f"seed {seed} failed; run it again: atomr.testing.run({call})"
