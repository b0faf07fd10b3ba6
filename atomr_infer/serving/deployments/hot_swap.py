"""A deployment is taken over by another one step by step, and not at all if it fails.

The one that comes is deployed beside the one that serves, under a name of its own
(``NAME:next``), and asked something.  Then both are a group: the one that comes has a
share of the requests, in the steps of a plan, and what it fails to answer is answered
by the other one, as in every group.  When it has had all of them for a step, the
deployment becomes the new one (while its copy answers), and the copy goes with its
last request::

    NAME        old ─────────── old ─────────── replaced ──── new ──────────
    NAME:next   loading, asked ─ 5 %, 25 %, 50 %, 100 % ───── none ─ gone

Too many failures, an answer that does not come, or whoever cancels it: all is as it
was.  No request is dropped on either way.

Each swap is a process.  It ends with its node, whose deployments end then too.
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr import telemetry
from atomr.core.child_spec import ChildSpec, Restart
from atomr.errors import AtomrError, CallError, StartError
from atomr.otp import start_child
from atomr.process import PlainProcess
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.policy.hot_swap import (
    Phase,
    SwapPlan,
    Tally,
    Turn,
    turn,
    wait_s,
)
from atomr_infer.serving.names import HOT_SWAPS
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.sinks import CollectingSink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.requests.served import Tried
    from atomr_infer.serving.shared import Serving

    Check = Callable[[str], Awaitable[object]]

log = logging.getLogger(__name__)

_PROBE_TOKENS = 16


@attrs.frozen(kw_only=True)
class SwapStatus:
    """How a swap stands.

    Attributes:
        deployment: which one is taken over.
        phase: how far it is.
        share: of the requests, that the new one has.
        requests: that it was asked in this step.
        failures: those of them that failed by its fault.
        reason: why it goes back, or went; "": it does not.
    """

    deployment: str
    phase: Phase = Phase.LOADING
    share: float = 0.0
    requests: int = 0
    failures: int = 0
    reason: str = ""


class _GoesBackError(Exception):
    """What comes will not do; the text says why."""


class HotSwaps:
    """The swaps of a node, and how each stands or ended."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._swaps: dict[str, ModelHotSwapServer] = {}

    def statuses(self) -> tuple[SwapStatus, ...]:
        """Return the last swap of each deployment, by name."""
        return tuple(self._swaps[name].status for name in sorted(self._swaps))

    async def swap(
        self,
        deployment: Deployment,
        plan: SwapPlan | None = None,
        *,
        check: Check | None = None,
    ) -> SwapStatus:
        """Have another deployment take over from the one of its name, step by step.

        Args:
            deployment: the other one.
            plan: how carefully; None: as :class:`SwapPlan` says.
            check: called with a model's name under which only the new one answers;
                what it raises, or False, has all go back.

        Returns:
            How it ended: swapped, or rolled back and why.

        Raises:
            ConfigError: there is none of its name, or this node has others.
            NotReadyError: it is being swapped.

        Cancellation: has all go back, but where only the last requests are waited
            for; that is waited for.
        """
        plan = SwapPlan() if plan is None else plan
        swap = await self.begin(deployment, plan, check)
        try:
            await swap.ended.wait()
        finally:
            swap.cancel()
            with trio.CancelScope(shield=True):
                await swap.ended.wait()
        return swap.status

    async def begin(
        self, wanted: Deployment, plan: SwapPlan, check: Check | None
    ) -> ModelHotSwapServer:
        """Begin a swap.

        Raises:
            ConfigError: there is no such deployment, or this node has others.
            NotReadyError: it is being swapped.
        """
        name = wanted.name
        now = self._serving.deployments.get(name)
        if now is None:
            raise ConfigError(f"there is no deployment {name!r}")
        if not self._serving.node.is_alone:
            problem = "a swap counts the requests of one node, and this one has others"
            raise ConfigError(f"{problem}; replace {name!r} instead")
        last = self._swaps.get(name)
        if last is not None and not last.ended.is_set():
            raise NotReadyError(f"{name} is being swapped; ask again when it is done")
        swap = ModelHotSwapServer(self._serving, now, wanted, plan=plan, check=check)
        self._swaps[name] = swap
        start = partial(PlainProcess, swap.run)
        spec = ChildSpec(id=name, start=start, restart=Restart.TEMPORARY)
        try:
            # Shielded: it would run, and nobody would know.
            with trio.CancelScope(shield=True):
                await start_child(HOT_SWAPS, spec)
        except (CallError, StartError) as error:
            swap.ended.set()
            raise NotReadyError("the server is shutting down") from error
        return swap

    def cancel(self, name: str) -> bool:
        """Have a swap go back; False: there is none that still can."""
        swap = self._swaps.get(name)
        return swap is not None and swap.cancel()


class ModelHotSwapServer:
    """One swap.

    Args:
        serving: the tree.
        now: the deployment that serves.
        wanted: the one that comes, of the same name.
        plan: how carefully.
        check: called with a model's name under which only the new one answers; what
            it raises, or False, has the swap go back.

    Attributes:
        status: how it stands.
        ended: set when nothing changes any more.
    """

    def __init__(
        self,
        serving: Serving,
        now: Deployment,
        wanted: Deployment,
        *,
        plan: SwapPlan,
        check: Check | None = None,
    ) -> None:
        self.status = SwapStatus(deployment=now.name)
        self.ended = trio.Event()
        self._serving = serving
        self._now = now
        self._wanted = wanted
        self._plan = plan
        self._check = check
        self._copy = _copy_of(wanted)
        self._ours = now
        self._is_beside = self._is_swapped = False
        self._scope = trio.CancelScope()
        self._tally = Tally()
        self._counted = trio.Event()

    def cancel(self) -> bool:
        """Have it go back; False: it has ended, or all but the last requests has."""
        if self._is_swapped or self.ended.is_set():
            return False
        self._scope.cancel()
        return True

    async def run(self) -> None:
        """Swap, or go back; the status says which.

        Cancellation: leaves all as it is; the node ends.
        """
        reason = "it was cancelled"
        try:
            try:
                with self._scope:
                    await self._swap()
            except _GoesBackError as back:
                reason = str(back)
            except AtomrError as error:
                reason = f"{type(error).__name__}: {error}"
            if self._is_swapped:
                # Its requests are not dropped if somebody cancels it now.
                await self._end_copy()
                self._enter(Phase.SWAPPED, share=1.0)
            else:
                await self._go_back(reason)
        finally:
            self.ended.set()

    async def _swap(self) -> None:
        await self._serving.deploy(self._copy)
        self._is_beside = True
        self._enter(Phase.VERIFYING)
        await self._verify()
        self._enter(Phase.SHIFTING)
        telemetry.attach(self._handler, ("atomr_infer", "request", "stop"), self._count)
        try:
            for share in self._plan.steps if self._now.serving.weight else ():
                await self._step(share)
        finally:
            telemetry.detach(self._handler)
        self._enter(Phase.PROMOTING)
        await self._promote()

    @property
    def _handler(self) -> str:
        return f"hot swap of {self._now.name} {id(self)}"

    # --- its parts -------------------------------------------------------------------

    async def _verify(self) -> None:
        model = f"{self._copy.name}/{self._now.serves[0]}"
        plan = self._plan
        if plan.probe is not None:
            batch = ExecuteBatch(
                request_id=f"probe of {self._copy.name}",
                model=model,
                messages=(Message(Role.USER, plan.probe),),
                sampling=Sampling(max_tokens=_PROBE_TOKENS),
                timeout_s=plan.probe_timeout_s,
            )
            sink = CollectingSink()
            await run_request(self._serving, batch, sink)
        if self._check is None:
            return
        try:
            found = await self._check(model)
        except Exception as error:  # a function of the operator's
            log.exception("the check of %s failed", self._copy.name)
            raise _GoesBackError(f"the check failed: {error!r}") from error
        if found is False:
            raise _GoesBackError("the check says no")

    async def _step(self, share: float) -> None:
        await self._weigh(share)
        self._tally = Tally()
        self._enter(Phase.SHIFTING, share=share, requests=0, failures=0)
        began_at = trio.current_time()
        while True:
            lasted_s = trio.current_time() - began_at
            match turn(self._plan, self._tally, lasted_s):
                case Turn.GO_ON:
                    return
                case Turn.GO_BACK:
                    failures, requests = self._tally.failures, self._tally.requests
                    raise _GoesBackError(f"{failures} of {requests} requests failed")
            self._counted = trio.Event()
            with trio.move_on_after(wait_s(self._plan, lasted_s) or math.inf):
                await self._counted.wait()

    async def _weigh(self, share: float) -> None:
        """Give the copy a share of the requests, in one step."""
        whole = self._now.serving.weight
        self._refuse_changed()
        old = _weighed(self._now, whole * (1 - share))
        new = _weighed(attrs.evolve(self._copy, serves=self._now.serves), whole * share)
        await self._serving.replace(old, new)
        self._ours = old

    async def _promote(self) -> None:
        """Have the deployment become the new one while its copy answers."""
        self._refuse_changed()
        # Nobody asks it: what is opened need not be beside what is closed.
        serving = attrs.evolve(
            self._wanted.serving, swap=self._now.serving.swap, weight=0.0
        )
        opened = attrs.evolve(self._wanted, serving=serving)
        await self._serving.replace(opened)
        self._ours = opened
        resting = _weighed(attrs.evolve(self._copy, serves=self._now.serves), 0.0)
        await self._serving.replace(self._wanted, resting)
        self._ours = self._wanted
        self._is_swapped = True

    async def _go_back(self, reason: str) -> None:
        log.warning("the swap of %s goes back: %s", self._now.name, reason)
        self._enter(Phase.ROLLING_BACK, share=0.0, reason=reason)
        try:
            self._refuse_changed()
            if self._ours != self._now:
                await self._serving.replace(self._now)
        except (AtomrError, _GoesBackError) as error:
            log.exception("%s is not as it was", self._now.name)
            self._enter(Phase.ROLLING_BACK, reason=f"{reason}; then: {error}")
        if self._is_beside:  # or its name is somebody else's
            await self._end_copy()
        self._enter(Phase.ROLLED_BACK)

    async def _end_copy(self) -> None:
        await self._serving.undeploy(self._copy.name, drain_s=self._plan.drain_s)

    def _refuse_changed(self) -> None:
        if self._serving.deployments.get(self._now.name) != self._ours:
            raise _GoesBackError("somebody else has changed it meanwhile")

    # --- what is told -----------------------------------------------------------------

    def _enter(self, phase: Phase, **more: float | str) -> None:
        changed = phase is not self.status.phase or "share" in more
        entered: dict[str, Any] = {"phase": phase, **more}
        self.status = attrs.evolve(self.status, **entered)
        if changed:
            log.info("swap of %s: %s", self._now.name, self.status)
            telemetry.emit(
                ("atomr_infer", "hot_swap", "phase"),
                {"share": self.status.share},
                {"deployment": self._now.name, "phase": phase.value},
            )

    def _count(
        self, _: object, __: Mapping[str, float], about: Mapping[str, object]
    ) -> None:
        tried: tuple[Tried, ...] = about["tried"]  # type: ignore[assignment] # the event's own
        own = [each.error for each in tried if each.deployment == self._copy.name]
        if own:
            self._tally = self._tally.plus(own)
            self.status = attrs.evolve(
                self.status,
                requests=self._tally.requests,
                failures=self._tally.failures,
            )
            self._counted.set()


def _copy_of(wanted: Deployment) -> Deployment:
    """Return a deployment as it runs beside the one of its name.

    Its model's name is taken off where an upstream is asked for the client's.
    """
    name = f"{wanted.name}:next"
    return attrs.evolve(wanted, name=name, serves=(f"{name}/*",))


def _weighed(deployment: Deployment, weight: float) -> Deployment:
    serving = attrs.evolve(deployment.serving, weight=weight)
    return attrs.evolve(deployment, serving=serving)
