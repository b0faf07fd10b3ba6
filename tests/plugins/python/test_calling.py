"""What code raises as an error of ours, also from a nursery."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from atomr_infer.errors import EngineError, OverloadedError
from atomr_infer_python.calling import as_ours, pieces_of
from atomr_infer_python.thread import PinnedThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BUG = KeyError("k")
BUSY, OTHER = OverloadedError("come again"), OverloadedError("another one")


@pytest.mark.parametrize(
    ("leaves", "kind", "told"),
    [
        ([BUSY, OTHER], OverloadedError, "come again"),
        ([ExceptionGroup("", [BUSY])], OverloadedError, "come again"),
        ([BUSY, BUG], EngineError, "m failed: KeyError: 'k'"),
        ([ExceptionGroup("", [BUSY, BUG])], EngineError, "m failed: KeyError: 'k'"),
        ([MemoryError("x")], EngineError, "m is out of memory: MemoryError: x"),
    ],
)
def test_a_group_is_told_as_one_of_its_errors_a_bug_first(
    leaves: list[Exception], kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind) as raised, as_ours("m"):
        raise ExceptionGroup("of a nursery", leaves)

    assert str(raised.value) == told


def test_an_exit_in_a_nursery_is_told_and_ends_nothing_else() -> None:
    with pytest.raises(EngineError, match="m failed: SystemExit: 3"), as_ours("m"):
        raise BaseExceptionGroup("of a nursery", [BUSY, SystemExit(3)])


async def test_a_cancellation_goes_on_though_a_child_fails_at_its_end() -> None:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BUG

    with trio.CancelScope() as scope, as_ours("m"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()

    assert scope.cancelled_caught


def test_an_interrupt_in_a_nursery_goes_on() -> None:
    with pytest.raises(BaseExceptionGroup) as raised, as_ours("m"):
        raise BaseExceptionGroup("of a nursery", [KeyboardInterrupt(), BUG])

    assert [type(each) for each in raised.value.exceptions] == [KeyboardInterrupt]


async def fails_in_a_nursery(_: str) -> AsyncIterator[str]:
    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise BUG

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        yield "one"


async def ends_in_a_nursery(_: str) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        yield "one"


async def fails(_: str) -> AsyncIterator[str]:
    try:
        yield "one"
    finally:
        raise BUG


def exits_in_its_thread(_: str) -> Iterator[str]:
    try:
        yield "one"
    finally:
        raise SystemExit(3)


async def first_of(function: Callable[[str], object]) -> object:
    """Close it behind its first piece, as where a text ends the answer."""
    with PinnedThread("m") as thread:
        pieces = pieces_of(function, "x", thread=thread, who="m")
        async with aclosing(pieces):
            return await anext(pieces)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (fails_in_a_nursery, "m failed: KeyError: 'k'"),
        (fails, "m failed: KeyError: 'k'"),
        (exits_in_its_thread, "m failed: SystemExit: 3"),
    ],
)
async def test_what_fails_as_it_is_closed_is_told_as_ours(
    function: Callable[[str], object], told: str
) -> None:
    with pytest.raises(EngineError) as raised:
        await first_of(function)

    assert str(raised.value) == told


async def test_a_nursery_may_be_closed_in_the_middle() -> None:
    assert await first_of(ends_in_a_nursery) == "one"
