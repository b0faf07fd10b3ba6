"""The circuit breakers: one for each runtime and endpoint, shared by whoever asks it.

Plain objects, read and written where the request is: asking a process would cost
every request two task switches.  They outlive what uses them; a breaker goes when
the last deployment of its endpoint does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry
from atomr_infer.errors import CircuitOpenError, ConfigError
from atomr_infer.policy.failures.breaker import Breaker, Circuit, Outcome, Pass, Refusal
from atomr_infer.policy.waits import wait_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import Deployment

log = logging.getLogger(__name__)

# What is said when nobody knows how long: somebody has forced it open.
_FORCED_RETRY_S = 60.0


class Guard:
    """One endpoint's breaker, on trio's clock, with its steps told to others.

    Attributes:
        endpoint: runtime and address, as errors and logs call it.
        breaker: the state machine.
    """

    def __init__(self, endpoint: str, breaker: Breaker) -> None:
        self.endpoint = endpoint
        self.breaker = breaker

    @property
    def is_open(self) -> bool:
        """Whether a request would be refused now."""
        return self.breaker.refusal(trio.current_time()) is not None

    def check(self) -> None:
        """Refuse at once what :meth:`admit` would refuse.

        Raises:
            CircuitOpenError: the endpoint is left alone for now.
        """
        refused = self.breaker.refusal(trio.current_time())
        if refused is not None:
            raise self._open(refused)

    def admit(self) -> Pass:
        """Return the right to make one request; its outcome must be reported.

        Raises:
            CircuitOpenError: the endpoint is left alone for now.
        """
        before = self.breaker.generation
        admitted = self.breaker.admit(trio.current_time())
        self._tell(before)
        if isinstance(admitted, Refusal):
            raise self._open(admitted)
        return admitted

    def report(self, passed: Pass, outcome: Outcome) -> None:
        """Take the outcome of an admitted request."""
        before = self.breaker.generation
        self.breaker.report(passed, outcome, trio.current_time())
        self._tell(before)

    def force_open(self) -> None:
        """Refuse everything until :meth:`force_close`."""
        before = self.breaker.generation
        self.breaker.force_open(trio.current_time())
        self._tell(before)

    def force_close(self) -> None:
        """Forget all failures and let requests through."""
        before = self.breaker.generation
        self.breaker.force_close(trio.current_time())
        self._tell(before)

    def _open(self, refused: Refusal) -> CircuitOpenError:
        wait_s = refused.retry_after_s
        until = "by hand" if wait_s is None else f"for {wait_in_words(wait_s)} more"
        return CircuitOpenError(
            f"the circuit of {self.endpoint} is open {until}: it failed too often",
            retry_after_s=_FORCED_RETRY_S if wait_s is None else wait_s,
        )

    def _tell(self, before: int) -> None:
        if self.breaker.generation == before:
            return
        step = self.breaker.history[-1]
        level = logging.INFO if step.after is Circuit.CLOSED else logging.WARNING
        log.log(
            level,
            "circuit of %s: %s -> %s (%s)",
            self.endpoint,
            step.before.value,
            step.after.value,
            step.event.value,
        )
        telemetry.emit(
            ("atomr_infer", "breaker", "transition"),
            {},
            {
                "endpoint": self.endpoint,
                "before": step.before.value,
                "after": step.after.value,
                "reason": step.event.value,
            },
        )


@attrs.define
class _Shared:
    guard: Guard
    users: set[str] = attrs.field(factory=set)


class Breakers:
    """All guards, by deployment and by endpoint."""

    def __init__(self) -> None:
        self._by_endpoint: dict[str, _Shared] = {}
        self._by_deployment: dict[str, Guard] = {}

    @property
    def guards(self) -> Mapping[str, Guard]:
        """Each endpoint's guard; what an operator looks at and forces."""
        return {name: shared.guard for name, shared in self._by_endpoint.items()}

    def of(self, deployment: str) -> Guard | None:
        """Return the guard of a deployment's endpoint; None: it has none."""
        return self._by_deployment.get(deployment)

    def check(
        self, deployment: Deployment, endpoint: str, *, expected: frozenset[str]
    ) -> None:
        """Refuse a deployment that wants another breaker than its endpoint has.

        Args:
            deployment: who asks the endpoint.
            endpoint: runtime and address.
            expected: those that come or change together with it, whose breaker
                will be what this one says.

        Raises:
            ConfigError: the endpoint's breaker has other settings.
        """
        shared = self._by_endpoint.get(endpoint)
        if shared is None or shared.guard.breaker.policy == deployment.breaker:
            return
        others = shared.users - {deployment.name} - expected
        if others:
            raise ConfigError(
                f"deployment {deployment.name!r}: its breaker differs from that of "
                f"{min(others)!r}, which asks the same endpoint {endpoint}; give both "
                "the same [deployment.breaker]"
            )

    def add(
        self,
        deployment: Deployment,
        endpoint: str,
        *,
        expected: frozenset[str] = frozenset(),
    ) -> None:
        """Let a deployment use the breaker of its endpoint, and no other.

        The breaker of an endpoint stays what it is: its state, and what it has seen.

        Args:
            deployment: who asks the endpoint.
            endpoint: runtime and address.
            expected: as :meth:`check` takes it.

        Raises:
            ConfigError: the endpoint's breaker has other settings.
        """
        self.check(deployment, endpoint, expected=expected)
        last = self._by_deployment.get(deployment.name)
        if last is not None and last.endpoint != endpoint:
            self.remove(deployment.name)
        shared = self._by_endpoint.get(endpoint)
        if shared is None:
            guard = Guard(endpoint, Breaker(deployment.breaker))
            shared = self._by_endpoint[endpoint] = _Shared(guard)
        shared.guard.breaker.policy = deployment.breaker
        shared.users.add(deployment.name)
        self._by_deployment[deployment.name] = shared.guard

    def remove(self, deployment: str) -> None:
        """Forget a deployment, and a breaker that nobody uses any more."""
        guard = self._by_deployment.pop(deployment, None)
        if guard is None:
            return
        shared = self._by_endpoint[guard.endpoint]
        shared.users.discard(deployment)
        if not shared.users:
            del self._by_endpoint[guard.endpoint]
