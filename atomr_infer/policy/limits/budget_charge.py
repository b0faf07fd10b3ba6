"""What a request is charged to a budget, before and after.

Pure.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr_infer.model.budget import Window
from atomr_infer.model.prices import PICO_PER_MICRO, microusd_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.model.budget import Budget
    from atomr_infer.policy.limits.demand import Demand, Used


log = logging.getLogger(__name__)


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


def at_least(budget: Budget, used: Used) -> int | None:
    """Return what was used of a budget so far, rounded up; None: nobody knows."""
    if budget.usd is None:
        return used.total_tokens
    cost = used.cost_pico_usd
    return None if cost is None else microusd_up(max(0, cost))


MAX_UNITS = 2**53
"""More than a ledger can count is so much."""


class Charges:
    """What requests are charged to a budget's ledgers, in its whole units.

    A ledger counts microdollars, and a request may cost less than one.  What it is
    charged beyond its cost is a rest that pays for those behind it: so a ledger is
    charged never less than was spent, and less than a microdollar more.
    """

    __slots__ = ("_budget", "_ledger", "_rest")

    def __init__(self, budget: Budget) -> None:
        """Start with no rest."""
        self._budget = budget
        self._ledger = ""
        self._rest = 0

    def units(self, ledger: str, used: Used) -> int | None:
        """Return what a request is charged; None: nobody knows what it cost.

        Args:
            ledger: whose rest it may use.
            used: what it used.

        >>> from atomr_infer.model.budget import Budget, Per
        >>> from atomr_infer.policy.limits.demand import Used
        >>> charges = Charges(Budget(per=Per.DAY, usd=1))
        >>> [charges.units("today", Used(cost_pico_usd=400_000)) for _ in range(5)]
        [1, 0, 1, 0, 0]
        """
        if self._budget.usd is None:
            return min(MAX_UNITS, used.total_tokens)
        cost = used.cost_pico_usd
        if cost is None:
            return None
        if cost < 0:
            log.warning(
                "a request is charged nothing to %r: it cost %d pico-dollars; its"
                " price or its provider's usage is wrong",
                ledger,
                cost,
            )
            cost = 0
        # Of a rolling one the rest would be there again before what it has paid for.
        if ledger != self._ledger or self._budget.window is Window.ROLLING:
            self._ledger, self._rest = ledger, 0
        due = cost - self._rest
        units = microusd_up(due)
        self._rest = units * PICO_PER_MICRO - due
        # A provider may say anything; a ledger counts so far.
        return min(MAX_UNITS, units)


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
