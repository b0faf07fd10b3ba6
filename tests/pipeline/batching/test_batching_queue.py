"""Which items go into the next batch, and when it begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_infer.errors import ConfigError
from atomr_infer.model.usage import Usage
from atomr_infer.pipeline.asking.options import from_table
from atomr_infer.pipeline.batching.queue import BatchingOptions, BatchQueue, BatchRules
from atomr_infer.policy.estimates.shared_usage import split_usage

if TYPE_CHECKING:
    from collections.abc import Iterable


def queue(**rules: Any) -> BatchQueue[str]:
    return BatchQueue(BatchRules(**rules))


def push(waiting: BatchQueue[str], keys: Iterable[str], **more: Any) -> None:
    for key in keys:
        waiting.push(key, "lane", **{"size": 1, "now": 0.0, **more})


def taken(waiting: BatchQueue[str], now: float = 0.0) -> str:
    batch = waiting.take(now)
    return "" if batch is None else "".join(batch.keys)


def test_who_comes_alone_waits_for_nobody_and_the_next_ones_for_the_batch() -> None:
    waiting = queue(max_wait_s=1.0)
    push(waiting, "a")
    first = waiting.take(0.0)
    assert first is not None
    push(waiting, "bc", now=0.5)
    assert (first.keys, taken(waiting, 0.5), waiting.next_at()) == (("a",), "", 1.5)
    waiting.ended(first)
    assert taken(waiting, 0.6) == "bc"


def test_items_wait_for_so_long_while_a_batch_is_under_way() -> None:
    waiting = queue(max_wait_s=1.0)
    push(waiting, "a")
    assert taken(waiting) == "a"
    push(waiting, "b", now=0.5)
    push(waiting, "c", now=1.0)
    assert (taken(waiting, 1.4), taken(waiting, 1.5)) == ("", "bc")


def test_a_wait_that_is_always_is_so_of_the_first_one_too() -> None:
    waiting = queue(max_wait_s=1.0, wait="always", max_batch=3)
    push(waiting, "ab")
    assert (taken(waiting), waiting.next_at()) == ("", 1.0)
    push(waiting, "c")
    assert taken(waiting) == "abc"


def test_a_full_batch_waits_for_nobody_but_for_its_turn() -> None:
    waiting = queue(max_batch=2, concurrency=2, max_wait_s=9.0)
    push(waiting, "abcdefg")
    assert [taken(waiting) for _ in range(3)] == ["ab", "cd", ""]
    assert waiting.next_at() == math.inf
    assert (len(waiting), waiting.under_way) == (3, 2)


def test_a_batch_holds_so_many_tokens_or_one_item() -> None:
    waiting = queue(max_tokens=10, concurrency=9)
    for key, size in (("a", 4), ("b", 6), ("c", 1), ("d", 25), ("e", 1)):
        push(waiting, key, size=size)
    assert [taken(waiting) for _ in range(4)] == ["ab", "c", "d", ""]


def test_lanes_and_sizes_are_kept_apart() -> None:
    waiting = queue(buckets=(8, 64), concurrency=9)
    for key, size in (("a", 8), ("b", 9), ("c", 1), ("d", 900), ("e", 64)):
        push(waiting, key, size=size)
    waiting.push("f", "other", size=1, now=0.0)
    assert [taken(waiting) for _ in range(5)] == ["ac", "be", "d", "f", ""]


def test_the_higher_priority_goes_first_and_who_has_waited_long_before_it() -> None:
    waiting = queue(max_batch=2, concurrency=9)
    push(waiting, "a", now=0.0)
    push(waiting, "b", now=11.0, priority=1)  # a step is worth ten seconds
    push(waiting, "c", now=11.0, priority=2)
    push(waiting, "d", now=12.0)
    assert (taken(waiting, 12.0), taken(waiting, 12.0)) == ("ca", "bd")


def test_who_leaves_is_in_no_batch_and_leaves_nothing_behind() -> None:
    waiting = queue()
    push(waiting, "abc")
    assert (waiting.remove("b"), waiting.remove("b")) == (True, False)
    batch = waiting.take(0.0)
    assert batch is not None
    assert batch.keys == ("a", "c")
    waiting.ended(batch)
    assert vars(waiting)["_kinds"] == {}
    with pytest.raises(ValueError, match="waits already"):
        push(waiting, "dd")


STEPS = st.lists(
    st.tuples(
        st.sampled_from("pprte"),
        st.integers(0, 40),
        st.integers(0, 2),
        st.integers(1, 30),
        st.sampled_from([0.0, 0.5, 3.0]),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from(["adaptive", "always"]))
def test_every_item_is_in_one_batch_of_its_kind_and_none_waits_too_long(
    steps: list[tuple[str, int, int, int, float]], wait: str
) -> None:
    rules = BatchRules(
        max_batch=3, max_tokens=40, max_wait_s=1.0, wait=wait, concurrency=2,
        buckets=(10,),
    )  # fmt: skip
    waiting: BatchQueue[int] = BatchQueue(rules)
    here: dict[int, tuple[int, int, float]] = {}
    running: list[Any] = []
    now = 0.0
    for number, (step, which, lane, size, pause) in enumerate(steps):
        now += pause
        if step == "p":
            waiting.push(number, lane, size=size, now=now, priority=lane)
            here[number] = (lane, size, now)
        elif step == "r":
            assert waiting.remove(which) == (here.pop(which, None) is not None)
        elif step == "e" and running:
            waiting.ended(running.pop())
        while (batch := waiting.take(now)) is not None:
            running.append(batch)
            found = [here.pop(key) for key in batch.keys]
            assert 1 <= len(found) <= 3
            assert len({(lane, size > 10) for lane, size, _ in found}) == 1
            assert len(found) == 1 or sum(size for _, size, _ in found) <= 40
        assert len(running) <= 2
        assert len(waiting) == len(here)
        if len(running) < 2:
            assert all(now < at + 1.0 for _, _, at in here.values())
            assert waiting.next_at() == min(
                (at + 1.0 for _, _, at in here.values()), default=math.inf
            )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_batch": 0}, "max_batch: 0 must be at least 1"),
        ({"wait": "never"}, "wait: 'never' is none of 'adaptive', 'always'"),
        ({"wait": "always", "max_wait_s": 0}, "nobody would wait"),
        ({"buckets": [8, 8]}, r"buckets: \[8, 8\] do not grow"),
        ({"buckets": ["8"]}, "buckets: '8' is no number of at least 1"),
        ({"max_wait": 1}, "did you mean 'max_wait_s'"),
    ],
)
def test_what_no_batch_can_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_table(BatchingOptions, {"model": "m", **options}, where="options")


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any),
    st.integers(0, 10_000),
    st.integers(0, 99),
)
def test_the_parts_of_a_usage_are_the_whole(
    weights: list[int], read: int, cached: int
) -> None:
    whole = Usage(input_uncached=read, cache_read=cached)
    parts = split_usage(whole, weights)
    assert sum(part.input_uncached for part in parts) == read
    assert sum(part.cache_read for part in parts) == cached
    total = sum(weights)
    for weight, part in zip(weights, parts, strict=True):
        assert abs(part.input_uncached - read * weight / total) <= 1
