"""How a node stands, beside its deployments: who is away, limits, budgets, problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.serving.limits.limiters import limits_shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.gateway.admin.shown import Shown
    from atomr_infer.serving.shared import Serving


def shown_standing(serving: Serving) -> Shown:
    """Return the members of a node's status that are no deployment's."""
    return {
        "away": [attrs.asdict(each) for each in serving.node.roster.away()],
        "problems": list(problems(serving)),
        "limits": shown_limits(serving),
        "budgets": shown_budgets(serving),
    }


def problems(serving: Serving) -> Iterator[str]:
    """Yield what does not agree between nodes, and what is wrong with a budget."""
    yield from serving.node.agreement.problems()
    try:
        statuses = serving.orders.statuses()
    except InferenceError as error:
        yield error.message
        return
    for status in statuses:
        for conflict in status.conflicts:
            yield f"deployment {status.name}: {conflict}"
    for budget in shown_budgets(serving):
        if budget["problem"]:
            whose = f"budget of {budget['name']}, {budget['budget']}"
            yield f"{whose}: {budget['problem']}"


def shown_limits(serving: Serving) -> list[Shown]:
    """Return all rate limits, with the names of the keys whose they are."""
    called = serving.key_ring.table.called
    return [
        {**attrs.asdict(limit), "name": called(limit.owner)}
        for limit in limits_shown(serving)
    ]


def shown_budgets(serving: Serving) -> list[Shown]:
    """Return all budgets, with the names of the keys whose they are."""
    called = serving.key_ring.table.called
    return [
        {**budget, "name": called(str(budget["owner"]))}
        for budget in serving.budgets.shown()
    ]
