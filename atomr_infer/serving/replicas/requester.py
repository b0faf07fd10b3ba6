"""A request as its replica's engine core knows it, and what it may be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.otp import From
from atomr.process import TimerRef, cancel_timer
from atomr.refs import Ref
from atomr_infer.errors import NotReadyError, OverloadedError
from atomr_infer.serving.replicas.engine_life import EngineLife

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.tenants.admission import AdmissionQueue
    from atomr_infer.serving.replicas.replica import Lease


@attrs.define(eq=False)
class Requester:
    """A request that holds a permit or waits for one.

    Attributes:
        ref: what its permit is known by.
        down: watches its process.
        is_probe: whether it only looks whether the engine answers.
        generation: of the limit, when it got its permit.
        waiting: whom to answer, while it waits.
        timer: ends its wait.
        life: that of the engine that its permit is for.
    """

    ref: Ref
    down: Ref
    is_probe: bool = False
    generation: int = 0
    waiting: From | None = None
    timer: TimerRef | None = None
    life: EngineLife | None = None

    def answer(self, answer: Lease | InferenceError) -> None:
        """End its wait."""
        assert self.waiting is not None, "only who waits is answered"
        self.waiting.reply(answer)
        self.waiting = None
        self.stop_timer()

    def enter(self, life: EngineLife) -> None:
        """Take a permit for an engine."""
        self.life = life
        life.enter(is_probe=self.is_probe)

    def leave(self) -> None:
        """Give back the permit, if it has one."""
        if self.life is not None:
            self.life.leave(is_probe=self.is_probe)

    def stop_timer(self) -> None:
        """Let go of the timer: it may be set for many minutes."""
        if self.timer is not None:
            cancel_timer(self.timer)
            self.timer = None


def overloaded(
    deployment: Deployment, queue: AdmissionQueue[Ref], code: str = "queue_full"
) -> OverloadedError:
    """Return what a request is told for which there is no place."""
    return OverloadedError(
        f"{deployment.name} is full: {queue.running} requests run "
        f"and {queue.waiting} of {deployment.serving.max_queue} wait",
        code=code,
    )


def waited_too_long(deployment: Deployment, waited_s: float) -> OverloadedError:
    """Return what a request is told that has got no place in time."""
    return OverloadedError(
        f"{deployment.name} has no free place: waited {waited_s:g} s",
        code="queue_timeout",
    )


def not_available(
    deployment: Deployment, error: InferenceError | None
) -> NotReadyError:
    """Return what a request is told whose engine cannot be started."""
    return NotReadyError(f"{deployment.name} is not available: {error}")


def refused_asleep(deployment: Deployment) -> NotReadyError:
    """Return what a request is told that may not wait for its engine."""
    return NotReadyError(f"{deployment.name} was asleep; its engine is being started")
