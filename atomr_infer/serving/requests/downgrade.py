"""What a request does when a budget sends it to another model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ModelNotFoundError
from atomr_infer.model.failover import Fallback
from atomr_infer.policy.failures.route_plan import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.errors import BudgetExceededError
    from atomr_infer.policy.failures.route_plan import RoutePlan
    from atomr_infer.policy.routing.model_table import Route
    from atomr_infer.serving.limits.gates import Outlook
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)


def downgraded(
    serving: Serving,
    plan: RoutePlan,
    error: BudgetExceededError,
    look: Callable[[Route], Outlook],
    *,
    model: str,
) -> tuple[RoutePlan, Fallback] | None:
    """Return the plan at the model that is asked in place of the one that was.

    It may be another model of the same deployment, once.

    Args:
        serving: the tree that serves.
        plan: where the request stands.
        error: why it is sent elsewhere.
        look: says what is known of it at a deployment's gates.
        model: what it asks for there, as its runtime knows it; empty: it was sent
            elsewhere before.

    Returns:
        None where there is no other model, or it was asked already.
    """
    if error.downgrade_to is None:
        return None
    try:
        route = serving.table.resolve(error.downgrade_to)
    except ModelNotFoundError as unknown:
        log.warning("a budget's downgrade_to: %s", unknown)
        return None
    route, others = serving.groups.choose(route, look)
    is_other = bool(model) and route.model != model
    if route.deployment in plan.visited and not (
        route.deployment == plan.leg.name and is_other
    ):
        return None
    siblings = tuple(
        Fallback(to=other.deployment, model=other.model) for other in others
    )
    begun = start(plan.deployments, plan.deployments[route.deployment], siblings)
    visited = plan.visited | begun.visited
    to = Fallback(to=route.deployment, model=route.model)
    return attrs.evolve(begun, visited=visited, told=error), to
