"""A request: from the model's name to the last chunk, over as many attempts.

A request runs in its client's own task, as a process of the ``requests``
supervisor: it is seen in the tree, it can be killed, and its end, by whatever
way, gives back what it holds.  Chunks go straight from the runner to the
caller's sink; no mailbox is in between.

What is done after a failure is decided by a :class:`RoutePlan` and performed
here: wait and try again, go to another deployment, or give up.  One bound covers
it all, ``timeouts.total_s`` of the first deployment, or less when the client
says so.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import NoProcessError, ProcessKilledError, StartError
from atomr.process import attached
from atomr_infer.errors import DeadlineError, InferenceError, NotReadyError
from atomr_infer.model.failover import FallbackReason, OnCut
from atomr_infer.policy.recovery import continued
from atomr_infer.policy.route_plan import (
    Again,
    Failure,
    GiveUp,
    GoTo,
    Sent,
    start,
)
from atomr_infer.policy.spending import interrupted_usage
from atomr_infer.serving.delivery import Attempt, Delivery
from atomr_infer.serving.hedge import Race
from atomr_infer.serving.leg import Leg, Receiver, Terms
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.report import Report, with_chain
from atomr_infer.serving.served import Served, Sink, Spent, Tried

if TYPE_CHECKING:
    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.failover import Fallback
    from atomr_infer.policy.hedging import HedgeBudget
    from atomr_infer.serving.shared import Serving

__all__ = ["Served", "Sink", "run_request"]

log = logging.getLogger(__name__)


async def run_request(serving: Serving, batch: ExecuteBatch, sink: Sink) -> Served:
    """Run one request to its end.

    Args:
        serving: the tree that serves.
        batch: what is asked; its ``model`` is the public name.
        sink: where the answer goes.

    Returns:
        Who answered, as ``sink.begin`` was told, and what it cost.

    Raises:
        InferenceError: the request failed; when ``sink.begin`` was called, the
            answer is incomplete.

    Cancellation: ends the generation before it passes on.
    """
    try:
        route = serving.table.resolve(batch.model)
    except InferenceError as error:
        log.info("request %s refused: %s", batch.request_id, error)
        raise
    request = _Request(serving, serving.deployments[route.deployment], batch, sink)
    request.begin(route.model)
    report = request.report
    try:
        async with attached(REQUESTS, id=batch.request_id) as pid:
            await request.run(pid)
        report.outcome = "completed"
    except (ProcessKilledError, NoProcessError, StartError) as error:
        report.outcome = error
        raise NotReadyError("the server is shutting down") from error
    except InferenceError as error:
        report.outcome = error
        raise
    except trio.Cancelled:
        report.outcome = "cancelled"
        raise
    finally:
        request.end()
    return request.served


class _Request:
    """The state of one request over its attempts."""

    def __init__(
        self, serving: Serving, first: Deployment, batch: ExecuteBatch, sink: Sink
    ) -> None:
        self._serving = serving
        self._batch = batch
        self._plan = start(serving.deployments, first)
        self._delivery = Delivery(sink, on_cut=first.on_cut, stream=batch.stream)
        self._leg: Leg
        self._asked_model = batch.model
        self._hedge: Fallback | None = None
        self.report = Report(batch.request_id, batch.model, first.name)

    def begin(self, model: str) -> None:
        """Stand at the first deployment, which is asked for ``model``."""
        if self._plan.leg.model is None:
            self._asked_model = model
        if self._plan.on_cut in (OnCut.RESTART_MATCH, OnCut.CONTINUE):
            # Another attempt can only take up what is understood.
            self._batch = attrs.evolve(self._batch, source=None)
        batch = attrs.evolve(self._batch, model=model)
        self._leg = Leg(self._serving, self._plan.leg, batch)

    async def run(self, pid: Pid) -> None:
        """Make attempts until one succeeds or nothing is left to do.

        Raises:
            InferenceError: why it failed.
        """
        bound_s = self._plan.leg.timeouts.total_s
        if self._batch.timeout_s is not None:
            bound_s = min(bound_s, self._batch.timeout_s)
        with trio.move_on_after(bound_s) as scope:
            while (failure := await self._try(pid, scope)) is not None:
                await self._turn(failure)
        if scope.cancelled_caught:
            raise DeadlineError(f"the request took longer than {bound_s:g} s")

    @property
    def served(self) -> Served:
        """Who answered; known when it is over."""
        attempt = self._leg.attempt
        assert attempt is not None, "an answer has an attempt"
        return attrs.evolve(
            attempt.served(attempt.reported_model),
            recovered=self._delivery.recovered,
            spent=tuple(self.report.spent),
            cost=self.report.cost,
        )

    def end(self) -> None:
        """Note what the last attempt cost, and tell how it went."""
        if self.report.outcome != "completed":
            self._note_lost(self._leg.attempt)
        self.report.cost = self._serving.prices.cost(
            self.report.spent, self._serving.deployments
        )
        self.report.first_chunk_at = self._delivery.first_chunk_at
        self.report.recovered = (
            self._delivery.recovered and self.report.outcome == "completed"
        )
        self.report.stop()

    # --- one attempt ------------------------------------------------------------

    async def _try(self, pid: Pid, scope: trio.CancelScope) -> Failure | None:
        try:
            await self._attempt_or_race(pid)
        except InferenceError as error:
            leg = self._leg
            self.report.tried.append(Tried(leg.deployment.name, error.kind))
            self._note_lost(leg.attempt)
            return Failure(
                error=error,
                admitted=leg.attempt is not None,
                sent=self._delivery.sent,
                remaining_s=scope.deadline - trio.current_time(),
            )
        await self._complete(self._leg)
        return None

    async def _attempt_or_race(self, pid: Pid) -> None:
        terms = Terms(
            may_wait=self._plan.may_wait,
            past_filter=self._plan.would_fall_back(FallbackReason.CONTENT_FILTER),
            continues=self._continues,
            served=self._served,
        )
        after_s = self._plan.leg.hedge.after_s
        if after_s is None or self._delivery.begun:
            await self._leg.ask(pid, self._delivery, terms)
            return
        budget = self._serving.hedge_budget(self._plan.leg)
        budget.request()
        race = Race(self._delivery, self._won)

        async def ask(leg: Leg, receiver: Receiver) -> None:
            await leg.ask(pid, receiver, terms)

        second = partial(self._second, budget)
        try:
            await race.run(self._leg, second, ask, after_s=after_s)
        finally:
            self._note_losers(race)

    async def _complete(self, leg: Leg) -> None:
        assert leg.attempt is not None, "an answer has an attempt"
        await self._delivery.finish(leg.attempt)
        self.report.tried.append(Tried(leg.deployment.name))
        self.report.usage = leg.attempt.usage
        if leg.attempt.usage is not None:
            self._note_spent(leg.attempt)

    def _served(
        self, deployment: str, ignored: tuple[str, ...], model: str | None
    ) -> Served:
        tried = [*self.report.tried]
        if not tried or tried[-1].error is not None:
            tried.append(Tried(deployment))
        return Served(
            request_id=self._batch.request_id,
            deployment=deployment,
            model=model or self._batch.model,
            attempts=tuple(tried),
            ignored=ignored,
        )

    # --- a race -----------------------------------------------------------------

    def _second(self, budget: HedgeBudget) -> Leg | None:
        """Return who is asked beside the leg, when that may be paid for."""
        leg = self._leg.beside()
        hedged = None if leg is not None else self._plan.hedged()
        if (leg is None and hedged is None) or not budget.take():
            return None
        if hedged is not None:
            self._plan, self._hedge = hedged
            leg = self._leg_of(self._hedge, self._plan.deployments[self._hedge.to])
        assert leg is not None, "one of the two is there"
        self.report.hedge(leg.deployment.name, "started")
        return leg

    def _won(self, race: Race) -> None:
        """Stand where the answer comes from."""
        assert race.winner is not None, "somebody has won"
        self._note_losers(race)
        leg = race.winner.leg
        if leg is not self._leg:
            if self._hedge is not None and leg.deployment.name == self._hedge.to:
                self._plan = self._plan.taken_over(self._hedge)
            self._leg = leg
            self.report.deployment = leg.deployment.name
        if len(race.lanes) > 1:
            self.report.hedge(leg.deployment.name, "won")

    def _note_losers(self, race: Race) -> None:
        """Note, and bill, those who did not answer; each one once."""
        for lane in race.lanes:
            if lane is race.winner or (lane.leg is self._leg and race.winner is None):
                continue
            if lane.leg.attempt is None or lane.noted:
                continue
            lane.noted = True
            kind = "hedge_lost"
            if isinstance(lane.error, InferenceError):
                kind = lane.error.kind
            self.report.tried.append(Tried(lane.leg.deployment.name, kind))
            self._note_lost(lane.leg.attempt, silent=True)

    # --- what comes after it ----------------------------------------------------

    async def _turn(self, failure: Failure) -> None:
        self._plan, step = self._plan.after(failure, random.random())
        match step:
            case GiveUp(error=error):
                raise with_chain(error, self.report.tried)
            case Again(wait_s=wait_s):
                self.report.retry(failure.error, wait_s)
                await trio.sleep(wait_s)
            case GoTo(fallback=fallback, reason=reason):
                self.report.fallback(failure.error, fallback.to, reason.value)
                self._leg = self._leg_of(fallback, self._plan.leg)
                self.report.deployment = fallback.to
        self._take_up()

    def _leg_of(self, fallback: Fallback, deployment: Deployment) -> Leg:
        model = fallback.model or deployment.model or self._asked_model
        batch = attrs.evolve(self._batch, model=model)
        return Leg(self._serving, deployment, batch)

    @property
    def _continues(self) -> bool:
        return self._plan.on_cut is OnCut.CONTINUE and self._delivery.sent is Sent.TEXT

    def _take_up(self) -> None:
        """Prepare the delivery, and the request, for what the client has."""
        self._delivery.restart(continued=self._continues)
        if self._delivery.sent is Sent.NOTHING:
            return
        self.report.recovery(self._plan.on_cut.value)
        if self._continues:
            transcript = self._delivery.transcript
            assert transcript is not None, "what is continued is kept"
            base = attrs.evolve(self._batch, model=self._leg.batch.model)
            batch = continued(base, transcript)
            if batch is None:
                raise self._plan_error()
            self._leg.batch = batch

    def _plan_error(self) -> InferenceError:
        assert self._plan.told is not None, "something has failed"
        return with_chain(self._plan.told, self.report.tried)

    # --- what it costs ----------------------------------------------------------

    def _note_spent(self, attempt: Attempt) -> None:
        assert attempt.usage is not None, "the caller has looked"
        self.report.spent.append(
            Spent(attempt.deployment, attempt.model, attempt.usage)
        )

    def _note_lost(self, attempt: Attempt | None, *, silent: bool = False) -> None:
        """Count an attempt that ended before its upstream could say.

        Args:
            attempt: which one.
            silent: True counts its prompt even though nothing came of it.
        """
        if attempt is None or attempt.billed or not (attempt.chars or silent):
            return
        attempt.billed = True
        if attempt.usage is None:
            attempt.usage = interrupted_usage(self._batch, attempt.chars)
        self._note_spent(attempt)
