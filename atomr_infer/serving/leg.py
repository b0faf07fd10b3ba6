"""One deployment as one request asks it: a permit, the breaker, an attempt.

The waits of one attempt and who bounds them:

===============  =============================================
in the queue     the engine core, ``serving.queue_timeout_s``
first chunk      here, ``timeouts.first_token_s``
between chunks   here, ``timeouts.idle_s``
===============  =============================================
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import attrs

from atomr.errors import NoProcessError, ServerDownError
from atomr.otp import call, cast
from atomr_infer.errors import (
    ContentFilterError,
    InferenceError,
    NotReadyError,
    RateLimitedError,
    StreamCutError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import FinishReason
from atomr_infer.model.capabilities import Feature, check_request, needs_fetching
from atomr_infer.policy.breaker import Outcome, outcome_of
from atomr_infer.policy.key_pool import NOT_ASKED
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving import messages
from atomr_infer.serving.delivery import Attempt
from atomr_infer.serving.fresh_error import fresh, say_whose
from atomr_infer.serving.gates import demand_for, enter, used_by
from atomr_infer.serving.inlining import inlined
from atomr_infer.serving.permits import Ended
from atomr_infer.serving.silence import Silence

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.breaker import Pass
    from atomr_infer.policy.demand import TokenBound
    from atomr_infer.serving.breakers import Guard
    from atomr_infer.serving.gates import Holds
    from atomr_infer.serving.replica import Lease, ReplicaState
    from atomr_infer.serving.shared import Serving


@attrs.frozen(kw_only=True)
class Terms:
    """How a leg is asked.

    Attributes:
        may_wait: whether its queue may be waited in.
        past_filter: True when an answer that a content filter ended is to be
            asked for elsewhere, as long as the client has seen nothing.
        continues: True when the request ends with the beginning of its answer.
    """

    may_wait: bool
    past_filter: bool
    continues: bool


class Receiver(Protocol):
    """Where the chunks of an attempt go."""

    @property
    def begun(self) -> bool:
        """Whether the sink has been told that an answer starts."""
        ...

    def admitted(self) -> None:
        """Take the news that the attempt has its permit."""
        ...

    async def chunk(self, chunk: TokenChunk | RawChunk, attempt: Attempt) -> None:
        """Take the next chunk."""
        ...


class Leg:
    """A deployment, and what this request has met there.

    Attributes:
        deployment: who is asked.
        batch: what it is asked for.
        attempt: the present one, or the last; None: none was begun.
    """

    def __init__(  # noqa: PLR0913 - all but three by keyword
        self,
        serving: Serving,
        deployment: Deployment,
        batch: ExecuteBatch,
        *,
        deadline_s: float = math.inf,
        bound: TokenBound | None = None,
        avoid: frozenset[ReplicaState] = frozenset(),
        asked: str | None = None,
    ) -> None:
        """Stand there, and ask nobody yet.

        Args:
            serving: the tree that serves.
            deployment: who is asked.
            batch: what it is asked for.
            deadline_s: the request's, in trio's clock.
            bound: the most tokens of a request that generates nothing.
            avoid: the replicas that have failed.
            asked: what it is asked for where its deployment names no model; None:
                it is asked for the batch's model, whatever its deployment names.
        """
        self.deployment = deployment
        self.batch = batch
        self.attempt: Attempt | None = None
        self._deadline_s = deadline_s
        self._bound = bound
        self._serving = serving
        self._failed_on = avoid
        self._asked = asked
        self._replica: ReplicaState | None = None

    def beside(self) -> Leg | None:
        """Return the same leg on another replica; None: there is no other."""
        avoid = self._failed_on
        if self._replica is not None:
            avoid |= {self._replica}
        replicas = self._serving.replicas(self.deployment.name)
        if not any(r.ready and r not in avoid for r in replicas):
            return None
        return Leg(
            self._serving,
            self.deployment,
            self.batch,
            deadline_s=self._deadline_s,
            bound=self._bound,
            avoid=avoid,
            asked=self._asked,
        )

    async def ask(self, pid: Pid, receiver: Receiver, terms: Terms) -> Attempt:
        """Make one attempt.

        Args:
            pid: the request's process.
            receiver: where the chunks go.
            terms: how it is asked.

        Returns:
            The attempt, which is complete.

        Raises:
            InferenceError: it failed; ``attempt`` is None when it did not run.

        Cancellation: ends the generation, and gives everything back.
        """
        self.attempt = None
        async with self.lease(pid, may_wait=terms.may_wait) as held:
            receiver.admitted()
            self.attempt = held.attempt = await self._prepared(held, terms)
            await self._run(held, self.attempt, receiver, terms)
        return self.attempt

    async def _prepared(self, held: Held, terms: Terms) -> Attempt:
        name, model = self.deployment.name, self.batch.model
        capabilities = capabilities_of(held.lease.runner, model)
        if terms.continues and Feature.PREFILL not in capabilities.features:
            raise UnsupportedFeatureError(
                f"{name} cannot continue a text that it did not write"
            )
        ignored = check_request(self.batch, capabilities)
        if needs_fetching(self.batch, capabilities):
            self.batch = await inlined(self.batch, capabilities)
        return Attempt(deployment=name, model=model, ignored=ignored)

    def lease(self, pid: Pid, *, may_wait: bool) -> AbstractAsyncContextManager[Held]:
        """Return a block that holds a permit, and the breaker's leave to ask.

        Args:
            pid: the request's process.
            may_wait: whether its queue may be waited in.

        Raises:
            InferenceError: there is no place, or the circuit is open; from
                inside the block: what the block raises.

        Cancellation: gives both back.
        """
        return _Holding(self, pid, may_wait=may_wait)

    async def hold(self, pid: Pid, *, may_wait: bool) -> Held:
        """Take what :meth:`lease` holds; :meth:`let_go` gives it back."""
        guard = self._serving.breakers.of(self.deployment.name)
        if guard is not None:
            guard.check()  # before the queue, which may be long
        lease = await self._admitted(pid, may_wait=may_wait)
        if lease.model != self.deployment.model and self._asked is not None:
            # It was replaced while we were on our way.
            model = lease.model or self._asked
            self.batch = attrs.evolve(self.batch, model=model)
        guard = self._serving.breakers.of(self.deployment.name)
        holds = None
        if self.deployment.name in self._serving.gates.of_attempts:
            holds = await self._entered(lease, may_wait=may_wait)
        try:
            return Held(lease, guard, holds)
        except InferenceError:
            if holds is not None:
                holds.end(None)
            self._avoid_replica()
            self._release(lease, Ended.OTHERWISE)
            raise

    async def _entered(self, lease: Lease, *, may_wait: bool) -> Holds:
        """Pass the deployment's gates, or give back the permit."""
        try:
            demand = demand_for(
                self._serving,
                self.deployment,
                self.batch,
                runner=lease.runner,
                bound=self._bound,
            )
            return await enter(
                self._serving.gates.of_attempts[self.deployment.name],
                demand,
                deadline_s=self._deadline_s,
                may_wait=may_wait,
            )
        except BaseException:
            self._release(lease, Ended.OTHERWISE)
            raise

    def let_go(self, held: Held, error: BaseException | None) -> None:
        """Give back a permit, and tell the breaker how it went."""
        ended, outcome = Ended.OTHERWISE, Outcome.UNKNOWN
        if error is None:
            ended, outcome = Ended.SUCCEEDED, Outcome.SUCCEEDED
        elif isinstance(error, InferenceError):
            self._avoid_replica()
            say_whose(error, self.deployment.name, self.batch.model)
            outcome = outcome_of(error)
            if isinstance(error, RateLimitedError) and error.code not in NOT_ASKED:
                ended = Ended.RATE_LIMITED
        held.report(outcome)
        self._release(held.lease, ended)
        if held.holds is not None:
            used = None
            if held.attempt is not None:
                serving, asked = self._serving, self.batch
                used = used_by(
                    serving, self.deployment, held.attempt, error, lambda: asked
                )
            held.holds.end(used)

    def avoid(self, replica: ReplicaState) -> None:
        """Ask another replica, if there is one: this one has failed."""
        self._failed_on |= {replica}

    def _avoid_replica(self) -> None:
        assert self._replica is not None, "somebody was asked"
        self.avoid(self._replica)

    def _release(self, lease: Lease, ended: Ended) -> None:
        cast(lease.core, messages.Release(lease.ref, ended))

    async def _admitted(self, pid: Pid, *, may_wait: bool) -> Lease:
        name = self.deployment.name
        replica = self._serving.askable(name).pick(self._failed_on)
        self._replica = replica
        replica.arriving += 1
        asked = messages.Admit(pid, self.batch.priority, may_wait)
        try:
            lease = await call(replica.core, asked, timeout_s=None)
        except (NoProcessError, ServerDownError) as error:
            raise NotReadyError(f"{name} is restarting") from error
        finally:
            replica.arriving -= 1
        if isinstance(lease, InferenceError):
            raise lease
        return lease

    async def _run(
        self, held: Held, attempt: Attempt, receiver: Receiver, terms: Terms
    ) -> None:
        """Run one generation, and pass its chunks on."""
        lease, timeouts = held.lease, self.deployment.timeouts
        silence = Silence(self._serving.watchdog)
        silence.expect(timeouts.first_token_s, "its first token")
        with silence, lease.life.hold(silence.scope):
            async with lease.runner.execute(self.batch) as chunks:
                try:
                    async for chunk in chunks:
                        silence.pause()
                        if terms.past_filter and not receiver.begun:
                            self._refuse_filtered(chunk)
                        if attempt.note(chunk):
                            held.alive()
                        await receiver.chunk(chunk, attempt)
                        silence.expect(timeouts.idle_s, "the next token")
                finally:
                    attempt.end(chunks)
        if silence.scope.cancelled_caught:
            if lease.life.error is not None:
                raise fresh(lease.life.error)
            raise silence.error(self.deployment.name)
        if not attempt.complete:
            name = self.deployment.name
            raise StreamCutError(f"{name} ended its answer too early")

    def _refuse_filtered(self, chunk: TokenChunk | RawChunk) -> None:
        if chunk.finish_reason is FinishReason.CONTENT_FILTER:
            name = self.deployment.name
            raise ContentFilterError(f"{name} withheld its answer for its content")


class _Holding:
    """The block of a lease; by hand, because a generator costs more than a permit."""

    __slots__ = ("_held", "_leg", "_may_wait", "_pid")

    def __init__(self, leg: Leg, pid: Pid, *, may_wait: bool) -> None:
        self._leg = leg
        self._pid = pid
        self._may_wait = may_wait
        self._held: Held

    async def __aenter__(self) -> Held:
        self._held = await self._leg.hold(self._pid, may_wait=self._may_wait)
        return self._held

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leg.let_go(self._held, exc)


class Held:
    """A permit, with the breaker's leave to use it.

    Attributes:
        lease: the permit.
        holds: what the deployment's gates gave; None: it has none.
        attempt: the one that is made with it; None: none was begun.
    """

    def __init__(
        self, lease: Lease, guard: Guard | None, holds: Holds | None = None
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

    def alive(self) -> None:
        """Take the first content: a probe need not wait for the whole answer."""
        if self._passed is not None and self._passed.probe:
            self.report(Outcome.ANSWERED)

    def report(self, outcome: Outcome) -> None:
        """Tell the breaker how it went; the first report counts."""
        passed, self._passed = self._passed, None
        if self._guard is not None and passed is not None:
            self._guard.report(passed, outcome)
