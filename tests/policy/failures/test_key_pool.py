"""The key pool, rule by rule, and against its promises over random histories."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule
from hypothesis.strategies import floats, integers, none, one_of, sampled_from

from atomr_infer import errors
from atomr_infer.policy.failures.key_pool import (
    KeyPool,
    KeyPoolLimits,
    KeyState,
    Pick,
    Refusal,
    refusal_of,
)

LIMITS = KeyPoolLimits(
    probe_s=10.0, max_probe_s=40.0, payment_probe_s=100.0, rest_s=1.0, max_rest_s=4.0
)


def pool_of(*weights: int) -> KeyPool:
    return KeyPool(weights, LIMITS)


def pick(pool: KeyPool, now: float, **tried: tuple[int, ...]) -> Pick:
    found = pool.pick(now, **tried)
    assert found is not None
    return found


def refuse(
    pool: KeyPool, found: Pick, why: Refusal, now: float, told: float | None = None
) -> None:
    pool.refused(found, why, now=now, retry_after_s=told)


def kill(pool: KeyPool, now: float) -> None:
    refuse(pool, pick(pool, now), Refusal.CREDENTIAL, now)


# --- turns ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "turns"),
    [
        ((1, 1, 1), [0, 1, 2, 0, 1, 2]),
        ((2, 1), [0, 1, 0, 0, 1, 0]),
        ((1,), [0, 0, 0, 0, 0, 0]),
    ],
)
def test_fresh_keys_take_turns_by_weight(
    weights: tuple[int, ...], turns: list[int]
) -> None:
    pool = pool_of(*weights)
    assert [pick(pool, 0.0).key for _ in turns] == turns


def test_a_request_is_not_given_a_key_that_it_has_tried() -> None:
    pool = pool_of(1, 1)
    assert pick(pool, 0.0, tried=(0,)).key == 1
    assert pool.pick(0.0, tried=(0, 1)) is None


def test_a_pool_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="a pool needs a key"):
        KeyPool([])


# --- 429 --------------------------------------------------------------------


def test_a_key_rests_as_long_as_the_upstream_says() -> None:
    pool = pool_of(1, 1)
    refuse(pool, pick(pool, 0.0), Refusal.RATE, 0.0, told=30.0)
    assert {pick(pool, 29.9).key for _ in range(4)} == {1}
    assert {pick(pool, 30.0).key for _ in range(4)} == {0, 1}


def test_a_rest_of_no_length_doubles_with_each_refusal_up_to_its_bound() -> None:
    pool = pool_of(1)
    now, rests = 0.0, []
    for _ in range(4):
        refuse(pool, pick(pool, now), Refusal.RATE, now)
        wait_s = pool.exhausted(now).retry_after_s
        assert wait_s is not None
        rests.append(wait_s)
        now += wait_s
    assert rests == [1.0, 2.0, 4.0, 4.0]
    pool.accepted(pick(pool, now))
    refuse(pool, pick(pool, now), Refusal.RATE, now)
    assert pool.exhausted(now).retry_after_s == 1.0


def test_a_wave_of_refusals_is_one_and_the_longest_wait_holds() -> None:
    pool = pool_of(1)
    wave = [pick(pool, 0.0) for _ in range(3)]
    for found, told in zip(wave, (5.0, 50.0, 2.0), strict=True):
        refuse(pool, found, Refusal.RATE, 0.0, told)
    assert pool.exhausted(0.0).retry_after_s == 50.0


def test_an_upstream_cannot_ask_for_more_than_a_day() -> None:
    pool = pool_of(1)
    refuse(pool, pick(pool, 0.0), Refusal.RATE, 0.0, told=1e12)
    assert pool.exhausted(0.0).retry_after_s == 86400.0


def test_when_all_rest_the_error_says_the_shortest_wait() -> None:
    pool = pool_of(1, 1)
    refuse(pool, pick(pool, 0.0), Refusal.RATE, 0.0, told=30.0)
    refuse(pool, pick(pool, 0.0), Refusal.RATE, 0.0, told=20.0)
    assert pool.pick(5.0) is None
    error = pool.exhausted(5.0)
    assert isinstance(error, errors.RateLimitedError)
    assert (error.retry_after_s, error.code) == (15.0, "key_pool_resting")


# --- 401, 402, 403 ----------------------------------------------------------


def test_a_dead_key_is_probed_with_growing_intervals() -> None:
    pool = pool_of(1)
    now, waits = 0.0, []
    kill(pool, now)
    for _ in range(4):
        died_at = now
        while (found := pool.pick(now)) is None:
            now += 1.0
        waits.append(now - died_at)
        assert found.is_probe
        refuse(pool, found, Refusal.CREDENTIAL, now)
    assert waits == [10.0, 20.0, 40.0, 40.0]


def test_a_probe_is_one_request_and_the_others_use_another_key() -> None:
    pool = pool_of(1, 1)
    kill(pool, 0.0)
    assert pick(pool, 10.0) == Pick(0, 1, is_probe=True)
    assert [pick(pool, 10.0).key for _ in range(3)] == [1, 1, 1]


def test_a_probe_that_is_taken_revives_the_key() -> None:
    pool = pool_of(1)
    kill(pool, 0.0)
    pool.accepted(pick(pool, 10.0))
    assert pool.state(0, 10.0) is KeyState.FRESH
    kill(pool, 10.0)
    assert pool.pick(19.0) is None, "the interval starts small again"
    assert pick(pool, 20.0).is_probe


def test_a_cancelled_probe_is_made_again() -> None:
    pool = pool_of(1)
    kill(pool, 0.0)
    pool.released(pick(pool, 10.0))
    assert pick(pool, 10.0).is_probe


def test_a_request_that_was_refused_once_probes_nothing() -> None:
    pool = pool_of(1, 1, 1)
    kill(pool, 0.0)
    assert pick(pool, 10.0, tried=(1,)).key == 2


def test_a_probe_that_is_limited_shows_that_the_key_lives() -> None:
    pool = pool_of(1)
    kill(pool, 0.0)
    refuse(pool, pick(pool, 10.0), Refusal.RATE, 10.0)
    assert pool.state(0, 10.0) is KeyState.RESTING
    assert pool.state(0, 11.0) is KeyState.FRESH


def test_a_key_without_money_is_left_alone_for_longer() -> None:
    pool = pool_of(1)
    refuse(pool, pick(pool, 0.0), Refusal.PAYMENT, 0.0)
    assert pool.pick(99.0) is None
    assert pick(pool, 100.0).is_probe


def test_ten_requests_that_are_refused_at_once_are_one_refusal() -> None:
    pool = pool_of(1)
    for found in [pick(pool, 0.0) for _ in range(10)]:
        refuse(pool, found, Refusal.CREDENTIAL, 0.0)
    assert pick(pool, 10.0).is_probe


def test_a_success_from_before_the_refusal_revives_nothing() -> None:
    pool = pool_of(1)
    early = pick(pool, 0.0)
    kill(pool, 0.0)
    pool.accepted(early)
    assert pool.state(0, 0.0) is KeyState.DEAD


def test_another_text_makes_the_key_fresh() -> None:
    pool = pool_of(1)
    kill(pool, 0.0)
    pool.changed(0)
    assert pick(pool, 0.0) == Pick(0, 2)


def test_when_all_are_dead_the_credentials_are_at_fault() -> None:
    pool = pool_of(1, 1)
    kill(pool, 0.0)
    kill(pool, 0.0)
    error = pool.exhausted(0.0)
    assert type(error) is errors.UpstreamAuthError
    assert error.message == "the upstream refuses all 2 keys"


def test_a_resting_key_among_dead_ones_makes_it_a_wait() -> None:
    pool = pool_of(1, 1)
    kill(pool, 0.0)
    refuse(pool, pick(pool, 0.0), Refusal.RATE, 0.0, told=7.0)
    error = pool.exhausted(0.0)
    assert error.message == (
        "none of the 2 keys can be used now: 1 must wait and 1 are refused"
    )
    assert error.retry_after_s == 7.0


# --- what an error says -----------------------------------------------------


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (errors.RateLimitedError("x", status=429), Refusal.RATE),
        (errors.UpstreamAuthError("x", status=401), Refusal.CREDENTIAL),
        (errors.UpstreamAuthError("x", status=403), Refusal.CREDENTIAL),
        (errors.UpstreamAuthError("x", status=402), Refusal.PAYMENT),
        (
            errors.UpstreamAuthError("x", status=429, code="insufficient_quota"),
            Refusal.PAYMENT,
        ),
        (errors.UpstreamError("x", status=500), None),
        (errors.OverloadedError("x", status=503), None),
        (errors.InvalidRequestError("x", status=400), None),
    ],
)
def test_only_refusals_of_the_key_count(
    error: errors.InferenceError, refusal: Refusal | None
) -> None:
    assert refusal_of(error) is refusal


# --- over random histories --------------------------------------------------

PLACES = integers(0, 3)


class KeyPoolMachine(RuleBasedStateMachine):
    """Any history of picks and outcomes, late ones too, beside a naive record."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.pool = pool_of(3, 2, 1)
        self.held: list[Pick] = []

    def states(self) -> list[KeyState]:
        return [self.pool.state(key, self.now) for key in range(3)]

    def take(self, place: int) -> Pick | None:
        return self.held.pop(place % len(self.held)) if self.held else None

    @rule(seconds=floats(0.0, 50.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(tried=sampled_from([(), (0,), (1, 2), (0, 1, 2)]))
    def ask(self, tried: tuple[int, ...]) -> None:
        before = self.states()
        probing = {p.key for p in self.held if self._current_probe(p)}
        found = self.pool.pick(self.now, tried=tried)
        usable = {k for k in range(3) if before[k] is KeyState.FRESH} - {*tried}
        if found is None:
            assert not usable
            self._check_error(before)
            return
        assert found.key not in tried
        assert before[found.key] is not KeyState.RESTING
        if found.is_probe:
            assert before[found.key] is KeyState.DEAD
            assert found.key not in probing, "one probe at a time"
        else:
            assert found.key in usable
        self.held.append(found)

    def _current_probe(self, found: Pick) -> bool:
        key = self.pool._keys[found.key]
        return found.is_probe and found.generation == key.generation

    def _check_error(self, before: list[KeyState]) -> None:
        error = self.pool.exhausted(self.now)
        if all(state is KeyState.DEAD for state in before):
            assert type(error) is errors.UpstreamAuthError
            return
        assert type(error) is errors.RateLimitedError
        assert error.retry_after_s is not None
        assert error.retry_after_s >= 0.0
        if KeyState.FRESH not in before:
            # The shortest wait: one of them is fresh then, and none before.
            woken = self.now + error.retry_after_s
            keys = self.pool._keys
            assert min(k.until for k in keys if k.state is KeyState.RESTING) == woken

    @rule(place=PLACES)
    def succeed(self, place: int) -> None:
        if (found := self.take(place)) is not None:
            self.pool.accepted(found)

    @rule(
        place=PLACES,
        why=sampled_from(Refusal),
        told=one_of(none(), floats(0.0, 60.0)),
    )
    def refuse(self, place: int, why: Refusal, told: float | None) -> None:
        if (found := self.take(place)) is None:
            return
        current = self.pool._keys[found.key].generation == found.generation
        self.pool.refused(found, why, now=self.now, retry_after_s=told)
        if not current:
            return
        state = self.pool.state(found.key, self.now)
        if why is Refusal.RATE:
            rests = told is None or self.now + told > self.now
            assert state is (KeyState.RESTING if rests else KeyState.FRESH)
        else:
            assert state is KeyState.DEAD

    @rule(place=PLACES)
    def cancel(self, place: int) -> None:
        if (found := self.take(place)) is not None:
            self.pool.released(found)

    @rule(key=integers(0, 2))
    def change(self, key: int) -> None:
        self.pool.changed(key)
        assert self.pool.state(key, self.now) is KeyState.FRESH

    @rule()
    def no_key_is_lost(self) -> None:
        """After long enough, with nothing in flight, every key is handed out."""
        while self.held:
            self.pool.released(self.held.pop())
        later = self.now + 100_000.0
        handed: set[int] = set()
        while (found := self.pool.pick(later)) is not None and len(handed) < 3:
            handed.add(found.key)
            self.pool.accepted(found)
        assert handed == {0, 1, 2}
        self.now = later


TestKeyPoolMachine = KeyPoolMachine.TestCase
TestKeyPoolMachine.settings = settings(max_examples=150, deadline=None)
