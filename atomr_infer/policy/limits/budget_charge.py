"""What a request is charged to a budget, before and after.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.budget import Budget
    from atomr_infer.policy.limits.demand import Demand, Used


class UnknownCostError(Exception):
    """Nobody knows the most that a request may cost; the message says why."""


def most(budget: Budget, demand: Demand) -> int:
    """Return the most that a request may take of a budget.

    Raises:
        UnknownCostError: that has no bound, or no known price.
    """
    if not demand.input_tokens and demand.output_tokens == 0:
        return 0  # tokens are counted, and nothing is made
    if demand.output_tokens is None:
        raise UnknownCostError(
            f"neither the request nor {demand.model!r} bounds its answer; send"
            f" max_tokens, or write default_max_tokens for {demand.deployment!r}"
        )
    if budget.usd is None:
        return demand.input_tokens + demand.output_tokens
    if demand.cost_microusd is None:
        raise UnknownCostError(
            f"nobody knows what {demand.model!r} costs; write [deployment.price] for"
            f" {demand.deployment!r}, or install 'atomr-infer[prices]', which has many"
        )
    return demand.cost_microusd


def used_up(budget: Budget, used: Used) -> int | None:
    """Return what a request took of a budget; None: nobody knows."""
    units = used.total_tokens if budget.usd is None else used.cost_microusd
    # A provider may say anything; a ledger counts so far.
    return MAX_UNITS if units is not None and units > MAX_UNITS else units


MAX_UNITS = 2**53
"""More than a ledger can count is so much."""


class AlertLevels:
    """Shares of a budget that are told when they are spent, each once.

    Attributes:
        left: those that were not, lowest first.
    """

    __slots__ = ("left",)

    def __init__(self, levels: Iterable[float]) -> None:
        """Start with none of them spent."""
        self.left = sorted(levels)

    def passed(self, share: float) -> float | None:
        """Return the highest level that a share has passed just now; None: none.

        >>> levels = AlertLevels((0.5, 0.8))
        >>> levels.passed(0.4), levels.passed(0.9), levels.passed(0.95)
        (None, 0.8, None)
        """
        told = [level for level in self.left if level <= share]
        self.left = self.left[len(told) :]
        return told[-1] if told else None
