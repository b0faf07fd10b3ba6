"""A request as its replica's engine core knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr.otp import From
from atomr.process import TimerRef, cancel_timer
from atomr.refs import Ref
from atomr_infer.serving.engine_life import EngineLife

if TYPE_CHECKING:
    from atomr_infer.errors import InferenceError
    from atomr_infer.serving.replica import Lease


@attrs.define(eq=False)
class Requester:
    """A request that holds a permit or waits for one.

    Attributes:
        ref: what its permit is known by.
        down: watches its process.
        generation: of the limit, when it got its permit.
        waiting: whom to answer, while it waits.
        timer: ends its wait.
        life: that of the engine that its permit is for.
    """

    ref: Ref
    down: Ref
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

    def stop_timer(self) -> None:
        """Let go of the timer: it may be set for many minutes."""
        if self.timer is not None:
            cancel_timer(self.timer)
            self.timer = None
