"""A gate that remembers what passed it, and how each hold ended."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from atomr_infer.errors import InferenceError
from atomr_infer.policy.limits.demand import Demand, Used
from atomr_infer.serving.limits.gates import Outlook


@attrs.define(eq=False)
class Tally:
    """Counts what is held; a hold that ends twice is a bug, and raises.

    Attributes:
        demands: of those who entered, in order.
        ends: how their holds ended, in order; None: cancelled.
        held: how many hold on.
        refusal: makes what it is refused with; None: it lets everybody in.
        open: None: nobody waits; else they wait for it.
        is_timed: whether it comes last.
        waited: how many have waited.
    """

    demands: list[Demand] = attrs.field(factory=list)
    ends: list[Used | None] = attrs.field(factory=list)
    held: int = 0
    refusal: Callable[[], InferenceError] | None = None
    open: trio.Event | None = None
    is_timed: bool = False
    waited: int = 0

    def outlook(self, demand: Demand) -> Outlook:
        """Say nothing of it."""
        return Outlook.OPEN

    def try_enter(self, demand: Demand) -> TallyHold | None:
        """Let it in, unless it has to wait."""
        if self.refusal is not None:
            raise self.refusal()
        if self.open is not None and not self.open.is_set():
            return None
        self.demands.append(demand)
        self.held += 1
        return TallyHold(self)

    async def enter(self, demand: Demand, *, deadline_s: float) -> TallyHold:
        """Wait until it is open."""
        assert self.open is not None, "nobody waits for what is not closed"
        self.waited += 1
        with trio.move_on_at(deadline_s):
            await self.open.wait()
        hold = self.try_enter(demand)
        if hold is None:
            raise InferenceError("too late")
        return hold


class TallyHold:
    """One of them."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._over = False

    def settle(self, used: Used) -> None:
        """Take what was used."""
        self._end(used)

    def cancel(self) -> None:
        """Take it back."""
        self._end(None)

    def _end(self, used: Used | None) -> None:
        assert not self._over, "a hold ends once"
        self._over = True
        self._tally.held -= 1
        self._tally.ends.append(used)
