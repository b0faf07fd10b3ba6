"""What a request may cost, before it is made."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from atomr.errors import CallError
from atomr.otp import call
from atomr_infer.policy.estimates.cost_estimate import estimate_request
from atomr_infer.runtimes.contract import capabilities_of
from atomr_infer.serving.replicas import messages

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.cost import CostEstimate
    from atomr_infer.serving.shared import Serving


def estimate_on(
    engine: messages.ContextUp | None, asked: messages.EstimateCost
) -> CostEstimate | None:
    """Return what a request may cost on an engine; None: its price is not known.

    Args:
        engine: the replica's; None: it has none now.
        asked: the request and the model's price.
    """
    longest = None
    if engine is not None:
        able = capabilities_of(engine.runner, asked.batch.model)
        longest = able.max_output_tokens
    return estimate_request(asked.batch, asked.price, max_output_tokens=longest)


async def estimated(serving: Serving, batch: ExecuteBatch) -> CostEstimate | None:
    """Return what a request may cost; see ``Serving.estimate_cost``."""
    route = serving.table.resolve(batch.model)
    deployment = serving.deployments[route.deployment]
    routed = attrs.evolve(batch, model=route.model)
    price = serving.prices.price(deployment, route.model)
    request = messages.EstimateCost(routed, price)
    for replica in serving.replicas(deployment.name):
        with suppress(CallError):
            return await call(replica.core, request, timeout_s=None)
    return estimate_request(routed, price, max_output_tokens=None)
