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
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr.errors import NoProcessError, ServerDownError
from atomr.otp import call, cast
from atomr_infer.errors import (
    ContentFilterError,
    InferenceError,
    NotReadyError,
    RateLimitedError,
    StreamCutError,
    UpstreamTimeoutError,
)
from atomr_infer.model.batch import FinishReason
from atomr_infer.policy.breaker import Outcome, outcome_of
from atomr_infer.serving import messages
from atomr_infer.serving.fresh_error import fresh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.breaker import Pass
    from atomr_infer.serving.breakers import Guard
    from atomr_infer.serving.delivery import Attempt, Delivery
    from atomr_infer.serving.replica import Lease, ReplicaState
    from atomr_infer.serving.shared import Serving


class Leg:
    """A deployment, and what this request has met there.

    Attributes:
        deployment: who is asked.
        batch: what it is asked for.
    """

    def __init__(
        self, serving: Serving, deployment: Deployment, batch: ExecuteBatch
    ) -> None:
        self.deployment = deployment
        self.batch = batch
        self._serving = serving
        self._failed_on: frozenset[ReplicaState] = frozenset()

    @asynccontextmanager
    async def lease(self, pid: Pid, *, may_wait: bool) -> AsyncIterator[Held]:
        """Hold a permit on some replica, and the breaker's leave to ask.

        Args:
            pid: the request's process.
            may_wait: whether its queue may be waited in.

        Raises:
            InferenceError: there is no place, or the circuit is open; from
                inside the block: what the block raises.

        Cancellation: gives both back.
        """
        guard = self._serving.breakers.of(self.deployment.name)
        if guard is not None:
            guard.check()  # before the queue, which may be long
        replica, lease = await self._admitted(pid, may_wait=may_wait)
        ended, outcome = messages.Ended.OTHERWISE, Outcome.UNKNOWN
        held = None
        try:
            held = Held(lease, guard)
            yield held
            ended, outcome = messages.Ended.SUCCEEDED, Outcome.SUCCEEDED
        except InferenceError as error:
            self._failed_on |= {replica}
            outcome = outcome_of(error)
            if isinstance(error, RateLimitedError):
                ended = messages.Ended.RATE_LIMITED
            raise
        finally:
            if held is not None:
                held.report(outcome)
            cast(lease.core, messages.Release(lease.ref, ended))

    async def _admitted(
        self, pid: Pid, *, may_wait: bool
    ) -> tuple[ReplicaState, Lease]:
        name = self.deployment.name
        replica = self._serving.askable(name).pick(self._failed_on)
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
        return replica, lease

    async def run(
        self,
        held: Held,
        attempt: Attempt,
        delivery: Delivery,
        *,
        past_filter: bool,
    ) -> None:
        """Run one generation, and deliver its chunks.

        Args:
            held: the permit.
            attempt: what is noted about it.
            delivery: where the chunks go.
            past_filter: True when an answer that a content filter ended is to
                be asked for elsewhere, as long as the client has seen nothing.

        Raises:
            InferenceError: it failed, or it ended before it was complete.

        Cancellation: ends the generation.
        """
        lease, timeouts = held.lease, self.deployment.timeouts
        silence = Silence(timeouts.first_token_s, "its first token")
        with silence.scope, lease.life.hold(silence.scope):
            async with lease.runner.execute(self.batch) as chunks:
                async for chunk in chunks:
                    silence.pause()
                    if past_filter and (
                        chunk.finish_reason is FinishReason.CONTENT_FILTER
                    ):
                        self._refuse_filtered(delivery)
                    if attempt.note(chunk):
                        held.alive()
                    await delivery.chunk(chunk, attempt)
                    silence.expect(timeouts.idle_s, "the next token")
        if silence.scope.cancelled_caught:
            if lease.life.error is not None:
                raise fresh(lease.life.error)
            raise silence.error(self.deployment.name)
        if not attempt.complete:
            name = self.deployment.name
            raise StreamCutError(f"{name} ended its answer too early")

    def _refuse_filtered(self, delivery: Delivery) -> None:
        if not delivery.begun:
            name = self.deployment.name
            raise ContentFilterError(f"{name} withheld its answer for its content")


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
    """A bound on how long an engine or upstream may say nothing.

    One cancel scope per attempt, its deadline moved with each chunk: a scope
    per chunk would cost more than the chunk.  While the sink takes a chunk the
    bound is off, since a slow client is not a silent engine.
    """

    def __init__(self, bound_s: float, awaited: str) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + bound_s)
        self._bound_s = bound_s
        self._awaited = awaited

    def pause(self) -> None:
        """Take the bound off: it is our turn."""
        self.scope.deadline = math.inf

    def expect(self, bound_s: float, awaited: str) -> None:
        """Wait for the next chunk, at most so long."""
        self._bound_s = bound_s
        self._awaited = awaited
        self.scope.deadline = trio.current_time() + bound_s

    def error(self, deployment: str) -> UpstreamTimeoutError:
        """Return the error when the bound was passed."""
        return UpstreamTimeoutError(
            f"{deployment} was silent for {self._bound_s:g} s before {self._awaited}"
        )
