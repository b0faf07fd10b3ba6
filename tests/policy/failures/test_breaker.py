"""The circuit breaker, by example and against a naive model."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import floats, integers, sampled_from

from atomr_infer import errors
from atomr_infer.model.failover import BreakerPolicy
from atomr_infer.policy.failures.breaker import (
    TRANSITIONS,
    Breaker,
    Circuit,
    Event,
    Outcome,
    Pass,
    Refusal,
    Transition,
    outcome_of,
)

POLICY = BreakerPolicy(
    max_failures=3,
    failure_share=0.5,
    window_s=10.0,
    open_s=5.0,
    max_open_s=15.0,
    half_open_max_probes=2,
)


def passed(breaker: Breaker, now: float) -> Pass:
    admitted = breaker.admit(now)
    assert isinstance(admitted, Pass)
    return admitted


def ask(breaker: Breaker, outcome: Outcome, now: float) -> None:
    breaker.report(passed(breaker, now), outcome, now)


def tripped(at: float = 0.0, policy: BreakerPolicy = POLICY) -> Breaker:
    breaker = Breaker(policy)
    for _ in range(policy.max_failures):
        ask(breaker, Outcome.FAILED, at)
    assert breaker.state is Circuit.OPEN
    return breaker


# --- closed -------------------------------------------------------------------


def test_so_many_failures_in_the_window_open_the_circuit() -> None:
    breaker = Breaker(POLICY)
    ask(breaker, Outcome.FAILED, 0.0)
    ask(breaker, Outcome.FAILED, 1.0)
    assert breaker.state is Circuit.CLOSED
    ask(breaker, Outcome.FAILED, 2.0)
    assert breaker.admit(3.0) == Refusal(retry_after_s=4.0)


def test_failures_that_are_older_than_the_window_do_not_count() -> None:
    breaker = Breaker(POLICY)
    ask(breaker, Outcome.FAILED, 0.0)
    ask(breaker, Outcome.FAILED, 1.0)
    ask(breaker, Outcome.FAILED, 11.0)
    assert breaker.state is Circuit.CLOSED


def state(breaker: Breaker) -> Circuit:
    """Return the state, for a type checker that does not see it change."""
    return breaker.state


def test_a_few_failures_among_many_successes_do_not_open_it() -> None:
    breaker = Breaker(POLICY)
    for _ in range(4):
        ask(breaker, Outcome.SUCCEEDED, 0.0)
    for _ in range(3):
        ask(breaker, Outcome.FAILED, 0.0)
    assert state(breaker) is Circuit.CLOSED
    ask(breaker, Outcome.FAILED, 0.0)
    assert state(breaker) is Circuit.OPEN


@pytest.mark.parametrize("outcome", [Outcome.ANSWERED, Outcome.UNKNOWN])
def test_refusals_and_clients_that_leave_never_count(outcome: Outcome) -> None:
    breaker = Breaker(POLICY)
    for _ in range(100):
        ask(breaker, outcome, 0.0)
    for _ in range(3):
        ask(breaker, Outcome.FAILED, 0.0)
    assert breaker.state is Circuit.OPEN  # they did not dilute the failures either


def test_with_a_threshold_of_nothing_it_never_opens() -> None:
    breaker = Breaker(attrs.evolve(POLICY, max_failures=0))
    for _ in range(50):
        ask(breaker, Outcome.FAILED, 0.0)
    assert breaker.state is Circuit.CLOSED


def test_a_thousand_outcomes_cost_ten_slices() -> None:
    breaker = Breaker(attrs.evolve(POLICY, max_failures=0))
    for n in range(1000):
        ask(breaker, Outcome.FAILED, n / 10)
    assert len(breaker._slices) == 10


# --- open and half-open -------------------------------------------------------


def test_half_open_lets_exactly_so_many_probes_through() -> None:
    breaker = tripped()
    probes = [breaker.admit(5.0) for _ in range(4)]
    assert probes == [Pass(2, probe=True)] * 2 + [Refusal(5.0)] * 2
    assert (breaker.state, breaker.probes) == (Circuit.HALF_OPEN, 2)


def test_a_probe_that_succeeds_closes_the_circuit_and_failures_are_forgotten() -> None:
    breaker = tripped()
    ask(breaker, Outcome.SUCCEEDED, 5.0)
    assert breaker.state is Circuit.CLOSED
    ask(breaker, Outcome.FAILED, 5.0)
    ask(breaker, Outcome.FAILED, 5.0)
    assert breaker.state is Circuit.CLOSED


def test_a_probe_that_is_refused_shows_that_the_endpoint_is_back() -> None:
    breaker = tripped()
    ask(breaker, Outcome.ANSWERED, 5.0)
    assert breaker.state is Circuit.CLOSED


def test_failed_probe_reopens_the_circuit_for_longer_up_to_a_bound() -> None:
    breaker = tripped()
    waits = []
    now = 0.0
    for _ in range(4):
        refused = breaker.admit(now)
        assert isinstance(refused, Refusal)
        assert refused.retry_after_s is not None
        waits.append(refused.retry_after_s)
        now += refused.retry_after_s
        ask(breaker, Outcome.FAILED, now)
    assert waits == [5.0, 10.0, 15.0, 15.0]


def test_after_it_was_closed_the_open_time_starts_small_again() -> None:
    breaker = tripped()
    ask(breaker, Outcome.FAILED, 5.0)
    ask(breaker, Outcome.SUCCEEDED, 15.0)
    for _ in range(3):
        ask(breaker, Outcome.FAILED, 15.0)
    assert breaker.admit(15.0) == Refusal(5.0)


def test_a_cancelled_probe_gives_its_place_back() -> None:
    breaker = tripped(policy=attrs.evolve(POLICY, half_open_max_probes=1))
    probe = passed(breaker, 5.0)
    assert breaker.admit(5.0) == Refusal(5.0)
    breaker.report(probe, Outcome.UNKNOWN, 6.0)
    assert breaker.admit(6.0) == Pass(2, probe=True)


def test_a_late_success_from_before_the_trip_does_not_close_it() -> None:
    breaker = Breaker(POLICY)
    early = passed(breaker, 0.0)
    for _ in range(3):
        ask(breaker, Outcome.FAILED, 0.0)
    probe = passed(breaker, 5.0)
    breaker.report(early, Outcome.SUCCEEDED, 5.0)
    assert (breaker.state, breaker.probes) == (Circuit.HALF_OPEN, 1)
    breaker.report(probe, Outcome.FAILED, 5.0)
    assert breaker.state is Circuit.OPEN


def test_a_late_failure_from_before_the_trip_does_not_reopen_it() -> None:
    breaker = Breaker(POLICY)
    early = [passed(breaker, 0.0) for _ in range(3)]
    for _ in range(3):
        ask(breaker, Outcome.FAILED, 0.0)
    ask(breaker, Outcome.SUCCEEDED, 5.0)
    for late in early:
        breaker.report(late, Outcome.FAILED, 5.0)
    assert breaker.state is Circuit.CLOSED
    ask(breaker, Outcome.FAILED, 5.0)
    assert breaker.state is Circuit.CLOSED


def test_the_second_probe_of_a_circuit_that_the_first_closed_says_nothing_new() -> None:
    breaker = tripped()
    first, second = passed(breaker, 5.0), passed(breaker, 5.0)
    breaker.report(first, Outcome.SUCCEEDED, 5.0)
    breaker.report(second, Outcome.FAILED, 6.0)
    assert breaker.state is Circuit.CLOSED


def test_looking_for_a_refusal_changes_nothing() -> None:
    breaker = tripped()
    assert breaker.refusal(4.0) == Refusal(1.0)
    assert breaker.refusal(5.0) is None
    assert (breaker.state, breaker.generation) == (Circuit.OPEN, 1)


# --- by hand ------------------------------------------------------------------


def test_forced_open_stays_open_until_it_is_forced_closed() -> None:
    breaker = Breaker(POLICY)
    breaker.force_open(1.0)
    assert breaker.admit(1e9) == Refusal(None)
    breaker.force_close(2.0)
    assert breaker.admit(2.0) == Pass(2, probe=False)


def test_what_happened_is_kept() -> None:
    breaker = tripped()
    ask(breaker, Outcome.FAILED, 5.0)
    breaker.force_close(6.0)
    closed, opened, half = Circuit.CLOSED, Circuit.OPEN, Circuit.HALF_OPEN
    assert breaker.history == (
        Transition(0.0, closed, opened, Event.TRIPPED),
        Transition(5.0, opened, half, Event.TIME_PASSED),
        Transition(5.0, half, opened, Event.PROBE_FAILED),
        Transition(6.0, opened, closed, Event.FORCED_CLOSED),
    )


def test_the_history_is_bounded() -> None:
    breaker = Breaker(POLICY)
    for now in range(100):
        breaker.force_open(float(now))
    assert [t.at for t in breaker.history] == [float(n) for n in range(68, 100)]


def test_every_state_can_be_forced() -> None:
    for events in TRANSITIONS.values():
        assert events[Event.FORCED_OPEN] is Circuit.OPEN
        assert events[Event.FORCED_CLOSED] is Circuit.CLOSED


# --- what counts --------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.SUCCEEDED),
        (errors.UpstreamError("x", status=503), Outcome.FAILED),
        (errors.UpstreamConnectError("x"), Outcome.FAILED),
        (errors.UpstreamTimeoutError("x"), Outcome.FAILED),
        (errors.StreamCutError("x"), Outcome.FAILED),
        (errors.RateLimitedError("x", status=429), Outcome.ANSWERED),
        (errors.InvalidRequestError("x", status=400), Outcome.ANSWERED),
        (errors.ContentFilterError("x", status=400), Outcome.ANSWERED),
        (errors.UpstreamAuthError("x", status=401), Outcome.ANSWERED),
        (errors.DeadlineError("x"), Outcome.UNKNOWN),
        (errors.UnsupportedFeatureError("x"), Outcome.UNKNOWN),
        (errors.CircuitOpenError("x"), Outcome.UNKNOWN),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
def test_only_what_the_endpoint_does_wrong_counts_against_it(
    error: errors.InferenceError | None, outcome: Outcome
) -> None:
    assert outcome_of(error) is outcome


class BreakerMachine(RuleBasedStateMachine):
    """Compares with a model that remembers every outcome and every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(POLICY)
        self.now = 0.0
        self.state = Circuit.CLOSED
        self.until = 0.0
        self.openings = 0
        self.outcomes: list[tuple[int, Outcome]] = []
        self.alive: list[Pass] = []  # of the present generation
        self.stale: list[Pass] = []

    def _enter(self, state: Circuit) -> None:
        self.state = state
        self.outcomes = []
        self.stale += self.alive
        self.alive = []
        if state is Circuit.OPEN:
            self.until = self.now + min(15.0, 5.0 * 2**self.openings)
            self.openings += 1
        elif state is Circuit.CLOSED:
            self.openings = 0

    @rule(seconds=floats(0.0, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def admit(self) -> None:
        admitted = self.breaker.admit(self.now)
        if self.state is Circuit.OPEN and self.now >= self.until:
            self._enter(Circuit.HALF_OPEN)
        if self.state is Circuit.OPEN:
            assert admitted == Refusal(self.until - self.now)
        elif self.state is Circuit.HALF_OPEN and len(self.alive) == 2:
            assert isinstance(admitted, Refusal)
        else:
            assert isinstance(admitted, Pass)
            assert admitted.probe is (self.state is Circuit.HALF_OPEN)
            self.alive.append(admitted)

    @rule(outcome=sampled_from(Outcome), which=integers(0, 5))
    def report(self, outcome: Outcome, which: int) -> None:
        if not self.alive:
            return
        mine = self.alive.pop(which % len(self.alive))
        self.breaker.report(mine, outcome, self.now)
        if self.state is Circuit.HALF_OPEN:
            if outcome is Outcome.FAILED:
                self._enter(Circuit.OPEN)
            elif outcome is not Outcome.UNKNOWN:
                self._enter(Circuit.CLOSED)
            return
        self.outcomes.append((int(self.now), outcome))
        recent = [o for at, o in self.outcomes if at > int(self.now) - 10]
        failed = recent.count(Outcome.FAILED)
        total = failed + recent.count(Outcome.SUCCEEDED)
        if outcome is Outcome.FAILED and failed >= 3 and failed >= total / 2:
            self._enter(Circuit.OPEN)

    @rule(outcome=sampled_from(Outcome))
    def report_late(self, outcome: Outcome) -> None:
        if self.stale:
            self.breaker.report(self.stale.pop(), outcome, self.now)

    @invariant()
    def states_agree(self) -> None:
        assert self.breaker.state is self.state
        probes = len(self.alive) if self.state is Circuit.HALF_OPEN else 0
        assert self.breaker.probes == probes


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=100, deadline=None)
