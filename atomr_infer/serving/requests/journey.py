"""A request's way over the deployments: what every kind of request shares.

A request runs in its client's own task, as a process of the ``requests``
supervisor: it is seen in the tree, it can be killed, and its end, by whatever
way, gives back what it holds.

What is done after a failure is decided by a :class:`RoutePlan` and performed
here: wait and try again, go to another deployment, or give up.  One bound covers
it all, ``timeouts.total_s`` of the first deployment, or less when the client
says so.
"""

from __future__ import annotations

import logging
import random
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import NoProcessError, ProcessKilledError, StartError
from atomr.process import attached
from atomr_infer.errors import (
    BudgetExceededError,
    DeadlineError,
    InferenceError,
    NotReadyError,
)
from atomr_infer.model.failover import Fallback, OnCapacity
from atomr_infer.policy.failures.route_plan import (
    Again,
    Failure,
    GiveUp,
    GoTo,
    Sent,
    start,
)
from atomr_infer.serving.limits.budget_gate import UNKNOWN_COST
from atomr_infer.serving.limits.budget_holds import grow_all, try_grow_all
from atomr_infer.serving.limits.gates import demand_for, enter
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.requests.downgrade import downgraded
from atomr_infer.serving.requests.leg import Leg
from atomr_infer.serving.requests.outlooks import looks, shut_to, unknown_of_all
from atomr_infer.serving.requests.report import Report, with_chain, with_refusals
from atomr_infer.serving.requests.served import Spent, Tried
from atomr_infer.serving.requests.stages import CURRENT, Stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch, Usage
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.failures.route_plan import RoutePlan, Step
    from atomr_infer.policy.limits.demand import TokenBound
    from atomr_infer.serving.limits.gates import Holds
    from atomr_infer.serving.requests.first_attempt import Failed
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)


class Journey:
    """Where a request stands.

    Attributes:
        batch: what is asked; its ``model`` is the public name.
        plan: what has failed, and what may still be done.
        leg: the deployment that is asked now.
        report: what is told about it.
    """

    def __init__(
        self,
        serving: Serving,
        batch: ExecuteBatch,
        failed: Failed | None = None,
        *,
        bound: TokenBound | None = None,
    ) -> None:
        """Stand at the deployment that the model's name belongs to.

        Args:
            serving: the tree that serves.
            batch: what is asked.
            failed: the first attempt, when it has been made.
            bound: the most tokens of a request that generates nothing.

        Raises:
            ModelNotFoundError: there is none.
        """
        try:
            route = serving.table.resolve(batch.model)
        except InferenceError as error:
            log.info("request %s refused: %s", batch.request_id, error)
            raise
        route, others = serving.groups.choose(route, looks(serving, batch, bound))
        first = serving.deployments[route.deployment]
        siblings = tuple(
            Fallback(to=other.deployment, model=other.model) for other in others
        )
        self.batch = batch
        self.plan = start(serving.deployments, first, siblings)
        if failed is None:
            self.report = Report(batch.request_id, batch.model, first.name)
        else:
            self.report = failed.report
        self._serving = serving
        # None: it is inside no other one, and nothing is inside it (yet).
        self._stage = CURRENT.get()
        # For a fallback without a model of its own: the name without a prefix.
        self._asked_model = route.model if first.model is None else batch.model
        self._bound_s = first.timeouts.total_s
        if batch.timeout_s is not None:
            self._bound_s = min(self._bound_s, batch.timeout_s)
        self._deadline = self.report.started_at + self._bound_s
        self._bound = bound
        # Whether anybody has been asked, and what the request's gates gave.
        self._asked = failed is not None
        self._holds: Holds | None = None if failed is None else failed.take_holds()
        # Why those were not asked that could have taken over.
        self._refusals: list[tuple[Fallback, str]] = []
        self.leg: Leg
        self.stand_at(self._leg(first, route.model, asked=self._asked_model))
        if failed is not None:
            self.leg.avoid(failed.replica)

    def take_canonical_form(self) -> None:
        """Leave the client's own bytes behind."""
        self.batch = attrs.evolve(self.batch, source=None)
        leg = self.leg
        self.leg = self._leg(leg.deployment, leg.batch.model, asked=self._asked_model)

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[Pid]:
        """Be a process, within the deadline, for the length of the block.

        Raises:
            DeadlineError: it took too long.
            NotReadyError: the server is shutting down.
            InferenceError: what the block raises.
        """
        report = self.report
        try:
            async with attached(REQUESTS, id=self.batch.request_id) as pid:
                with trio.CancelScope(deadline=self._deadline) as scope, self._staged():
                    await self._enter()
                    yield pid
            if scope.cancelled_caught:
                bound_s = self._bound_s
                raise DeadlineError(f"the request took longer than {bound_s:g} s")
            report.outcome = "completed"
        except (ProcessKilledError, NoProcessError, StartError) as error:
            report.error = str(error)
            raise NotReadyError("the server is shutting down") from error
        except InferenceError as error:
            report.error = str(error)
            raise
        except trio.Cancelled:
            report.outcome = "cancelled"
            raise

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Be what requests belong to that are made inside this one."""
        if self._stage is None:
            self._stage = Stage(self.batch.model)
        self.report.stages = self._stage.stages
        token = CURRENT.set(self._stage)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def stop(self) -> None:
        """Tell how it went, and what it cost."""
        deployments, prices = self._serving.deployments, self._serving.prices
        self.report.cost = prices.cost(self.report.spent, deployments)
        holds, self._holds = self._holds, None
        if holds is not None:
            holds.end(self.report.used if self._asked else None)
        report, stage = self.report, self._stage
        self._serving.usage.note(report.spent, self.batch.asker, report.cost)
        self._serving.meters.note(report)
        if stage is not None:
            if stage.stages:
                # What those inside it used is in the ledger already.
                report.cost = stage.cost_with(report.cost)
            stage.ended(report, self.leg.deployment.runtime)
        self.report.stop()

    async def _enter(self) -> None:
        """Pass the request's gates.

        Those of a request that asks others are passed by what it asks.
        """
        if self._holds is not None or not self._serving.gates.of_requests:
            return
        if self._serving.asked_by(self.leg.deployment.name):
            return
        gates = self._serving.gates.for_request(self.batch)
        while gates:
            leg = self.leg
            demand = demand_for(
                self._serving, leg.deployment, leg.batch, bound=self._bound
            )
            try:
                self._holds = await enter(gates, demand, deadline_s=self._deadline)
            except BudgetExceededError as error:
                if self._downgrade(error):
                    continue
                others = [sibling.to for sibling in self.plan.siblings]
                if error.code == UNKNOWN_COST and others:
                    raise unknown_of_all(error, others) from error
                raise
            else:
                return

    async def turn(
        self, error: InferenceError, *, admitted: bool, sent: Sent = Sent.NOTHING
    ) -> None:
        """Do what the plan says after a failed attempt, or raise.

        Args:
            error: why it failed.
            admitted: False when there was no place for it, so that it did not
                run.
            sent: what the client has seen.

        Raises:
            InferenceError: nothing is left to do.
        """
        self.report.tried.append(Tried(self.leg.deployment.name, error.kind))
        self._asked = self._asked or admitted
        if isinstance(error, BudgetExceededError) and self._downgrade(error):
            await self._make_room(self.leg)
            return
        failure = Failure(
            error=error,
            admitted=admitted,
            sent=sent,
            remaining_s=self._deadline - trio.current_time(),
        )
        step = await self._next(failure)
        match step:
            case GiveUp(error=told):
                try:
                    raise self._counted(told)
                finally:
                    # It will hold this frame, which must not hold it.
                    del error, failure, step, told
                    self.plan = attrs.evolve(self.plan, told=None)
            case Again(wait_s=wait_s):
                if self.report.spent:
                    await self._make_room(self.leg)
                self.report.retry(error, wait_s)
                await trio.sleep(wait_s)
            case GoTo(fallback=fallback, reason=reason):
                self.report.fallback(error, fallback.to, reason.value)
                self.stand_at(self.leg_of(fallback))

    async def _next(self, failure: Failure) -> Step:
        """Plan the next step: nobody takes over whom a budget has no room for."""
        self._leave_out_shut()
        while True:
            plan, step = self.plan.after(failure, random.random())
            if isinstance(step, GoTo):
                to = step.fallback
                standing, self.plan = self.plan, plan
                try:
                    await self._make_room(self.leg_of(to))
                except InferenceError as refused:
                    self._refuse(standing, to, refused)
                    continue
            self.plan = plan
            return step

    def _leave_out_shut(self) -> None:
        """Leave out the fallbacks that a budget would refuse, whenever they came."""
        if not self._serving.gates.of_requests:
            return
        for to in self.plan.open_fallbacks:
            leg = self.leg_of(to)
            refused = shut_to(self._serving, leg.deployment, leg.batch, self._bound)
            if refused is not None:
                self._refuse(self.plan, to, refused)

    def _refuse(self, plan: RoutePlan, to: Fallback, refused: InferenceError) -> None:
        self.plan = plan.without(to.to)
        text = f"{to.to!r} did not take over: {refused.message}"
        self._refusals.append((to, text))
        log.info("request %s: %s", self.batch.request_id, text)

    async def _make_room(self, leg: Leg) -> None:
        """Let the budgets of who asks hold what a leg may cost beside what was spent.

        Raises:
            InferenceError: there is no room; they hold what they held.
        """
        serving, report = self._serving, self.report
        if not serving.gates.of_requests or serving.asked_by(leg.deployment.name):
            return
        gates = serving.gates.for_request(self.batch) if self._holds is None else ()
        if self._holds is None and not gates:
            return
        demand = demand_for(serving, leg.deployment, leg.batch, bound=self._bound)
        if self._holds is None:  # it began where the gates are passed by others
            self._holds = await enter(gates, demand, deadline_s=self._deadline)
            return
        report.cost = serving.prices.cost(report.spent, serving.deployments)
        await grow_all(self._holds, demand, report.used, deadline_s=self._deadline)

    def has_room_beside(self, leg: Leg) -> bool:
        """Let the budgets hold a second attempt's cost, if that is at hand."""
        serving = self._serving
        if not serving.gates.of_requests or serving.asked_by(leg.deployment.name):
            return True
        if self._holds is None:
            return not serving.gates.for_request(self.batch)
        demand = demand_for(serving, leg.deployment, leg.batch, bound=self._bound)
        return try_grow_all(self._holds, demand)

    def _downgrade(self, error: BudgetExceededError) -> bool:
        """Ask another model, if the budget names one that was not asked yet."""
        model = "" if self.report.downgraded else self.leg.batch.model
        look = looks(self._serving, self.batch, self._bound)
        found = downgraded(self._serving, self.plan, error, look, model=model)
        if found is None:
            return False
        self.plan, to = found
        self.report.fallback(error, to.to, "budget")
        self.report.downgraded = error.message
        self.stand_at(self.leg_of(to))
        return True

    def stand_at(self, leg: Leg) -> None:
        """Ask this one from now on."""
        self.leg = leg
        self.report.deployment = name = leg.deployment.name
        self.report.members = self.plan.members_with(name)
        if leg.deployment.serving.on_capacity_exhausted is OnCapacity.FALLBACK:
            self._leave_out_shut()  # its queue is waited in where nobody takes over

    def leg_of(self, fallback: Fallback) -> Leg:
        """Return a fallback as this request would ask it."""
        deployment = self.plan.deployments[fallback.to]
        model = fallback.model or deployment.model or self._asked_model
        asked = self._asked_model if fallback.model is None else None
        return self._leg(deployment, model, asked=asked)

    def given_up(self) -> InferenceError:
        """Return the error that the client is told when it ends here."""
        assert self.plan.told is not None, "something has failed"
        return self._counted(self.plan.told)

    def _counted(self, told: InferenceError) -> InferenceError:
        told = with_refusals(told, self._refusals, self.plan.is_for)
        error = with_chain(told, self.report.tried)
        error.attempts = len(self.report.tried)
        return error

    def answered(self, usage: Usage | None) -> None:
        """Note who answered, and what it used."""
        self._asked = True
        self.report.tried.append(Tried(self.leg.deployment.name))
        self.report.usage = usage
        if usage is not None:
            self.spent(self.leg, usage)

    def broken_off(self) -> None:
        """Note an attempt that ran when its client left, or its time was over."""
        self._asked = True
        report = self.report
        kind = "cancelled" if report.outcome == "cancelled" else DeadlineError.kind
        report.tried.append(Tried(self.leg.deployment.name, kind))

    def spent(self, leg: Leg, usage: Usage) -> None:
        """Note what an attempt used."""
        name, model = leg.deployment.name, leg.batch.model
        composed = leg.attempt is not None and leg.attempt.composed
        if composed or self._serving.asked_by(name):
            return  # it was used, and is paid for, by those that it asked
        self.report.spent.append(Spent(name, model, usage))

    def _leg(self, deployment: Deployment, model: str, *, asked: str | None) -> Leg:
        batch = self.batch
        if batch.model != model:
            batch = attrs.evolve(batch, model=model)
        return Leg(
            self._serving,
            deployment,
            batch,
            deadline_s=self._deadline,
            bound=self._bound,
            asked=asked,
        )
