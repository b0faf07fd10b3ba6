"""The window of a stream, against a list that says the same slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomr.core.task_stream import StreamWindow


@given(
    max_concurrency=st.integers(1, 4),
    ordered=st.booleans(),
    size=st.integers(0, 12),
    choices=st.lists(st.integers(0, 3), max_size=60),
)
def test_a_window_does_what_the_list_does(
    max_concurrency: int, ordered: bool, size: int, choices: list[int]
) -> None:
    window = StreamWindow[str](max_concurrency, ordered=ordered)
    outside = max_concurrency * (2 if ordered else 1)
    running: list[int] = []
    waiting: list[int] = []
    pulled = 0
    taken: list[int] = []
    closed = False
    finished: list[int] = []

    for choice in choices:
        may_pull = (
            not closed
            and len(running) < max_concurrency
            and len(running) + len(waiting) < outside
        )
        following = len(taken) if ordered else next(iter(waiting), None)
        ready = following in waiting
        assert (window.may_pull, window.ready) == (may_pull, ready)
        assert (window.running, window.waiting) == (len(running), len(waiting))
        assert window.exhausted is (closed and not running and not waiting)
        if may_pull and choice in (0, 1):
            if pulled < size:
                assert window.pulled() == pulled
                running.append(pulled)
                pulled += 1
            else:
                window.close()
                closed = True
        elif running and choice in (1, 2):
            position = running.pop(choice % len(running))
            window.settle(position, f"r{position}")
            waiting.append(position)
            finished.append(position)
        elif ready and following is not None:
            assert window.take() == f"r{following}"
            waiting.remove(following)
            taken.append(following)

    assert taken == (sorted(taken) if ordered else finished[: len(taken)])


def test_results_wait_in_order_behind_a_slow_item_but_not_without_end() -> None:
    window = StreamWindow[int](2, ordered=True)
    slow = window.pulled()
    for _ in range(2):
        assert window.may_pull
        window.settle(window.pulled(), 1)
    assert window.may_pull
    window.pulled()
    assert (window.may_pull, window.ready) == (False, False)
    window.settle(slow, 0)
    assert (window.take(), window.take(), window.take()) == (0, 1, 1)
    assert window.may_pull
