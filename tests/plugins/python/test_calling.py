"""What code raises as an error of ours, also from a nursery."""

from __future__ import annotations

import pytest
import trio

from atomr_infer.errors import EngineError, OverloadedError
from atomr_infer_python.calling import as_ours

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
