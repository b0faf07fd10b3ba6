"""How often vLLM's core has made something, from what each of its steps tells.

A step that reads a piece of a prompt has no output yet, and need not take more of the
cache: a model of states, or one with a window, does not.  But it runs tokens through
the model, as each step does that makes something.  One that runs none had nothing to
do, or no room for it: a core that turns round and round so is no better than one that
stands still, however many requests it counts as running.

Pure.
"""

from __future__ import annotations

from typing import Protocol


class IterationDetails(Protocol):
    """What is used of vLLM's: tokens that went through the model in one step."""

    @property
    def num_ctx_tokens(self) -> int:
        """Those of prompts."""
        ...

    @property
    def num_generation_tokens(self) -> int:
        """Those of answers."""
        ...


class SchedulerStats(Protocol):
    """What is used of vLLM's."""

    @property
    def iteration_details(self) -> IterationDetails | None:
        """What went through the model; None: nothing did."""
        ...


class Steps:
    """A count of steps, of one engine.

    Attributes:
        made: steps that made something.
    """

    def __init__(self) -> None:
        self.made = 0

    def take(self, stats: SchedulerStats | None) -> None:
        """Take what a step tells; from one thread, any.

        Args:
            stats: what the scheduler did; None: it does not say.
        """
        details = None if stats is None else stats.iteration_details
        if details is not None and (
            details.num_ctx_tokens or details.num_generation_tokens
        ):
            self.made += 1
