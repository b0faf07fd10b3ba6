"""Which requests of tensors share a run."""

from __future__ import annotations

import numpy as np

from atomr_infer.runtimes.tensor_runner import Asked, choose

MOST = 256


def waits(*shape: int, outputs: tuple[str, ...] = ("y",)) -> Asked:
    return Asked({"x": np.zeros(shape), "z": np.zeros(shape[:1])}, outputs)


def takes(first: Asked, rows: int) -> bool:
    return rows <= MOST


def test_the_next_run_is_the_first_and_those_like_it() -> None:
    first, other = waits(2, 3), waits(5, 3)
    wide, deep = waits(2, 4), waits(2, 3, outputs=("q",))
    uneven = Asked({"x": np.zeros((2, 3)), "z": np.zeros(1)}, ("y",))
    many = waits(MOST - 1, 3)
    assert choose([first, wide, uneven, deep, many, other], takes) == [first, other]
    assert choose([uneven, first], takes) == [uneven]
    one = waits(1, 3)
    assert choose([many, first, one], takes) == [many, one]


def test_who_failed_with_others_is_run_alone() -> None:
    first, failed = waits(2, 3), waits(2, 3)
    failed.is_alone = True
    assert choose([first, failed], takes) == [first]
    assert choose([failed, first], takes) == [failed]
