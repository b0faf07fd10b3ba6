"""How often vLLM's core has made something, from what each of its steps tells.

A step that reads a piece of a prompt has no output yet, but a request that runs.  It
need not take more of the cache: a model of states, or one with a window, does not.  A
step that has neither had nothing to do, or no room for it: a core that turns round
and round so is no better than one that stands still.

Pure.
"""

from __future__ import annotations

from typing import Protocol


class SchedulerStats(Protocol):
    """What is used of vLLM's."""

    @property
    def num_running_reqs(self) -> int:
        """Requests that have a place in the cache, and are not done."""
        ...


class Steps:
    """A count of steps, of one engine.

    Attributes:
        made: steps that made something.
    """

    def __init__(self) -> None:
        self.made = 0

    def take(self, stats: SchedulerStats | None, *, has_outputs: bool) -> None:
        """Take what a step tells; from one thread, any.

        Args:
            stats: how the scheduler stands; None: it does not say.
            has_outputs: whether it gave anybody a token or a vector.
        """
        if has_outputs or (stats is not None and stats.num_running_reqs > 0):
            self.made += 1
