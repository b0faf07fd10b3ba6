"""The straight way: a first attempt for which everything is at hand.

Most requests need none of what ``request.py`` is prepared for.
When the client's bytes can be passed on, a permit is free and the circuit is closed,
the first attempt is made here, with nothing planned for its failure.  Where one of
these is missing, there is no straight way; where the attempt fails before the client
has seen anything, the request goes on in the ordinary way, which takes it for the
first of its attempts.

A request that goes straight is a process like any other, gives back what it holds
like any other, and is told of like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import NoProcessError, ProcessKilledError, StartError
from atomr.process import attached
from atomr_infer.errors import (
    DeadlineError,
    InferenceError,
    NotReadyError,
    RateLimitedError,
    StreamCutError,
)
from atomr_infer.model.failover import OnCut
from atomr_infer.policy.estimates.spending import interrupted_usage
from atomr_infer.policy.failures.breaker import Circuit, Outcome, outcome_of
from atomr_infer.policy.failures.route_plan import Sent
from atomr_infer.runtimes.contract import NotPassedError
from atomr_infer.serving.limits.gates import (
    NOTHING_HELD,
    Entered,
    demand_for,
    enter_both,
    used_by,
)
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.permits import Ended
from atomr_infer.serving.requests.delivery import Attempt, Delivery
from atomr_infer.serving.requests.first_attempt import Failed, OrdinaryWayError
from atomr_infer.serving.requests.report import Report
from atomr_infer.serving.requests.served import Spent, Tried

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.model.batch import ExecuteBatch, Usage
    from atomr_infer.model.cost import Cost
    from atomr_infer.policy.failures.breaker import Pass
    from atomr_infer.runtimes.contract import Passage
    from atomr_infer.serving.limits.gates import Holds
    from atomr_infer.serving.replicas.permits import Permit
    from atomr_infer.serving.requests.served import Served, Sink
    from atomr_infer.serving.requests.ways import Way
    from atomr_infer.serving.shared import Serving


class Straight:
    """One request on the straight way.  Made by :func:`straight`; run it once."""

    __slots__ = (
        "_attempt",
        "_batch",
        "_delivery",
        "_ends_at",
        "_entered",
        "_guard",
        "_passage",
        "_passed",
        "_permit",
        "_reread",
        "_serving",
        "_way",
        "report",
    )

    def __init__(  # noqa: PLR0913 - all by keyword
        self,
        *,
        serving: Serving,
        way: Way,
        permit: Permit,
        route: bytes,
        passage: Passage,
        batch: ExecuteBatch,
        ends_at: float,
        report: Report,
        reread: Callable[[], ExecuteBatch],
        entered: Entered,
    ) -> None:
        self._serving = serving
        self._way = way
        self._permit = permit
        self._guard = guard = serving.breakers.of(way.deployment.name)
        self._passed: Pass | None = None if guard is None else guard.admit()
        self._passage = passage
        self._batch = batch
        self._ends_at = ends_at
        self._reread = reread
        self._entered = entered
        self._attempt = Attempt(way.deployment.name, way.model, route=route)
        self._delivery: Delivery
        self.report = report

    async def run(self, sink: Sink) -> Cost | None:
        """Make the request.

        Args:
            sink: where the answer goes.

        Returns:
            What it cost; None when nobody knows.

        Raises:
            OrdinaryWayError: it is to be made in the ordinary way; the sink has
                been told nothing.
            InferenceError: it failed in the middle of its answer.

        Cancellation: ends the generation before it passes on.
        """
        report = self.report
        self._delivery = Delivery(
            sink,
            report,
            on_cut=self._way.deployment.on_cut,
            stream=self._batch.stream,
        )
        report.asked_at = report.started_at  # nothing was waited for
        try:
            await self._run()
        except NotPassedError as error:
            if self._entered.of_request is not None:
                self._entered.of_request.end(None)
            raise OrdinaryWayError from error
        except InferenceError as error:
            if self._delivery.sent is Sent.NOTHING:
                raise OrdinaryWayError(self._failed(error)) from error
            report.error = str(error)
            report.tried.append(Tried(self._attempt.deployment, error.kind))
            error.attempts = len(report.tried)
            self._stop(report)
            raise
        except trio.Cancelled:
            report.outcome = "cancelled"
            report.tried.append(Tried(self._attempt.deployment, "cancelled"))
            self._stop(report)
            raise
        except BaseException:
            self._stop(report)
            raise
        report.outcome = "completed"
        report.tried.append(Tried(self._attempt.deployment))
        self._stop(report)
        return report.cost

    @property
    def served(self) -> Served:
        """Who answered; known when it is over."""
        return self._delivery.served(self._attempt)

    async def _run(self) -> None:
        """Make the attempt, and give back all that it holds."""
        error: BaseException | None = None
        try:
            await self._as_process()
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                await self._passage.end(error)
            finally:
                self._give_back(error)
                error = None  # it would hold this frame, which holds it

    async def _as_process(self) -> None:
        block = attached(REQUESTS, id=self._batch.request_id)
        life = self._permit.engine.life
        try:
            async with block:
                with life.hold(block.scope):
                    await self._pass_on()
                await self._delivery.finish(self._attempt)
        except (ProcessKilledError, NoProcessError, StartError) as error:
            if life.error is not None:
                raise fresh(life.error) from error
            raise NotReadyError("the server is shutting down") from error

    async def _pass_on(self) -> None:
        attempt, delivery = self._attempt, self._delivery
        try:
            chunks = await self._passage.begin()
            try:
                async for chunk in chunks:
                    attempt.note(chunk)
                    await delivery.chunk(chunk, attempt)
            finally:
                attempt.end(chunks)
        except InferenceError as error:
            if trio.current_time() < self._ends_at:
                raise
            bound_s = self._ends_at - self.report.started_at
            raise DeadlineError(
                f"the request took longer than {bound_s:g} s"
            ) from error
        if not attempt.complete:
            name = self._way.deployment.name
            raise StreamCutError(f"{name} ended its answer too early")

    # --- how it ends --------------------------------------------------------------

    def _give_back(self, error: BaseException | None) -> None:
        """Give back the permit, and tell the breaker how it went."""
        passed, self._passed = self._passed, None
        ended, outcome = Ended.OTHERWISE, Outcome.UNKNOWN
        if error is None:
            ended, outcome = Ended.SUCCEEDED, Outcome.SUCCEEDED
        elif isinstance(error, InferenceError):
            outcome = outcome_of(error)
            if isinstance(error, RateLimitedError):
                ended = Ended.RATE_LIMITED
        if self._guard is not None and passed is not None:
            self._guard.report(passed, outcome)
        self._permit.give_back(ended)
        holds = self._entered.of_attempt
        if holds is not None:
            self._end_attempt(holds, error)

    def _end_attempt(self, holds: Holds, error: BaseException | None) -> None:
        """Tell the deployment's gates what the attempt used."""
        used = None
        try:
            if error is None or not isinstance(error, NotPassedError):
                deployment, attempt = self._way.deployment, self._attempt
                used = used_by(self._serving, deployment, attempt, error, self._known)
        finally:
            holds.end(used)

    def _known(self) -> ExecuteBatch:
        """Return the request with its conversation, if it can be read: to count it."""
        try:
            return self._reread()
        except InferenceError:
            return self._batch

    def _failed(self, error: InferenceError) -> Failed:
        usage = self._usage(ours=isinstance(error, DeadlineError))
        if usage is not None:
            self._spent(usage)
        holds = self._entered.of_request
        return Failed(error, self._permit.replica, self.report, holds)

    def _stop(self, report: Report) -> None:
        serving = self._serving
        try:
            usage = self._usage(ours=report.outcome == "cancelled")
            if report.outcome != "failed":
                report.usage = usage
            if usage is not None:
                self._spent(usage)
            report.first_chunk_at = self._delivery.first_chunk_at
            report.cost = serving.prices.cost(report.spent, serving.deployments)
        finally:
            if self._entered.of_request is not None:
                self._entered.of_request.end(report.used)
        serving.usage.note(report.spent, self._batch.asker, report.cost)
        serving.meters.note(report)
        report.stop()

    def _spent(self, usage: Usage) -> None:
        way = self._way
        self.report.spent.append(Spent(way.deployment.name, way.model, usage))

    def _usage(self, *, ours: bool) -> Usage | None:
        """Return what the attempt used; an estimate needs the conversation.

        Args:
            ours: True when our side ended it, for a client that left or a bound
                that was passed: its upstream was at work before its first word, too.
        """
        attempt = self._attempt
        usage = attempt.usage
        if usage is None:
            lost = attempt.is_under_way if ours else attempt.chars
            if not lost or attempt.complete:
                return None
            return interrupted_usage(self._known(), attempt.chars, attempt.counted)
        if not usage.estimated:
            return usage
        prompt = interrupted_usage(self._known(), 0).input_uncached
        return attrs.evolve(usage, input_uncached=prompt)


def straight(
    serving: Serving,
    batch: ExecuteBatch,
    *,
    reread: Callable[[], ExecuteBatch],
) -> Straight | None:
    """Return the straight way for a request; None: there is none for it now.

    What is returned holds a permit, and must be run.

    Args:
        serving: the tree that serves.
        batch: the request with its ``source``; its ``model`` is the public name,
            and it may lack its conversation.
        reread: returns it with its conversation.
    """
    way = _open(serving, batch)
    idle = None if way is None else serving.idle_replica(way.deployment, batch)
    permit = None if idle is None else idle[0].permits.take(idle[2])
    if way is None or idle is None or permit is None:
        return None
    deployment = way.deployment
    if permit.engine.model != deployment.model:
        permit.give_back(Ended.OTHERWISE)  # it is replaced in this very moment
        return None
    report = Report(batch.request_id, batch.model, deployment.name)
    bound_s = deployment.timeouts.total_s
    if batch.timeout_s is not None:
        bound_s = min(bound_s, batch.timeout_s)
    ends_at = report.started_at + bound_s
    begin = getattr(permit.engine.runner, "passage", None)
    routed = batch.asked_for(way.model)
    passage = entered = None
    try:
        if begin is not None:
            entered = _enter(serving, way, permit, routed, reread)
            if entered is not None:
                passage = begin(routed, total_at=ends_at)
    except BaseException:
        if entered is not None:
            entered.cancel()
        permit.give_back(Ended.OTHERWISE)
        raise
    if entered is None or passage is None:
        if entered is not None:
            entered.cancel()
        permit.give_back(Ended.OTHERWISE)
        return None
    return Straight(
        serving=serving,
        way=way,
        permit=permit,
        route=idle[1],
        passage=passage,
        batch=routed,
        ends_at=ends_at,
        report=report,
        reread=reread,
        entered=entered,
    )


def _open(serving: Serving, batch: ExecuteBatch) -> Way | None:
    """Return the way to a model, when nothing unusual stands in it."""
    way = serving.ways.find(serving.table, batch.model)
    if way is None or serving.key_headers:
        return None
    if batch.stream and way.deployment.on_cut is not OnCut.ERROR:
        return None
    if way.deployment.default_max_tokens and batch.sampling.max_tokens is None:
        return None  # its bytes lack what is to be sent
    guard = serving.breakers.of(way.deployment.name)
    return way if guard is None or guard.breaker.state is Circuit.CLOSED else None


def _enter(
    serving: Serving,
    way: Way,
    permit: Permit,
    batch: ExecuteBatch,
    reread: Callable[[], ExecuteBatch],
) -> Entered | None:
    """Pass all gates in place; None: one makes it wait, or refuses."""
    gates = serving.gates
    if not (gates.of_requests or gates.of_attempts):
        return NOTHING_HELD
    deployment = way.deployment
    of_request = gates.for_request(batch) if gates.of_requests else ()
    of_attempt = gates.of_attempts.get(deployment.name, ())
    if not (of_request or of_attempt):
        return NOTHING_HELD
    try:
        # A body that a glance takes may be one that reading it refuses.
        demand = demand_for(
            serving, deployment, batch, runner=permit.engine.runner, reread=reread
        )
        return enter_both(of_request, of_attempt, demand)
    except InferenceError:
        return None  # the ordinary way knows what to do about it
