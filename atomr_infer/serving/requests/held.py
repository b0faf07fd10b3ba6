"""What an attempt holds while it runs: a permit, the breaker's leave, gates' holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio

from atomr.otp import cast
from atomr_infer.policy.failures.breaker import Outcome
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.permits import Ended

if TYPE_CHECKING:
    from types import TracebackType

    from atomr.refs import Pid
    from atomr_infer.policy.failures.breaker import Pass
    from atomr_infer.serving.limits.breakers import Guard
    from atomr_infer.serving.limits.gates import Holds
    from atomr_infer.serving.replicas.replica import Lease, ReplicaState
    from atomr_infer.serving.requests.delivery import Attempt
    from atomr_infer.serving.requests.far_held import FarHeld
    from atomr_infer.serving.requests.leg import Leg


def give_back(lease: Lease, ended: Ended) -> None:
    """Give a permit back to its engine core."""
    lease.life.answered |= ended is Ended.SUCCEEDED
    cast(lease.core, messages.Release(lease.ref, ended))


class Placed:
    """A request among the work of a replica of this node."""

    __slots__ = ("_asked_at", "_replica", "_tokens")

    def __init__(self, replica: ReplicaState, tokens: int, asked_at: float) -> None:
        self._replica = replica
        self._tokens = tokens
        self._asked_at = asked_at

    def begin(self) -> None:
        """Count its tokens."""
        self._replica.tokens += self._tokens

    def heard(self) -> None:
        """Note how long its first words took, queue included."""
        now = trio.current_time()
        self._replica.heard(now - self._asked_at, now)

    def end(self) -> None:
        """Count its tokens no more."""
        self._replica.tokens -= self._tokens


class Held:
    """A permit, with the breaker's leave to use it.

    Attributes:
        lease: the permit.
        holds: what the deployment's gates gave; None: it has none.
        attempt: the one that is made with it; None: none was begun.
    """

    def __init__(
        self, lease: Lease, guard: Guard | None, *, holds: Holds | None, placed: Placed
    ) -> None:
        """Ask the breaker.

        Raises:
            CircuitOpenError: the circuit is open.
        """
        self.lease = lease
        self.holds = holds
        self.attempt: Attempt | None = None
        self._guard = guard
        self._passed: Pass | None = None if guard is None else guard.admit()
        self._placed = placed
        placed.begin()

    def alive(self) -> None:
        """Take the first content: a probe need not wait for the whole answer."""
        self._placed.heard()
        if self._passed is not None and self._passed.probe:
            self.report(Outcome.ANSWERED)

    def report(self, outcome: Outcome) -> None:
        """Tell the breaker how it went; the first report counts."""
        passed, self._passed = self._passed, None
        if self._guard is not None and passed is not None:
            self._guard.report(passed, outcome)

    def release(self, ended: Ended) -> None:
        """Give the permit back."""
        self._placed.end()
        give_back(self.lease, ended)


AnyHeld: TypeAlias = "Held | FarHeld"
"""A permit of this node, or of another one."""


class Holding:
    """The block of a lease; by hand, because a generator costs more than a permit."""

    __slots__ = ("_held", "_leg", "_may_wait", "_pid")

    def __init__(self, leg: Leg, pid: Pid, *, may_wait: bool) -> None:
        self._leg = leg
        self._pid = pid
        self._may_wait = may_wait
        self._held: AnyHeld

    async def __aenter__(self) -> AnyHeld:
        self._held = await self._leg.hold(self._pid, may_wait=self._may_wait)
        return self._held

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leg.let_go(self._held, exc)
