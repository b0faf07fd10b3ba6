"""A node's share of one deployment: started, changed, drained, and told of.

One task for each deployment brings what runs here to what shall run here, and goes
on looking at it.  What it is about to do can change at any time; starting and
changing is given up then, draining is not: requests that run may end.

A share that fails says so, and lets go.  Its claim keeps the plan from trying this
node again at once: that comes later and later, or with the next revision.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import ConfigError, InferenceError, UpstreamError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.placement import Check, Placement
from atomr_infer.policy.lifecycle.deployment_state import Event, State, step
from atomr_infer.policy.lifecycle.placement import Gpus
from atomr_infer.remote.http.reaching import reach
from atomr_infer.serving.deployments.deploying import keeps_refused
from atomr_infer.serving.placing.records import Claim
from atomr_infer.serving.replicas.key_check import waits_for_key
from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase
from atomr_infer.serving.requests.elsewhere import forget, know

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

_TAKING = frozenset(phase.value for phase in TAKES_REQUESTS)
_LOOK_EVERY_S = 0.25
_AGAIN_S = 5.0
_MAX_AGAIN_S = 300.0
_REACH_S = 5.0


@attrs.frozen
class Aim:
    """What a share shall be.

    Attributes:
        deployment: as the catalogue has it; None: it is gone from there.
        gpus: the GPUs of each replica that shall run here.
        digest: of the entry.
    """

    deployment: Deployment | None
    gpus: tuple[Gpus, ...] = ()
    digest: str = ""

    @property
    def local(self) -> Deployment | None:
        """What this node's serving tree is given; None: nothing runs here."""
        if self.deployment is None or not self.gpus:
            return None
        serving = attrs.evolve(self.deployment.serving, replicas=len(self.gpus))
        # Where others run is none of an engine's affair: it goes on when it changes.
        asked = self.deployment.placement
        placement = Placement(check=asked.check, gpus=asked.gpus)
        return attrs.evolve(self.deployment, serving=serving, placement=placement)


class Share:
    """One deployment on this node.

    Attributes:
        name: the deployment's.
        aim: what it shall be; None: nobody has said it yet.
        state: what it is.
        is_over: whether nothing of it is left, and nothing shall be.
    """

    def __init__(
        self,
        name: str,
        serving: Serving,
        tell: Callable[[Claim | None], None],
        expected: Callable[[], Collection[str]],
    ) -> None:
        """Make one; its task is :meth:`work`.

        Args:
            name: the deployment's.
            serving: the node's serving tree.
            tell: says to all nodes what the share is; None: there is none.
            expected: names of deployments that are there, or come.
        """
        self.name = name
        self.aim: Aim | None = None
        self.state = State.STOPPED
        self.is_over = False
        self._serving = serving
        self._tell = tell
        self._expected = expected
        self._told: Claim | None = None
        self._reason = ""
        self._of = Aim(None)
        self._changed = trio.Event()
        self._scope: trio.CancelScope | None = None
        self._again_s = _AGAIN_S
        self._again_at: float | None = None
        self._check_at = 0.0
        self._unreached = ""

    @property
    def gpus(self) -> tuple[Gpus, ...]:
        """The GPUs of each replica that runs or shall run here."""
        if self.aim is not None:
            return self.aim.gpus
        runs = self._runs
        return () if runs is None else ((),) * runs.serving.replicas

    def take(self, aim: Aim) -> None:
        """Take what the share shall be from now on."""
        if aim == self.aim:
            return
        if self.aim is None or aim.digest != self.aim.digest:
            self._again_s, self._again_at = _AGAIN_S, None
            self._check_at, self._unreached = 0.0, ""
        self.aim = aim
        self._changed.set()
        if self._scope is not None:
            self._scope.cancel()

    def hear(self, claim: Claim | None) -> None:
        """Take what all nodes hold to be this share; it is said again if need be."""
        # Before it has an aim, what is said is the last placer's, and still true.
        if self.aim is not None and claim != self._told:
            self._tell(self._told)

    async def work(self) -> None:
        """Follow the aim until the deployment is gone, and nothing is left of it.

        Cancellation: what runs goes on running.
        """
        while not self.is_over:
            if self.aim is None:
                await self._changed.wait()
                continue
            self._changed = trio.Event()
            aim = self.aim
            try:
                await self._carry_out(aim)
                await self._watch(aim)
            except (ConfigError, InferenceError) as error:
                await self._give_up(aim, error)

    # --- towards the aim ----------------------------------------------------------

    async def _carry_out(self, aim: Aim) -> None:
        wanted = aim.local
        runs = self._runs
        if aim.gpus:  # or those that end keep what they have
            self._serving.gpu_seats.give(self.name, aim.gpus)
        if aim.deployment is not None:
            # Its name is served here from now on, whoever has the replicas.
            know(self._serving, aim.deployment, self._expected())
        if wanted is None:
            await self._end(aim)
        elif runs is None:
            await self._start(aim, wanted)
        elif runs != wanted:
            await self._change(aim, wanted)
        elif self.state is State.STOPPED:
            # It ran before we did: the placer was restarted.
            self._enter(aim, Event.PLACED, Event.STARTED)

    @property
    def _runs(self) -> Deployment | None:
        if self._serving.is_elsewhere(self.name):
            return None
        return self._serving.deployments.get(self.name)

    async def _start(self, aim: Aim, wanted: Deployment) -> None:
        if self.state is not State.PLACING:
            self._enter(aim, Event.PLACED)
        with trio.CancelScope() as self._scope:
            self._enter(aim, Event.STARTED)
            await self._serving.deploy(
                wanted, expected=self._expected(), keeps=keeps_refused
            )
        if self._scope.cancelled_caught:
            self._enter(aim, Event.UNPLACED, Event.ENDED)
        self._scope = None

    async def _change(self, aim: Aim, wanted: Deployment) -> None:
        if self.state in (State.STOPPED, State.FAILED):
            self._enter(aim, Event.PLACED, Event.STARTED)
        with trio.CancelScope() as self._scope:
            await self._serving.replace(wanted, expected=self._expected())
            self._of = aim
        self._scope = None

    async def _end(self, aim: Aim) -> None:
        runs = self._runs
        is_refused = self.state is State.FAILED and aim.deployment is not None
        if is_refused and (self._serves_on or self._waits_for_key):
            # What runs is kept: an earlier revision, or one that tries its key on.
            await self._rest(aim)
        elif runs is not None:
            if self.state in (State.STOPPED, State.FAILED):
                self._enter(aim, Event.PLACED, Event.STARTED)
            self._enter(self._of, Event.UNPLACED)
            # Each of its requests has a bound of its own, which is this one.
            if aim.deployment is None:
                forget(self._serving, self.name)
            await self._serving.undeploy(self.name, drain_s=runs.timeouts.total_s)
            self._serving.gpu_seats.give(self.name, ())
            self._enter(aim, Event.ENDED)
        elif self.state is State.FAILED:
            await self._rest(aim)
        if aim.deployment is None and self.aim is aim:
            forget(self._serving, self.name)
            self.is_over = True

    async def _rest(self, aim: Aim) -> None:
        """Say why it failed until it may be tried again."""
        if aim.deployment is not None and self._again_at is not None:
            with trio.move_on_at(self._again_at):
                await self._changed_or_taken()
                if self._changed.is_set():
                    return
        self._again_at = None
        self._enter(aim, Event.UNPLACED)

    async def _changed_or_taken(self) -> None:
        """Wait until it shall be another one, or its provider takes its key."""
        tries_on = self._waits_for_key
        while not self._changed.is_set() and self._waits_for_key is tries_on:
            with trio.move_on_after(_LOOK_EVERY_S if tries_on else inf):
                await self._changed.wait()

    # --- what becomes of it ---------------------------------------------------------

    async def _watch(self, aim: Aim) -> None:
        """Tell of the share until it shall be another one.

        Raises:
            InferenceError: it has failed.
        """
        while not self._changed.is_set() and not self.is_over:
            if aim.local is not None:
                await self._check(aim)
                self._look(aim)
            with trio.move_on_after(_LOOK_EVERY_S if aim.local else inf):
                await self._changed.wait()

    async def _check(self, aim: Aim) -> None:
        """Look whether its provider can be reached, once, or until it can."""
        if aim.deployment is None or trio.current_time() < self._check_at:
            return
        if self._serving.readiness().phases.get(self.name) != Phase.SERVING.value:
            return
        self._check_at = inf
        endpoint = self._serving.blueprint(self.name).source.endpoint
        if endpoint is None or aim.deployment.placement.check is Check.NONE:
            return
        with trio.CancelScope() as self._scope:
            self._unreached = await _unreached(endpoint)
        self._scope = None
        if self._unreached:
            log.warning("%s: %s", self.name, self._unreached)
            self._check_at = trio.current_time() + self._again_s
            self._again_s = min(2 * self._again_s, _MAX_AGAIN_S)

    def _look(self, aim: Aim) -> None:
        phase = self._serving.readiness().phases.get(self.name)
        if phase == Phase.FAILED.value:
            self._serving.askable(self.name)  # raises why
            if self._waits_for_key:
                raise self._serving.routing(self.name).unavailable()
        if phase in _TAKING:
            if not self._unreached:
                self._again_s = _AGAIN_S
            if self.state is State.LOADING:
                self._enter(aim, Event.READY)
        elif self.state is State.SERVING:
            self._enter(aim, Event.WAITS)
        self._publish(aim)

    async def _give_up(self, aim: Aim, error: ConfigError | InferenceError) -> None:
        log.warning("%s cannot run here: %s", self.name, error)
        self._scope = None
        self._reason = error.message
        self._again_at = trio.current_time() + self._again_s
        self._again_s = min(2 * self._again_s, _MAX_AGAIN_S)
        # What it should become cannot be; what it was is better than nothing.
        kept = self._serves_on or self._waits_for_key
        if self._runs is not None and not kept:
            await self._serving.undeploy(self.name)
        if self.state in (State.PLACING, State.LOADING, State.SERVING):
            self._enter(aim, Event.BROKE)
        with trio.move_on_at(self._again_at):
            await self._changed_or_taken()

    @property
    def _waits_for_key(self) -> bool:
        return waits_for_key(self._serving, self.name)

    @property
    def _serves_on(self) -> bool:
        """Whether what runs of it serves."""
        phases = self._serving.readiness().phases
        return phases.get(self.name) in _TAKING

    def _enter(self, aim: Aim, *events: Event) -> None:
        for event in events:
            self.state = step(self.state, event)
        self._publish(aim)

    def _publish(self, aim: Aim) -> None:
        claim = self._claim(aim)
        if claim != self._told:
            self._told = claim
            self._tell(claim)

    def _claim(self, aim: Aim) -> Claim | None:
        if self.state in (State.STOPPED, State.PENDING):
            return None
        self._of = aim
        failed = self.state is State.FAILED
        replicas = self._serving.replicas(self.name)
        serving = [r for r in replicas if r.phase in TAKES_REQUESTS]
        return Claim(
            state=self.state,
            gpus=() if failed else aim.gpus,
            serving=len(serving),
            digest=aim.digest,
            reason=self._reason if failed else self._unreached,
        )


async def _unreached(endpoint: str) -> str:
    """Return why a provider cannot be reached; "": it can."""
    try:
        await reach(endpoint, within_s=_REACH_S)
    except UpstreamError as error:
        return error.message
    except ValueError as error:
        return f"its endpoint cannot be tried: {error}"
    return ""
