"""`FairShareScheduler`: so many at once, and tenants take turns by weight and tokens.

::

    scheduler = FairShareScheduler(concurrency=4)
    async with scheduler.turn("ann", cost=1200) as turn:
        answer = await ask(...)
        turn.used(answer.usage.total_tokens)

It is for work that a program does itself; a deployment has the same queue before each
of its replicas (:mod:`atomr_infer.policy.tenants.admission`), with virtual keys as
tenants.

Who runs is never stopped, so the bound is that of start-time fair queueing: a request
of a tenant that asks for no more than its share waits for who runs, and for one request
of each other tenant, whatever these have queued.

A turn's cost is thought beforehand and paid for afterwards: who uses more than was
thought has its next turn later.

Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", 1996; Sheng et al., "Fairness in
Serving Large Language Models", 2024, for paying afterwards.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.checks import check_count
from atomr_infer.errors import OverloadedError
from atomr_infer.policy.tenants.admission import Admission, AdmissionQueue, Claim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from atomr_infer.policy.tenants.fair_share import Shares


@attrs.define(eq=False)
class Turn:
    """The right to run now.

    Attributes:
        cost: what it costs: what was thought, or what was used.
    """

    cost: float
    _may_run: trio.Event = attrs.field(factory=trio.Event)
    _displaced: bool = False

    def used(self, cost: float) -> None:
        """Say what it has cost.

        Args:
            cost: tokens, or whatever costs are counted in; above 0.
        """
        if not 0 < cost < math.inf:
            raise ValueError(f"used({cost}): a turn costs more than 0, and a number")
        self.cost = cost

    # --- the scheduler's ------------------------------------------------------------

    def run(self) -> None:
        """Let it run."""
        self._may_run.set()

    def displace(self) -> None:
        """Let it wait no more: another tenant has less waiting."""
        self._displaced = True
        self._may_run.set()

    async def wait(self) -> None:
        """Wait until it may run.

        Raises:
            OverloadedError: it has to make room.
        """
        await self._may_run.wait()
        if self._displaced:
            raise OverloadedError("a tenant with less waiting has taken its place")


class FairShareScheduler:
    """A queue that is fair between tenants, before something that does so much."""

    def __init__(
        self, concurrency: int, *, max_queue: int = 10_000, aging_s: float = 10.0
    ) -> None:
        """Make one for which nobody waits.

        Args:
            concurrency: how many run at once.
            max_queue: how many may wait; then whoever has most waiting makes room for
                who has less, and everybody else is refused.
            aging_s: the wait that is worth one step of priority, in seconds.
        """
        check_count("concurrency", concurrency, least=1)
        check_count("max_queue", max_queue)
        self._queue = AdmissionQueue[Turn](max_queue=max_queue, aging_s=aging_s)
        self._queue.open(concurrency)

    @property
    def running(self) -> int:
        """How many run."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._queue.waiting

    @asynccontextmanager
    async def turn(
        self,
        tenant: str | Shares,
        *,
        cost: float = 1.0,
        weight: float = 1.0,
        priority: int = 0,
    ) -> AsyncIterator[Turn]:
        """Wait for a turn, and have it for the length of the block.

        Args:
            tenant: whose it is; a team's member as ``(("team", 2.0), ("ann", 1.0))``,
                each with its weight.
            cost: what it may cost, above 0, such as tokens.
            weight: the tenant's share, beside the others'.
            priority: higher goes first.

        Raises:
            OverloadedError: too many wait, or it had to make room.

        Cancellation: it waits no more.
        """
        shares = ((tenant, weight),) if isinstance(tenant, str) else tenant
        if not all(0 < each < math.inf for each in (cost, *(w for _, w in shares))):
            raise ValueError("turn(): costs and weights are numbers above 0")
        claim, turn = Claim(shares, cost), Turn(cost)
        try:
            if self._asked(turn, claim, priority) is Admission.QUEUED:
                await turn.wait()
            yield turn
        finally:
            self._queue.charge(claim, cost=turn.cost, priority=priority)
            self._run(self._queue.leave(turn))

    def _asked(self, turn: Turn, claim: Claim, priority: int) -> Admission:
        now = trio.current_time()
        found = self._queue.ask(turn, now=now, priority=priority, claim=claim)
        if found is Admission.REFUSED:
            last = self._queue.displace(now=now, priority=priority, claim=claim)
            if last is None:
                raise OverloadedError(f"{self.waiting} wait for a turn already")
            last.displace()
            found = self._queue.ask(turn, now=now, priority=priority, claim=claim)
        return found

    def _run(self, turns: Iterable[Turn]) -> None:
        for turn in turns:
            turn.run()
