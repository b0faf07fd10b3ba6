"""How often vLLM's core has made something, from what each of its steps tells.

A step that reads a piece of a prompt has no output yet; it takes blocks of the cache.
One that has neither had nothing to do, or no room for it: a core that turns round and
round so is no better than one that stands still.

Pure.
"""

from __future__ import annotations

from typing import Protocol


class SchedulerStats(Protocol):
    """What is used of vLLM's."""

    @property
    def kv_cache_usage(self) -> float:
        """The share of the cache that is taken."""
        ...


class Steps:
    """A count of steps, of one engine.

    Attributes:
        made: steps that made something.
    """

    def __init__(self) -> None:
        self.made = 0
        self._used = 0.0

    def take(self, stats: SchedulerStats | None, *, has_outputs: bool) -> None:
        """Take what a step tells; from one thread, any.

        Args:
            stats: how the scheduler stands; None: it does not say.
            has_outputs: whether it gave anybody a token or a vector.
        """
        used = self._used if stats is None else stats.kv_cache_usage
        if has_outputs or used != self._used:
            self.made += 1
        self._used = used
