"""Which of several keys a request uses: fresh ones in turn, and no other.

========  ==================  ==============================================
state     entered by          left
========  ==================  ==============================================
fresh     (start)             by a refusal
resting   429                 when ``Retry-After`` is over, to fresh
dead      401, 403; 402       by a probe that is taken, or another key text
========  ==================  ==============================================

A dead key is probed: when its interval is over, one request tries it, and goes
on with another key when it is refused.  Each failed probe doubles the interval.
A key without money (402) is dead for longer, since people pay more slowly than
they correct a typing error.

Outcomes carry the generation of the key that they are about: ten requests that
are refused at once are one refusal, and an old success revives nothing.

Fresh keys take turns by weight, smoothly: with weights 2 and 1 the order is
a b a, not a a b.

Pure: the caller passes ``now``.

Source: the rules are those of the Bifrost gateway; the turns are nginx's smooth
weighted round-robin.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError, RateLimitedError, UpstreamAuthError
from atomr_infer.policy.failures.rest import RESTING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


class KeyState(Enum):
    """What is known of a key."""

    FRESH = "fresh"
    RESTING = "resting"
    DEAD = "dead"


class Refusal(Enum):
    """Why an upstream does not take a key."""

    CREDENTIAL = "credential"
    PAYMENT = "payment"
    RATE = "rate"


POOL_RESTING = "key_pool_resting"

NOT_ASKED = frozenset({POOL_RESTING, RESTING})
"""The codes of 429s that are ours: nobody was asked, and the limits stay."""

_PAYMENT_STATUS = 402

_PAYMENT_CODES = frozenset(
    {
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "insufficient_quota",
    }
)


def refusal_of(error: InferenceError) -> Refusal | None:
    """Return what an error says of the key; None: nothing.

    >>> refusal_of(UpstreamAuthError("no", status=402))
    <Refusal.PAYMENT: 'payment'>
    """
    if isinstance(error, RateLimitedError):
        return Refusal.RATE
    if not isinstance(error, UpstreamAuthError):
        return None
    if error.status == _PAYMENT_STATUS or error.code in _PAYMENT_CODES:
        return Refusal.PAYMENT
    return Refusal.CREDENTIAL


@attrs.frozen(kw_only=True)
class KeyPoolLimits:
    """How long refused keys are left alone, in seconds.

    Attributes:
        probe_s: until a dead key is probed for the first time.
        max_probe_s: longest time between two probes.
        payment_probe_s: as ``probe_s``, for a key without money.
        rest_s: rest after a 429 that says no time; doubles with each further one.
        max_rest_s: longest such rest.
        max_told_s: longest rest that an upstream can ask for.
    """

    probe_s: float = 30.0
    max_probe_s: float = 3600.0
    payment_probe_s: float = 900.0
    rest_s: float = 1.0
    max_rest_s: float = 60.0
    max_told_s: float = 86400.0


@attrs.frozen
class Pick:
    """A key that was handed out.

    Attributes:
        key: its place in the pool.
        generation: which state of the key it was handed out in.
        is_probe: True when the key is dead and this request tries it.
    """

    key: int
    generation: int
    is_probe: bool = False


@attrs.define
class _Key:
    number: int
    weight: int
    turn: int = 0
    state: KeyState = KeyState.FRESH
    generation: int = 0
    until: float = 0.0
    why: Refusal | None = None
    refusals: int = 0
    probing: bool = False

    def enter(self, state: KeyState, until: float = 0.0) -> None:
        self.state = state
        self.until = until
        self.generation += 1
        self.probing = False

    def renew(self) -> None:
        self.refusals = 0
        self.enter(KeyState.FRESH)


class KeyPool:
    """The states of a deployment's keys, by their place in the configuration."""

    def __init__(
        self, weights: Sequence[int], limits: KeyPoolLimits | None = None
    ) -> None:
        """Start with every key fresh.

        Args:
            weights: one for each key, at least one key.
            limits: how long refused keys are left alone.
        """
        if not weights:
            raise ValueError("a pool needs a key")
        self._keys = [_Key(number, weight) for number, weight in enumerate(weights)]
        self._limits = KeyPoolLimits() if limits is None else limits
        # False: every key is fresh, and a pick need not look at times.
        self._impaired = False

    def state(self, key: int, now: float) -> KeyState:
        """Return what is known of a key at ``now``."""
        self._wake(now)
        return self._keys[key].state

    def pick(self, now: float, *, tried: Collection[int] = ()) -> Pick | None:
        """Hand out a key.

        Args:
            now: monotonic time in seconds.
            tried: keys that this request has tried; none of them is handed
                out, and a request that has tried one probes none.

        Returns:
            None when no key may be used now; :meth:`exhausted` says why.
        """
        if self._impaired:
            self._wake(now)
            probe = None if tried else self._due_probe(now)
            if probe is not None:
                return probe
        chosen = self._next(tried)
        return None if chosen is None else Pick(chosen.number, chosen.generation)

    def _next(self, tried: Collection[int]) -> _Key | None:
        chosen: _Key | None = None
        total = 0
        for key in self._keys:
            if key.state is KeyState.FRESH and key.number not in tried:
                key.turn += key.weight
                total += key.weight
                if chosen is None or key.turn > chosen.turn:
                    chosen = key
        if chosen is not None:
            chosen.turn -= total
        return chosen

    def exhausted(self, now: float) -> InferenceError:
        """Return why :meth:`pick` had none: with the shortest wait, where there is one.

        :class:`RateLimitedError` while a key rests; a key that is fresh and was
        tried already waits no time.  :class:`UpstreamAuthError` when all are dead.
        """
        self._wake(now)
        count = len(self._keys)
        waits = [
            max(0.0, key.until - now)
            for key in self._keys
            if key.state is not KeyState.DEAD
        ]
        if waits:
            return RateLimitedError(
                f"none of the {count} keys can be used now: {len(waits)} must wait "
                f"and {count - len(waits)} are refused",
                code=POOL_RESTING,
                retry_after_s=min(waits),
            )
        return UpstreamAuthError(
            f"the upstream refuses all {count} keys", code="key_pool_dead"
        )

    def accepted(self, pick: Pick) -> None:
        """Take the news that the upstream took the key."""
        key = self._keys[pick.key]
        if key.generation != pick.generation:
            return
        if key.state is KeyState.DEAD:
            key.renew()
            self._look()
        key.refusals = 0

    def refused(
        self, pick: Pick, why: Refusal, *, now: float, retry_after_s: float | None
    ) -> None:
        """Take the news that the upstream refused the key.

        Args:
            pick: what was handed out.
            why: see :func:`refusal_of`.
            now: monotonic time in seconds.
            retry_after_s: how long it asked us to wait; None: it did not say.
        """
        key = self._keys[pick.key]
        if key.generation != pick.generation:
            if why is Refusal.RATE and key.state is KeyState.RESTING:
                # The same wave of refusals; the longest wait holds.
                key.until = max(key.until, now + self._rest_s(0, retry_after_s))
            return
        if key.why is not why:
            key.why, key.refusals = why, 0
        if why is Refusal.RATE:
            # Of a dead key too: an upstream that counts its requests knows it.
            rest_s = self._rest_s(key.refusals, retry_after_s)
            key.enter(KeyState.RESTING, now + rest_s)
        else:
            key.enter(KeyState.DEAD, now + self._probe_s(why, key.refusals))
        key.refusals += 1
        self._impaired = True

    def released(self, pick: Pick) -> None:
        """Take the news that nothing was learnt; a probe's turn is given back."""
        key = self._keys[pick.key]
        if key.generation == pick.generation:
            key.probing = False

    def changed(self, key: int) -> None:
        """Take the news that another text is the key now: nothing is known of it."""
        self._keys[key].renew()
        self._look()

    def _look(self) -> None:
        self._impaired = any(key.state is not KeyState.FRESH for key in self._keys)

    def _wake(self, now: float) -> None:
        for key in self._keys:
            if key.state is KeyState.RESTING and key.until <= now:
                key.enter(KeyState.FRESH)
        self._look()

    def _due_probe(self, now: float) -> Pick | None:
        for key in self._keys:
            if key.state is KeyState.DEAD and not key.probing and key.until <= now:
                key.probing = True
                return Pick(key.number, key.generation, is_probe=True)
        return None

    def _rest_s(self, refusals: int, told_s: float | None) -> float:
        limits = self._limits
        if told_s is not None:
            return min(max(0.0, told_s), limits.max_told_s)
        return _doubled(limits.rest_s, refusals, limits.max_rest_s)

    def _probe_s(self, why: Refusal, refusals: int) -> float:
        limits = self._limits
        if why is Refusal.PAYMENT:
            most_s = max(limits.payment_probe_s, limits.max_probe_s)
            return _doubled(limits.payment_probe_s, refusals, most_s)
        return _doubled(limits.probe_s, refusals, limits.max_probe_s)


def _doubled(base_s: float, times: int, most_s: float) -> float:
    # The exponent is bounded: 2.0 ** 1100 is no float.
    return min(most_s, base_s * 2.0 ** min(times, 64))
