"""`TieredRouter`: the best model that a request's budget allows.

What a request may cost at most is estimated for each tier from the best one down, and
nothing is asked for that.  A tier that fails before its first words is followed by
those below it that the budget allows.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import BudgetExceededError, ModelNotFoundError
from atomr_infer.pipeline.asking.in_turn import first_that_answers
from atomr_infer.pipeline.asking.runner import GeneratingRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.pipeline.graphs.options import Tier, TierOptions
    from atomr_infer.runtimes.others import Asking, Others


class TieredRouter(GeneratingRunner):
    """Asks the tiers that a request can pay."""

    def __init__(self, options: TierOptions, others: Others) -> None:
        super().__init__(others)
        self._options = options

    async def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        models = await self._affordable(batch, asking)
        async with aclosing(first_that_answers(batch, asking, models)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _affordable(self, batch: ExecuteBatch, asking: Asking) -> tuple[str, ...]:
        """Return the models that are asked, in order.

        Raises:
            BudgetExceededError: there is none.
        """
        options, models = self._options, []
        for tier in options.tiers:
            why = await self._too_dear(tier, batch, asking)
            if why is None:
                models.append(tier.model)
            else:
                asking.note(tier.model, f"passed over: {why}")
        if models:
            return tuple(dict.fromkeys(models))
        if options.exhausted == "cheapest":
            return (options.tiers[-1].model,)
        raise BudgetExceededError(
            f"no tier can serve this request for ${options.budget_usd:g}; "
            "ask for a shorter answer",
            code="request_budget",
        )

    async def _too_dear(
        self, tier: Tier, batch: ExecuteBatch, asking: Asking
    ) -> str | None:
        asked = attrs.evolve(batch, model=tier.model)
        try:
            estimate = await asking.estimate(asked)
        except ModelNotFoundError:
            return "nobody serves it"
        return self._options.too_dear(tier, estimate)
