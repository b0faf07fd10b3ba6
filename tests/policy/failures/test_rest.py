"""A key that was told to wait is left alone until then, and not for ever."""

from __future__ import annotations

import pytest

from atomr_infer.policy.failures.rest import MAX_REST_S, RESTING, Rest


def test_key_that_was_told_nothing_may_be_used() -> None:
    rest = Rest()
    rest.told(None, now=10.0)
    rest.told(0.0, now=10.0)
    assert rest.refusal(10.0) is None


def test_key_rests_for_as_long_as_it_was_told() -> None:
    rest = Rest()
    rest.told(7.0, now=10.0)
    refusal = rest.refusal(12.0)
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == (RESTING, 5.0)
    assert "asked again in 5 s" in refusal.message
    assert rest.rests(16.999)
    assert rest.refusal(17.0) is None


@pytest.mark.parametrize("waits", [(7.0, 2.0), (2.0, 7.0)])
def test_longest_wait_of_a_wave_holds(waits: tuple[float, float]) -> None:
    rest = Rest()
    for wait_s in waits:
        rest.told(wait_s, now=10.0)
    assert rest.rests(16.0)
    assert not rest.rests(17.0)


def test_wait_without_end_is_asked_about_now_and_then_and_told_whole() -> None:
    rest = Rest()
    rest.told(86_400.0, now=0.0)
    refusal = rest.refusal(MAX_REST_S - 1)
    assert refusal is not None
    assert refusal.retry_after_s == 86_400.0 - MAX_REST_S + 1
    assert rest.refusal(MAX_REST_S) is None


def test_another_key_does_not_rest() -> None:
    rest = Rest()
    rest.told(7.0, now=10.0)
    rest.over()
    assert rest.refusal(10.0) is None
