"""Engines that are stopped while nobody asks, and started by the next request.

The engine core's part: when an engine has been idle for long enough, who wakes it,
and how soon it is tried again where it could not be started.  The engine's context
does it, and goes on to be the process that it was.

A look every now and then tells whether an engine was used since the last one: it
costs a request one addition.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from atomr.process import TimerRef, cancel_timer, self_pid, send_after
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.replica import Phase, ReplicaState
from atomr_infer.serving.replicas.requester import refused_asleep

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.engine_life import EngineLife
    from atomr_infer.serving.replicas.permits import Permits

log = logging.getLogger(__name__)

_LOOKS = 10
"""Looks within the time after which an engine is stopped: it may be a tenth late."""

_AGAIN_S = 1.0
_MAX_AGAIN_S = 60.0


class Core(Protocol):
    """The engine core, as far as it is needed here."""

    state: ReplicaState

    @property
    def permits(self) -> Permits:
        """Who runs, and on what."""
        ...

    @property
    def deployment(self) -> Deployment:
        """What it is a replica of, as of now."""
        ...

    def let_go(self) -> None:
        """Give no permit for the engine that is there."""
        ...

    def enter(self, phase: Phase, error: InferenceError | None) -> None:
        """Be in a phase, and say so."""
        ...

    def answer_waiting(self, error: InferenceError) -> None:
        """Tell those that wait that they need not."""
        ...

    def label(self) -> str:
        """Return what it is called in the log."""
        ...


class Idling:
    """When an engine core's engine rests.

    Attributes:
        waking: whether it is being started after a rest.
    """

    def __init__(self, core: Core) -> None:
        self.waking = False
        self._core = core
        self._dozing: EngineLife | None = None
        self._timer: TimerRef | None = None
        self._uses = -1
        self._since = 0.0
        self._error: InferenceError | None = None
        self._again_s = _AGAIN_S
        self._again_at = -inf

    def begin(self, life: EngineLife) -> None:
        """Take the news that an engine runs."""
        self._dozing, self.waking = None, False
        self._uses, self._error, self._again_s = -1, None, _AGAIN_S
        self.look(life)

    def look(self, life: EngineLife) -> None:
        """Stop an engine that nobody asks, or look again later.

        Args:
            life: the engine's; another one's look is over.
        """
        if self._timer is not None:
            cancel_timer(self._timer)  # one chain of looks, whoever asks for one
        core = self._core
        engine, idle_stop_s = core.permits.engine, core.deployment.serving.idle_stop_s
        if engine is None or engine.life is not life or idle_stop_s is None:
            return
        if self._is_idle(life, idle_stop_s):
            log.info("%s: idle for %g s; its engine stops", core.label(), idle_stop_s)
            # In this order: nobody finds a permit for it on the way.
            core.let_go()
            self._dozing = life
            life.doze()
            core.enter(Phase.ASLEEP, None)
        else:
            look = messages.LookIdle(life)
            self._timer = send_after(idle_stop_s / _LOOKS, self_pid(), look)

    def _is_idle(self, life: EngineLife, idle_stop_s: float) -> bool:
        now = trio.current_time()
        used = life.users > life.probes or life.uses != self._uses
        if used or self._core.state.arriving:
            self._uses, self._since = life.uses, now
        return now - self._since >= idle_stop_s

    def wake(self, asked: messages.Admit) -> InferenceError | None:
        """Have the engine started, where it rests and is not being started.

        Returns:
            Why it could not be started a moment ago: it is not tried for each
            request.  A probe that was on its way when the engine stopped wakes
            nobody.
        """
        if self._dozing is not None and asked.is_probe:
            return refused_asleep(self._core.deployment)
        if self._dozing is None or self.waking:
            return None
        if self._error is not None and trio.current_time() < self._again_at:
            return fresh(self._error)
        log.info("%s: it is asked; its engine starts", self._core.label())
        self.waking = True
        self._dozing.wake()
        self._core.enter(Phase.WAKING, None)
        return None

    def stays_asleep(self, error: InferenceError) -> None:
        """Take the news that it could not be started, and tell those who wait."""
        self.waking, self._error = False, error
        self._again_at = trio.current_time() + self._again_s
        self._again_s = min(2 * self._again_s, _MAX_AGAIN_S)
        self._core.enter(Phase.ASLEEP, error)
        self._core.answer_waiting(error)

    def end(self) -> None:
        """Let a resting engine's context end: another one takes its place."""
        if self._dozing is not None:
            self._dozing.retire()
        self._dozing, self.waking = None, False
