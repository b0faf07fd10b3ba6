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
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import NoProcessError, ServerDownError
from atomr.otp import call
from atomr_infer.errors import (
    CircuitOpenError,
    ContentFilterError,
    InferenceError,
    NotReadyError,
    RateLimitedError,
    StreamCutError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import FinishReason
from atomr_infer.model.capabilities import Feature, check_request, needs_fetching
from atomr_infer.policy.estimates.answer_length import bounded
from atomr_infer.policy.failures.breaker import Outcome, outcome_of
from atomr_infer.policy.failures.key_pool import NOT_ASKED
from atomr_infer.policy.routing.replica_choice import cost_of_turn, size_of
from atomr_infer.policy.tenants.admission import UNCLAIMED, Claim
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving.limits.gates import demand_for, enter, used_by
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.fresh_error import fresh, say_whose
from atomr_infer.serving.replicas.permits import Ended
from atomr_infer.serving.replicas.replica import ReplicaState
from atomr_infer.serving.requests.delivery import Attempt
from atomr_infer.serving.requests.elsewhere import one_is_there
from atomr_infer.serving.requests.far_attempt import NothingSentError, hold_far
from atomr_infer.serving.requests.held import Held, Holding, Placed, give_back
from atomr_infer.serving.requests.inlining import inlined
from atomr_infer.serving.requests.silence import Silence
from atomr_infer.wire.nodes.frames import Kind

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import EmbedRequest
    from atomr_infer.model.tensors import InferRequest
    from atomr_infer.policy.limits.demand import TokenBound
    from atomr_infer.serving.limits.gates import Holds
    from atomr_infer.serving.replicas.far_replica import AnyReplica
    from atomr_infer.serving.replicas.replica import Lease
    from atomr_infer.serving.replicas.routing_table import Routed, RoutingTable
    from atomr_infer.serving.requests.held import AnyHeld
    from atomr_infer.serving.requests.terms import Receiver, Terms
    from atomr_infer.serving.shared import Serving


class Leg:
    """A deployment, and what this request has met there.

    Attributes:
        deployment: who is asked.
        batch: what it is asked for.
        attempt: the present one, or the last; None: none was begun.
        deadline_s: the request's, in trio's clock.
        kind: what is wanted.
        whole: what is asked instead of the batch, where that is no generation.
        continues: True when the request ends with the beginning of its answer.
    """

    kind = Kind.GENERATE
    whole: EmbedRequest | InferRequest | None = None
    continues = False

    def __init__(  # noqa: PLR0913 - all but three by keyword
        self,
        serving: Serving,
        deployment: Deployment,
        batch: ExecuteBatch,
        *,
        deadline_s: float = math.inf,
        bound: TokenBound | None = None,
        avoid: frozenset[AnyReplica] = frozenset(),
        at: ReplicaState | None = None,
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
            at: the only one that is asked; None: the routing table says it.
            asked: what it is asked for where its deployment names no model; None:
                it is asked for the batch's model, whatever its deployment names.
        """
        self.deployment = deployment
        self.batch = batch if bound else bounded(batch, deployment)
        self.attempt: Attempt | None = None
        self.deadline_s = deadline_s
        self._bound = bound
        self._serving = serving
        self._failed_on = avoid
        self._asked = asked
        self._at = at
        self._table: RoutingTable | None = None
        self._routed: Routed | None = None

    def beside(self) -> Leg | None:
        """Return the same leg on another replica; None: there is no other."""
        avoid = self._failed_on
        if self._routed is not None:
            avoid |= {self._routed.replica}
        if self._table is None or not self._table.has_other(avoid):
            return None
        return Leg(
            self._serving,
            self.deployment,
            self.batch,
            deadline_s=self.deadline_s,
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
        self.continues = terms.continues
        async with self.lease(pid, may_wait=terms.may_wait) as held:
            receiver.admitted()
            self.attempt = held.attempt = await self.prepared(held)
            await self.run(held, self.attempt, receiver, terms)
        return self.attempt

    async def prepared(self, held: AnyHeld) -> Attempt:
        """Return the attempt that a permit is for.

        Raises:
            InferenceError: its model cannot serve the request.
        """
        if not isinstance(held, Held):
            return self.attempted(held.ignored)  # it was looked at over there
        name, model = self.deployment.name, self.batch.model
        capabilities = capabilities_of(held.lease.runner, model)
        if self.continues and Feature.PREFILL not in capabilities.features:
            raise UnsupportedFeatureError(
                f"{name} cannot continue a text that it did not write"
            )
        ignored = check_request(self.batch, capabilities)
        if needs_fetching(self.batch, capabilities):
            self.batch = await inlined(self.batch, capabilities)
        return self.attempted(ignored)

    def attempted(self, ignored: tuple[str, ...] = ()) -> Attempt:
        """Return an attempt at who is asked now."""
        return Attempt(
            deployment=self.deployment.name,
            model=self.batch.model,
            ignored=ignored,
            route=b"" if self._routed is None else self._routed.route,
        )

    def lease(
        self, pid: Pid, *, may_wait: bool
    ) -> AbstractAsyncContextManager[AnyHeld]:
        """Return a block that holds a permit, and the breaker's leave to ask.

        Args:
            pid: the request's process.
            may_wait: whether its queue may be waited in.

        Raises:
            InferenceError: there is no place, or the circuit is open; from
                inside the block: what the block raises.

        Cancellation: gives both back.
        """
        return Holding(self, pid, may_wait=may_wait)

    async def hold(self, pid: Pid, *, may_wait: bool) -> AnyHeld:
        """Take what :meth:`lease` holds; :meth:`let_go` gives it back."""
        while True:
            replica = self._at or await self._found(may_wait=may_wait)
            try:
                if isinstance(replica, ReplicaState):
                    return await self._hold_here(replica, pid, may_wait=may_wait)
            except CircuitOpenError:
                if not self._leaves():
                    raise
                continue
            try:
                return await hold_far(self._serving, self, replica, may_wait=may_wait)
            except NothingSentError as error:
                if not self._turns_from(replica):
                    raise error.error from error
            except NotReadyError:
                # It has gone or failed since it was heard of, and begun nothing.
                if not self._turns_from(replica):
                    raise
            except InferenceError:
                self.avoid(replica)
                raise

    async def _found(self, *, may_wait: bool) -> AnyReplica:
        try:
            return self._chosen()
        except NotReadyError:
            if not may_wait:
                raise
        await one_is_there(self._serving, self.deployment, self.deadline_s)
        return self._chosen()

    def _leaves(self) -> bool:
        """Avoid this node's replicas: its circuit is open, another's may not be."""
        if self._table is None or not self._table.far:
            return False
        self._failed_on |= frozenset(self._table.replicas)
        return self._table.has_other(self._failed_on)

    def _turns_from(self, replica: AnyReplica) -> bool:
        """Avoid a replica; whether there is another one."""
        self.avoid(replica)
        return self._table is not None and self._table.has_other(self._failed_on)

    def _chosen(self) -> AnyReplica:
        self._table = table = self._serving.askable(self.deployment.name)
        self._routed = table.choose(self._failed_on, self.deployment, self.batch)
        return self._routed.replica

    async def _hold_here(
        self, replica: ReplicaState, pid: Pid, *, may_wait: bool
    ) -> Held:
        guard = self._serving.breakers.of(self.deployment.name)
        if guard is not None:
            guard.check()  # before the queue, which may be long
        asked_at = trio.current_time()
        lease = await self._admitted(replica, pid, may_wait=may_wait)
        if lease.model != self.deployment.model and self._asked is not None:
            # It was replaced while we were on our way.
            model = lease.model or self._asked
            self.batch = attrs.evolve(self.batch, model=model)
        guard = self._serving.breakers.of(self.deployment.name)
        holds = None
        if self.deployment.name in self._serving.gates.of_attempts:
            holds = await self._entered(lease, may_wait=may_wait)
        try:
            placed = Placed(replica, size_of(self.batch), asked_at)
            return Held(lease, guard, holds=holds, placed=placed)
        except InferenceError:
            if holds is not None:
                holds.end(None)
            self.avoid(replica)
            give_back(lease, Ended.OTHERWISE)
            raise

    async def _entered(self, lease: Lease, *, may_wait: bool) -> Holds:
        """Pass the deployment's gates, or give back the permit."""
        try:
            # First, as it takes its time: what gates give is for now.
            await self._fetch(lease)
            demand = demand_for(
                self._serving,
                self.deployment,
                self.batch,
                runner=lease.runner,
                bound=self._bound,
            )
            return await enter(
                # They may have gone meanwhile.
                self._serving.gates.of_attempts.get(self.deployment.name, ()),
                demand,
                deadline_s=self.deadline_s,
                may_wait=may_wait,
            )
        except BaseException:
            give_back(lease, Ended.OTHERWISE)
            raise

    async def _fetch(self, lease: Lease) -> None:
        """Put what the request names by URL into it, where its model fetches nothing.

        Raises:
            UnsupportedFeatureError: the model cannot do what is asked.
            InferenceError: it could not be had.
        """
        capabilities = capabilities_of(lease.runner, self.batch.model)
        if needs_fetching(self.batch, capabilities):
            check_request(self.batch, capabilities)
            self.batch = await inlined(self.batch, capabilities)

    def let_go(self, held: AnyHeld, error: BaseException | None) -> None:
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
        held.release(ended)
        if held.holds is not None:
            used = None
            if held.attempt is not None:
                serving, asked = self._serving, self.batch
                used = used_by(
                    serving, self.deployment, held.attempt, error, lambda: asked
                )
            held.holds.end(used)

    def avoid(self, replica: AnyReplica) -> None:
        """Ask another replica, if there is one: this one has failed."""
        self._failed_on |= {replica}

    def _avoid_replica(self) -> None:
        if self._routed is not None:
            self.avoid(self._routed.replica)

    async def _admitted(
        self, replica: ReplicaState, pid: Pid, *, may_wait: bool
    ) -> Lease:
        replica.arriving += 1
        claim = UNCLAIMED
        if (asker := self.batch.asker) is not None:
            claim = Claim(asker.shares, cost_of_turn(self.batch, self.whole))
        asked = messages.Admit(pid, self.batch.priority, may_wait, claim)
        try:
            lease = await call(replica.core, asked, timeout_s=None)
        except (NoProcessError, ServerDownError) as error:
            raise NotReadyError(f"{self.deployment.name} is restarting") from error
        finally:
            replica.arriving -= 1
        if isinstance(lease, InferenceError):
            raise lease
        return lease

    async def run(
        self, held: AnyHeld, attempt: Attempt, receiver: Receiver, terms: Terms
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
