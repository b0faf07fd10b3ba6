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
import trio

from atomr.errors import NoProcessError, ServerDownError
from atomr.otp import call, cast
from atomr_infer.errors import (
    ContentFilterError,
    InferenceError,
    NotReadyError,
    RateLimitedError,
    StreamCutError,
    UnsupportedFeatureError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import FinishReason
from atomr_infer.model.capabilities import Feature, check_request, needs_fetching
from atomr_infer.policy.breaker import Outcome, outcome_of
from atomr_infer.policy.key_pool import NOT_ASKED
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving import messages
from atomr_infer.serving.delivery import Attempt
from atomr_infer.serving.fresh_error import fresh, say_whose
from atomr_infer.serving.inlining import inlined
from atomr_infer.serving.permits import Ended

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.breaker import Pass
    from atomr_infer.remote.http.watchdog import Watchdog
    from atomr_infer.serving.breakers import Guard
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

    def __init__(
        self,
        serving: Serving,
        deployment: Deployment,
        batch: ExecuteBatch,
        *,
        avoid: frozenset[ReplicaState] = frozenset(),
    ) -> None:
        self.deployment = deployment
        self.batch = batch
        self.attempt: Attempt | None = None
        self._serving = serving
        self._failed_on = avoid
        self._replica: ReplicaState | None = None

    def beside(self) -> Leg | None:
        """Return the same leg on another replica; None: there is no other."""
        avoid = self._failed_on
        if self._replica is not None:
            avoid |= {self._replica}
        replicas = self._serving.replicas(self.deployment.name)
        if not any(r.ready and r not in avoid for r in replicas):
            return None
        return Leg(self._serving, self.deployment, self.batch, avoid=avoid)

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
            self.attempt = await self._prepared(held, terms)
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
        try:
            return Held(lease, guard)
        except InferenceError:
            self._avoid_replica()
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
    """

    def __init__(self, lease: Lease, guard: Guard | None) -> None:
        """Ask the breaker.

        Raises:
            CircuitOpenError: the circuit is open.
        """
        self.lease = lease
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


class Silence:
    """A block with a bound on how long an engine or upstream may say nothing.

    While the sink takes a chunk the bound is off, since a slow client is not a
    silent engine.  So it moves twice with each chunk, and the watchdog keeps it:
    moving a scope's own deadline would cost as much as the chunk.

    Attributes:
        scope: the block's.
        due_at: when something must have been said; ``inf``: it is our turn.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.scope = trio.CancelScope()
        self.due_at = math.inf
        self._watchdog = watchdog
        self._bound_s = math.inf
        self._awaited = ""

    def __enter__(self) -> None:
        self._watchdog.watched.add(self)
        self.scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._watchdog.watched.discard(self)
        return self.scope.__exit__(exc_type, exc, traceback)

    def pause(self) -> None:
        """Take the bound off: it is our turn."""
        self.due_at = math.inf

    def expect(self, bound_s: float, awaited: str) -> None:
        """Wait for the next chunk, at most so long."""
        self._bound_s = bound_s
        self._awaited = awaited
        self.due_at = trio.current_time() + bound_s
        self._watchdog.notice(self.due_at)

    async def expire(self) -> None:
        """End the block: the bound was passed."""
        self.scope.cancel()

    def error(self, deployment: str) -> UpstreamTimeoutError:
        """Return the error when the bound was passed."""
        return UpstreamTimeoutError(
            f"{deployment} was silent for {self._bound_s:g} s before {self._awaited}"
        )
