"""What code raises as an error of ours, also from a nursery."""

from __future__ import annotations

import pytest

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
