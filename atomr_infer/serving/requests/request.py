"""A generation: from the model's name to the last chunk, over as many attempts.

Its :class:`Journey` says where it stands and what to do after a failure; here are
the attempts themselves, alone or in a race, and what the client has of the answer.
Chunks go straight from the runner to the caller's sink; no mailbox is in between.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.model.failover import FallbackReason, OnCut
from atomr_infer.policy.estimates.answer_length import bounded
from atomr_infer.policy.estimates.spending import interrupted_usage
from atomr_infer.policy.failures.recovery import continued
from atomr_infer.policy.failures.route_plan import Sent
from atomr_infer.serving.requests.delivery import Delivery
from atomr_infer.serving.requests.hedge import Race
from atomr_infer.serving.requests.journey import Journey
from atomr_infer.serving.requests.served import Served, Sink, Tried
from atomr_infer.serving.requests.terms import Receiver, Terms

if TYPE_CHECKING:
    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.failover import Fallback
    from atomr_infer.policy.failures.hedging import HedgeBudget
    from atomr_infer.serving.requests.first_attempt import Failed
    from atomr_infer.serving.requests.leg import Leg
    from atomr_infer.serving.shared import Serving

__all__ = ["Served", "Sink", "run_request"]


async def run_request(
    serving: Serving, batch: ExecuteBatch, sink: Sink, failed: Failed | None = None
) -> Served:
    """Run one request to its end.

    Args:
        serving: the tree that serves.
        batch: what is asked; its ``model`` is the public name.
        sink: where the answer goes.
        failed: its first attempt, when that was made on the straight way.

    Returns:
        Who answered, as ``sink.begin`` was told, and what it cost.

    Raises:
        InferenceError: the request failed; when ``sink.begin`` was called, the
            answer is incomplete.

    Cancellation: ends the generation before it passes on.
    """
    request = _Request(serving, batch, sink, failed)
    try:
        async with request.journey.under_way() as pid:
            if failed is not None:
                await request.journey.turn(failed.take_error(), admitted=True)
            await request.run(pid)
    finally:
        request.end()
    return request.served


class _Request:
    """The state of one request over its attempts."""

    def __init__(
        self, serving: Serving, batch: ExecuteBatch, sink: Sink, failed: Failed | None
    ) -> None:
        self.journey = Journey(serving, batch, failed)
        self._serving = serving
        self._on_cut = self.journey.plan.on_cut
        if self._on_cut in (OnCut.RESTART_MATCH, OnCut.CONTINUE):
            # Another attempt can only take up what is understood.
            self.journey.take_canonical_form()
        self._delivery = Delivery(
            sink, self.journey.report, on_cut=self._on_cut, stream=batch.stream
        )
        self._hedge: Fallback | None = None
        self._under_way = False

    async def run(self, pid: Pid) -> None:
        """Make attempts until one succeeds or nothing is left to do.

        Raises:
            InferenceError: why it failed.
        """
        while True:
            self._under_way = True
            try:
                await self._attempt(pid)
            except InferenceError as error:
                self._under_way = False
                leg = self.journey.leg
                self._note_lost(leg)
                admitted, sent = leg.attempt is not None, self._delivery.sent
                await self.journey.turn(error, admitted=admitted, sent=sent)
                self._take_up()
            else:
                break
        attempt = self.journey.leg.attempt
        assert attempt is not None, "an answer has an attempt"
        await self._delivery.finish(attempt)
        self._under_way = False
        self.journey.answered(attempt.usage)

    @property
    def served(self) -> Served:
        """Who answered; known when it is over."""
        attempt = self.journey.leg.attempt
        assert attempt is not None, "an answer has an attempt"
        return self._delivery.served(attempt)

    def end(self) -> None:
        """Note what the last attempt cost, and tell how it went."""
        report = self.journey.report
        completed = report.outcome == "completed"
        leg = self.journey.leg
        if self._under_way and leg.attempt is not None:
            self.journey.broken_off()
            self._note_lost(leg, silent=leg.attempt.is_under_way)
            report.usage = leg.attempt.usage
        elif not completed:
            self._note_lost(leg)
        report.first_chunk_at = self._delivery.first_chunk_at
        report.recovered = self._delivery.recovered and completed
        self.journey.stop()

    # --- one attempt ------------------------------------------------------------

    async def _attempt(self, pid: Pid) -> None:
        plan, leg = self.journey.plan, self.journey.leg
        report = self.journey.report
        if not report.tried:
            report.asked_at = trio.current_time()
        terms = Terms(
            may_wait=plan.may_wait,
            past_filter=plan.would_fall_back(FallbackReason.CONTENT_FILTER),
            continues=self._continues,
        )
        after_s = leg.deployment.hedge.after_s
        twice = leg.deployment.retry.idempotent and not self._delivery.begun
        if after_s is None or not twice:
            await leg.ask(pid, self._delivery, terms)
            return
        budget = self._serving.hedge_budget(leg.deployment)
        budget.request()
        race = Race(self._delivery, self._won)

        # A second attempt that had to wait would come too late, and take a place.
        beside = attrs.evolve(terms, may_wait=False)

        async def ask(asked: Leg, receiver: Receiver) -> None:
            await asked.ask(pid, receiver, terms if asked is leg else beside)

        try:
            await race.run(leg, partial(self._second, budget), ask, after_s=after_s)
        finally:
            self._note_losers(race)
            race.lanes.clear()  # they know the race, and would keep each other

    # --- a race -----------------------------------------------------------------

    def _second(self, budget: HedgeBudget) -> Leg | None:
        """Return who is asked beside the leg, when that may be paid for."""
        journey = self.journey
        leg = journey.leg.beside()
        hedged = None if leg is not None else journey.plan.hedged()
        if hedged is not None:
            leg = journey.leg_of(hedged[1])
        # In this order: what is held for an attempt is held until the request ends.
        if leg is None or not budget.take() or not journey.has_room_beside(leg):
            return None
        if hedged is not None:
            journey.plan, self._hedge = hedged
        journey.report.hedge(leg.deployment.name, "started")
        return leg

    def _won(self, race: Race) -> None:
        """Stand where the answer comes from."""
        assert race.winner is not None, "somebody has won"
        self._note_losers(race)
        journey, leg = self.journey, race.winner.leg
        if leg is not journey.leg:
            if self._hedge is not None and leg.deployment.name == self._hedge.to:
                journey.plan = journey.plan.taken_over(self._hedge)
            journey.stand_at(leg)
        if len(race.lanes) > 1:
            journey.report.hedge(leg.deployment.name, "won")

    def _note_losers(self, race: Race) -> None:
        """Note, and bill, those who did not answer; each one once."""
        open_race = race.winner is None
        for lane in race.lanes:
            if lane is race.winner or (open_race and lane.leg is self.journey.leg):
                continue
            if lane.leg.attempt is None or lane.noted:
                continue
            lane.noted = True
            error = lane.error
            kind = error.kind if isinstance(error, InferenceError) else "hedge_lost"
            self.journey.report.tried.append(Tried(lane.leg.deployment.name, kind))
            self._note_lost(lane.leg, silent=True)

    # --- what comes after a failure ---------------------------------------------

    @property
    def _continues(self) -> bool:
        return self._on_cut is OnCut.CONTINUE and self._delivery.sent is Sent.TEXT

    def _take_up(self) -> None:
        """Prepare the delivery, and the request, for what the client has."""
        self._delivery.restart(continued=self._continues)
        if self._delivery.sent is Sent.NOTHING:
            return
        journey = self.journey
        journey.report.recovery(self._on_cut.value)
        if self._continues:
            transcript = self._delivery.transcript
            assert transcript is not None, "what is continued is kept"
            model = journey.leg.batch.model
            batch = continued(attrs.evolve(journey.batch, model=model), transcript)
            if batch is None:
                raise journey.given_up()
            journey.leg.batch = bounded(batch, journey.leg.deployment)

    def _note_lost(self, leg: Leg, *, silent: bool = False) -> None:
        """Count an attempt that ended before its upstream could say.

        Args:
            leg: whose attempt.
            silent: True counts its prompt even though nothing came of it.
        """
        attempt = leg.attempt
        if attempt is None or attempt.billed or not (attempt.chars or silent):
            return
        attempt.billed = True
        if attempt.usage is None:
            attempt.usage = interrupted_usage(
                self.journey.batch, attempt.chars, attempt.counted
            )
        self.journey.spent(leg, attempt.usage)
