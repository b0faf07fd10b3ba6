"""The circuit breaker of one endpoint: whether it may be asked.

::

    CLOSED ──failed, once too often──▶ OPEN ──time has passed──▶ HALF_OPEN
       ▲                                ▲                          │     │
       └─────────── forced ─────────────┼──── a probe failed ──────┘     │
       └────────────────────────────────┼── a probe was answered ────────┘

Two rules that the table does not show, without which a breaker is worse than
none:

- An outcome carries the *generation* in which its request was admitted.  A late
  success from before the trip must not close the circuit, nor a late failure
  open it again.
- Each admitted request reports an outcome, a cancelled one too; a probe whose
  client has left gives its place back, or no probe would ever be sent again.

Half-open lets ``half_open_max_probes`` requests be on their way at once; the
first answer decides.  A probe that fails opens the circuit for twice as long as
before, up to ``max_open_s``.

Outcomes are counted in slices of the window, so that an endpoint with a thousand
requests a second costs no more memory than one with ten.

Pure: ``now`` is an argument, in monotonic seconds.

Source: Nygard, "Release It!", "Circuit Breaker".
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.failover import BreakerPolicy

_SLICES = 10
_HISTORY = 32


class Circuit(Enum):
    """The state of a breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(Enum):
    """What moves a breaker from one state to another."""

    TRIPPED = "too many failures"
    TIME_PASSED = "the time is up"
    PROBE_FAILED = "a probe failed"
    PROBE_ANSWERED = "a probe was answered"
    FORCED_OPEN = "forced open"
    FORCED_CLOSED = "forced closed"


TRANSITIONS: dict[Circuit, dict[Event, Circuit]] = {
    Circuit.CLOSED: {
        Event.TRIPPED: Circuit.OPEN,
        Event.FORCED_OPEN: Circuit.OPEN,
        Event.FORCED_CLOSED: Circuit.CLOSED,
    },
    Circuit.OPEN: {
        Event.TIME_PASSED: Circuit.HALF_OPEN,
        Event.FORCED_OPEN: Circuit.OPEN,
        Event.FORCED_CLOSED: Circuit.CLOSED,
    },
    Circuit.HALF_OPEN: {
        # A failed probe reopens at once, whatever the threshold.
        Event.PROBE_FAILED: Circuit.OPEN,
        Event.PROBE_ANSWERED: Circuit.CLOSED,
        Event.FORCED_OPEN: Circuit.OPEN,
        Event.FORCED_CLOSED: Circuit.CLOSED,
    },
}


class Outcome(Enum):
    """How an admitted request ended, for the endpoint's health."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ANSWERED = "answered"
    UNKNOWN = "unknown"


def outcome_of(error: InferenceError | None) -> Outcome:
    """Return what an attempt's end says of its endpoint.

    Args:
        error: None: the answer is complete.

    A refusal with a status (429, 400, ...) shows that the endpoint is alive and
    says nothing against it; a client that left, or an error of ours, shows
    nothing.
    """
    if error is None:
        return Outcome.SUCCEEDED
    if error.breaker_failure:
        return Outcome.FAILED
    return Outcome.UNKNOWN if error.status is None else Outcome.ANSWERED


@attrs.frozen
class Pass:
    """The right to ask the endpoint once; its holder must report an outcome.

    Attributes:
        generation: the breaker's when it was given.
        probe: True when it tries a half-open circuit.
    """

    generation: int
    probe: bool


@attrs.frozen
class Refusal:
    """The endpoint must not be asked.

    Attributes:
        retry_after_s: seconds until it may be worth asking; None: somebody has
            forced the circuit open.
    """

    retry_after_s: float | None


@attrs.frozen
class Transition:
    """One step of a breaker's history.

    Attributes:
        at: when, in the monotonic seconds that it was told.
        before: the state that it left.
        after: the state that it entered.
        event: why.
    """

    at: float
    before: Circuit
    after: Circuit
    event: Event


@attrs.define
class _Slice:
    """Outcomes of a tenth of the window."""

    number: int
    failed: int = 0
    succeeded: int = 0


class Breaker:
    """A circuit breaker; each call says what time it is."""

    def __init__(self, policy: BreakerPolicy) -> None:
        """Start closed.

        Args:
            policy: when it opens, and for how long.
        """
        self.policy = policy
        self._state = Circuit.CLOSED
        self._generation = 0
        self._slices: deque[_Slice] = deque(maxlen=_SLICES)
        self._probes = 0
        self._reopened = 0
        # None while forced open: no time ends that.
        self._open_until: float | None = 0.0
        self._history: deque[Transition] = deque(maxlen=_HISTORY)

    @property
    def state(self) -> Circuit:
        """As of the last call; an open one whose time is up still says open."""
        return self._state

    @property
    def generation(self) -> int:
        """How many transitions there have been."""
        return self._generation

    @property
    def probes(self) -> int:
        """Probes on their way."""
        return self._probes

    @property
    def history(self) -> Sequence[Transition]:
        """The last 32 transitions, oldest first."""
        return tuple(self._history)

    def refusal(self, now: float) -> Refusal | None:
        """Say whether :meth:`admit` would refuse, and change nothing."""
        if self._state is Circuit.CLOSED:
            return None
        if self._state is Circuit.OPEN:
            if self._open_until is None:
                return Refusal(None)
            if now < self._open_until:
                return Refusal(self._open_until - now)
            return None
        if self._probes < self.policy.half_open_max_probes:
            return None
        # The probe that is on its way will have decided by then, or not.
        return Refusal(self.policy.open_s)

    def admit(self, now: float) -> Pass | Refusal:
        """Ask for the right to make one request."""
        refused = self.refusal(now)
        if refused is not None:
            return refused
        if self._state is Circuit.OPEN:
            self._move(Event.TIME_PASSED, now)
        probe = self._state is Circuit.HALF_OPEN
        self._probes += probe
        return Pass(self._generation, probe)

    def report(self, passed: Pass, outcome: Outcome, now: float) -> None:
        """Take the outcome of an admitted request; once per pass."""
        if passed.generation != self._generation:
            return  # admitted before the last transition: it knows no news
        if passed.probe:
            self._probe_ended(outcome, now)
        elif outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
            self._count(outcome, now)

    def force_open(self, now: float) -> None:
        """Refuse everything until :meth:`force_close`."""
        self._move(Event.FORCED_OPEN, now)
        self._open_until = None

    def force_close(self, now: float) -> None:
        """Forget all failures and let requests through."""
        self._move(Event.FORCED_CLOSED, now)

    def _probe_ended(self, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.UNKNOWN:
            self._probes -= 1
        elif outcome is Outcome.FAILED:
            self._move(Event.PROBE_FAILED, now)
        else:
            self._move(Event.PROBE_ANSWERED, now)

    def _count(self, outcome: Outcome, now: float) -> None:
        number = int(now * _SLICES / self.policy.window_s)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(_Slice(number))
        if outcome is Outcome.SUCCEEDED:
            self._slices[-1].succeeded += 1
            return
        self._slices[-1].failed += 1
        if self._too_many(number):
            self._move(Event.TRIPPED, now)

    def _too_many(self, number: int) -> bool:
        if self.policy.max_failures == 0:
            return False
        recent = [s for s in self._slices if s.number > number - _SLICES]
        failed = sum(s.failed for s in recent)
        outcomes = failed + sum(s.succeeded for s in recent)
        return (
            failed >= self.policy.max_failures
            and failed >= self.policy.failure_share * outcomes
        )

    def _move(self, event: Event, now: float) -> None:
        before = self._state
        self._state = TRANSITIONS[before][event]
        self._generation += 1
        self._probes = 0
        self._slices.clear()
        if self._state is Circuit.CLOSED:
            self._reopened = 0
        elif event in (Event.TRIPPED, Event.PROBE_FAILED):
            self._open_until = now + self._open_s()
            self._reopened += 1
        self._history.append(Transition(now, before, self._state, event))

    def _open_s(self) -> float:
        # Bounded: an endpoint may be down for days.
        doubled = self.policy.open_s * 2.0 ** min(self._reopened, 60)
        return min(self.policy.max_open_s, doubled)
