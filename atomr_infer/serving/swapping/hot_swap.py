"""A deployment is taken over by another one step by step, and not at all if it fails.

The one that comes is deployed beside the one that serves, under a name of its own
(``NAME:next``), and asked something.  Then both are a group: the one that comes has a
share of the requests, in the steps of a plan, and what it fails to answer is answered
by the other one, as in every group.  When it has had all of them for a step, the
deployment becomes the new one (while its copy answers), and the copy goes with its
last request::

    NAME        old ─────────── old ───────── closed, new opened ── new ────
    NAME:next   loading, asked ─ 5 %, 25 %, 50 %, 100 % ─────────── none ─ gone

So two engines are open at once, and never three: the old one is closed before its
place is taken.  Too many failures, an answer that does not come, or whoever cancels
it: all is as it was.  No request is dropped on either way.

All of this is asked of the node as any operator would ask it
(:mod:`atomr_infer.serving.placing.orders`), so it holds on all nodes: both deployments
are in the catalogue, with their weights.

Each swap is a process of the node that leads it.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr import telemetry
from atomr.errors import AtomrError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.failover import Swap
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.policy.lifecycle.hot_swap import Phase, Tally, Turn, turn, wait_s
from atomr_infer.serving.names import next_name
from atomr_infer.serving.swapping.again import until_done
from atomr_infer.serving.swapping.probe import concrete_name, probe
from atomr_infer.serving.swapping.records import SwapStatus
from atomr_infer.serving.swapping.served import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from atomr_infer.serving.shared import Serving
    from atomr_infer.serving.swapping.counts import SwapCounts

    Check = Callable[[str], Awaitable[object]]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
"""How often what other nodes have counted is looked at."""


@attrs.frozen(kw_only=True)
class SwapOrder:
    """What is asked of a swap.

    Attributes:
        id: no other one has it.
        now: the deployment that serves.
        wanted: the one that comes, of the same name.
        plan: how carefully.
        check: called with a model's name under which only the new one answers; what
            it raises, or False, has the swap go back.
    """

    id: str
    now: Deployment
    wanted: Deployment
    plan: SwapPlan
    check: Check | None = None


class _GoesBackError(Exception):
    """What comes will not do; the text says why."""


class ModelHotSwapServer:
    """One swap.

    Args:
        serving: the tree of the node that leads it.
        order: what is asked.
        counts: what all nodes count of it.
        tell: says to all nodes how it stands.

    Attributes:
        status: how it stands.
        ended: set when nothing changes any more.
        has_begun: False: it was withdrawn before.
    """

    def __init__(
        self,
        serving: Serving,
        order: SwapOrder,
        *,
        counts: SwapCounts,
        tell: Callable[[ModelHotSwapServer], None],
    ) -> None:
        self.id = order.id
        self.status = SwapStatus(
            deployment=order.now.name, node=serving.node.name, id=order.id
        )
        self.ended = trio.Event()
        self.has_begun = True
        self._serving = serving
        self._now = order.now
        self._wanted = order.wanted
        self._plan = order.plan
        self._check = order.check
        self._counts = counts
        self._tell = tell
        self._copy = copy_of(order.wanted)
        # What was asked for last, and before that: the latter is there for a moment.
        self._ours = self._before = order.now
        self._is_beside = self._is_swapped = False
        self._yields_to = ""  # the node that leads in its place
        self._scope = trio.CancelScope()

    @property
    def asked(self) -> tuple[Deployment, ...]:
        """What it has had served under the name of late."""
        return (self._before, self._ours)

    def cancel(self) -> bool:
        """Have it go back; False: it has ended, or all but the last requests has."""
        if self._is_swapped or self.ended.is_set():
            return False
        self._scope.cancel()
        return True

    def claim(self) -> None:
        """Say to all nodes that it is about to begin."""
        self._tell(self)

    def withdraw(self) -> None:
        """Say to all nodes that it does not begin."""
        self.has_begun = False
        self._enter(Phase.ROLLED_BACK, reason="it has not begun")
        self.ended.set()

    def give_way(self, node: str) -> None:
        """Have it end where it is: another node swaps the same, and leads.

        What it has had served is that one's affair, as both have the same names.
        """
        if self.cancel():
            self._yields_to = node

    async def run(self) -> None:
        """Swap, or go back; the status says which.

        Cancellation: leaves all as it is; the node ends.
        """
        try:
            reason = await self._why_not()
            if self._is_swapped:
                # Its requests are not dropped if somebody cancels it now.
                least_s = self._wanted.timeouts.total_s
                left = await self._end_copy(max(self._plan.drain_s, least_s))
                self._enter(Phase.SWAPPED, share=1.0, reason=left)
            elif self._yields_to:
                reason = f"{self._yields_to} swaps it, too, and leads"
                self._enter(Phase.ROLLED_BACK, share=0.0, reason=reason)
            else:
                await self._go_back(reason)
        except Exception as error:  # it must end, or none can follow
            log.exception("the swap of %s broke", self._now.name)
            phase = Phase.SWAPPED if self._is_swapped else Phase.ROLLED_BACK
            before = self.status.reason
            reason = f"{before}; then: {error!r}" if before else repr(error)
            self._enter(phase, reason=reason)
        finally:
            self.ended.set()
            self._counts.stop(self.id)

    async def _why_not(self) -> str:
        """Swap; return why it goes back where it does."""
        try:
            self._counts.begin(self.id, self._now.name)
            with self._scope:
                await self._swap()
        except _GoesBackError as back:
            return str(back)
        except AtomrError as error:
            return f"{type(error).__name__}: {error}"
        except Exception as error:
            log.exception("the swap of %s broke", self._now.name)
            return repr(error)
        return "it was cancelled"

    async def _swap(self) -> None:
        self._enter(Phase.LOADING)
        await self._serving.orders.deploy(self._copy)
        self._is_beside = True
        self._enter(Phase.VERIFYING)
        await self._verify()
        self._enter(Phase.SHIFTING)
        for share in self._plan.steps if self._now.serving.weight else ():
            await self._step(share)
        self._enter(Phase.PROMOTING)
        await self._promote()

    # --- its parts -------------------------------------------------------------------

    async def _verify(self) -> None:
        name = concrete_name(self._now)
        if self._plan.probe and name is None:
            log.warning("%s is not probed: it has patterns alone", self._copy.name)
        elif self._plan.probe:
            model = f"{self._copy.name}/{name}"
            await probe(self._serving, self._copy, self._plan, model=model)
        if self._check is None:
            return
        try:
            asked = f"{self._copy.name}/{name or self._now.serves[0]}"
            found = await self._check(asked)
        except Exception as error:  # a function of the operator's
            log.exception("the check of %s failed", self._copy.name)
            raise _GoesBackError(f"the check failed: {error!r}") from error
        if found is False:
            raise _GoesBackError("the check says no")

    async def _step(self, share: float) -> None:
        await self._weigh(share)
        began_at, before = trio.current_time(), self._counts.total(self.id)
        self._enter(Phase.SHIFTING, share=share, requests=0, failures=0)
        while True:
            news = self._counts.news
            lasted_s = trio.current_time() - began_at
            tally = self._counts.total(self.id).since(before)
            self._counted(tally)
            match turn(self._plan, tally, lasted_s):
                case Turn.GO_ON:
                    return
                case Turn.GO_BACK:
                    told = f"{tally.failures} of {tally.requests} requests failed"
                    raise _GoesBackError(told)
            longest_s = math.inf if self._serving.node.is_alone else _LOOK_EVERY_S
            wait = min(wait_s(self._plan, lasted_s) or math.inf, longest_s)
            with trio.move_on_after(wait):
                await news.wait()

    async def _weigh(self, share: float) -> None:
        """Give the copy a share of the requests, in one step."""
        whole = self._now.serving.weight
        old = _weighed(self._now, whole * (1 - share))
        await self._replace(old, self._copy_weighed(whole * share))

    async def _promote(self) -> None:
        """Have the deployment become the new one while its copy answers.

        What nobody asks is closed before the other one is opened in its place, so
        that there is room for it; it is the one that goes who says so.
        """
        for one in (self._now, self._wanted):
            serving = attrs.evolve(one.serving, swap=Swap.AFTER, weight=0.0)
            await self._replace(attrs.evolve(one, serving=serving))
        await self._replace(self._wanted, self._copy_weighed(0.0))
        self._is_swapped = True

    def _copy_weighed(self, weight: float) -> Deployment:
        grouped = attrs.evolve(
            self._copy, serves=self._now.serves, fallbacks=self._wanted.fallbacks
        )
        return _weighed(grouped, weight)

    async def _replace(self, wanted: Deployment, *others: Deployment) -> None:
        self._refuse_changed()
        self._before, self._ours = self._ours, wanted
        self._tell(self)  # who leads it on must know it for ours
        await self._serving.orders.replace(wanted, *others)
        self._before = wanted

    async def _go_back(self, reason: str) -> None:
        log.warning("the swap of %s goes back: %s", self._now.name, reason)
        self._enter(Phase.ROLLING_BACK, share=0.0, reason=reason)

        def say(error: Exception) -> None:
            self._enter(Phase.ROLLING_BACK, reason=f"{reason}; then: {error}")

        try:
            error = await until_done(self._restore, say)
        except _GoesBackError as changed:
            log.warning("%s is not as it was: %s", self._now.name, changed)
            say(changed)
        else:
            if error is not None:
                # Nobody else may have its requests: the old one's share may be none.
                left = f"{self._copy.name} is left" if self._is_beside else ""
                told = f"{reason}; then: {error}"
                reason = f"{told}; {left}" if left else told
                self._enter(Phase.ROLLED_BACK, reason=reason)
                return
            self._enter(Phase.ROLLING_BACK, reason=reason)
        # Or its name is somebody else's.
        left = await self._end_copy(self._plan.drain_s) if self._is_beside else ""
        reason = self.status.reason
        self._enter(Phase.ROLLED_BACK, reason=f"{reason}; {left}" if left else reason)

    async def _restore(self) -> None:
        self._refuse_changed()
        if served(self._serving, self._now.name) != self._now:
            await self._serving.orders.replace(self._now)

    async def _end_copy(self, drain_s: float) -> str:
        """End the copy; return what is told where it is left."""
        name = self._copy.name

        async def undeploy() -> None:
            await self._serving.orders.undeploy(name, drain_s=drain_s)

        error = await until_done(undeploy)
        return "" if error is None else f"{name} is left: {error}"

    def _refuse_changed(self) -> None:
        found = served(self._serving, self._now.name)
        if found not in (self._ours, self._before):
            raise _GoesBackError("somebody else has changed it meanwhile")

    # --- what is told -----------------------------------------------------------------

    def _enter(self, phase: Phase, **more: float | str) -> None:
        changed = phase is not self.status.phase or "share" in more
        entered: dict[str, Any] = {"phase": phase, **more}
        self.status = attrs.evolve(self.status, **entered)
        self._tell(self)
        if changed:
            log.info("swap of %s: %s", self._now.name, self.status.in_words)
            telemetry.emit(
                ("atomr_infer", "hot_swap", "phase"),
                {"share": self.status.share},
                {"deployment": self._now.name, "phase": phase.value},
            )

    def _counted(self, tally: Tally) -> None:
        self.status = attrs.evolve(
            self.status, requests=tally.requests, failures=tally.failures
        )


def copy_of(wanted: Deployment) -> Deployment:
    """Return a deployment as it runs beside the one of its name.

    Its model's name is taken off where an upstream is asked for the client's.  It has
    no fallbacks: what is asked of it first is to be answered by itself.
    """
    name = next_name(wanted.name)
    return attrs.evolve(wanted, name=name, serves=(f"{name}/*",), fallbacks=())


def _weighed(deployment: Deployment, weight: float) -> Deployment:
    serving = attrs.evolve(deployment.serving, weight=weight)
    return attrs.evolve(deployment, serving=serving)
