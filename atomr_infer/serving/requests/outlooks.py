"""What is known of a request at the gates of those that may be asked.

A name may be served by a group, and not all of its deployments may be asked for each
request: a budget lets none through whose cost nobody knows, and a rate limit that is
used up keeps it waiting.  So the gates are looked at before one of the group is chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import BudgetExceededError, InferenceError
from atomr_infer.policy.estimates.answer_length import bounded
from atomr_infer.serving.limits.gates import Outlook, demand_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.limits.demand import TokenBound
    from atomr_infer.policy.routing.model_table import Route
    from atomr_infer.serving.limits.gates import Gate
    from atomr_infer.serving.shared import Serving


def looks(
    serving: Serving, batch: ExecuteBatch, bound: TokenBound | None
) -> Callable[[Route], Outlook]:
    """Return what says how a request stands at a deployment's gates, and its own.

    Args:
        serving: the tree that serves.
        batch: what is asked.
        bound: the most tokens of a request that generates nothing.
    """
    of_requests: tuple[Gate, ...] | None = None

    def look(route: Route) -> Outlook:
        nonlocal of_requests
        name, gates = route.deployment, serving.gates
        if of_requests is None:
            of_requests = gates.for_request(batch)
        # Those of a request that asks others are passed by what it asks.
        own = () if serving.asked_by(name) else of_requests
        theirs = gates.of_attempts.get(name, ())
        if not (own or theirs):
            return Outlook.OPEN
        deployment = serving.deployments[name]
        asked = attrs.evolve(batch, model=route.model)
        asked = asked if bound else bounded(asked, deployment)
        demand = demand_for(serving, deployment, asked, bound=bound)
        if any(gate.outlook(demand) is Outlook.SHUT for gate in own):
            return Outlook.SHUT
        # An engine that runs may know more of its answers: only waits are certain.
        is_full = any(gate.outlook(demand) is Outlook.FULL for gate in theirs)
        return Outlook.FULL if is_full else Outlook.OPEN

    return look


def shut_to(
    serving: Serving,
    deployment: Deployment,
    batch: ExecuteBatch,
    bound: TokenBound | None,
) -> InferenceError | None:
    """Return why a request may not come to a deployment; None: it may.

    Args:
        serving: the tree that serves.
        deployment: who would be asked.
        batch: what it would be asked, its model as its runtime knows it.
        bound: the most tokens of a request that generates nothing.
    """
    gates = serving.gates.for_request(batch)
    if not gates or serving.asked_by(deployment.name):
        return None
    demand = demand_for(serving, deployment, batch, bound=bound)
    for gate in gates:
        if gate.outlook(demand) is Outlook.SHUT:
            try:
                gate.try_enter(demand)
            except InferenceError as error:
                return error
            raise AssertionError(f"{gate} is shut, and lets a request in")
    return None


def unknown_of_all(
    error: BudgetExceededError, others: Iterable[str]
) -> BudgetExceededError:
    """Return why no deployment of a group may be asked, with all their names.

    Args:
        error: why one of them may not.
        others: the rest of the group, of which the same is so.
    """
    named = ", ".join(map(repr, others))
    text = f"{error.message}; the same is so of {named}, beside it"
    return BudgetExceededError(text, code=error.code)
