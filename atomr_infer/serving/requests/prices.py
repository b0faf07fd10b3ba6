"""What a deployment's models cost: as configured, or as the provider is known for.

A look-up by the provider's address is remembered for a minute, since some
prices depend on the hour; how many are remembered is bounded, because clients
choose the names of models behind a pattern.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from atomr_infer.model.cost import cost_of, total_of
from atomr_infer.remote.prices_genai import find_price, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.cost import Cost
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.prices import Price
    from atomr_infer.serving.requests.served import Spent

_REMEMBERED_S = 60.0
_MAX_REMEMBERED = 1000


class Prices:
    """Prices by deployment and model.

    Attributes:
        endpoint_of: returns the address that a deployment asks which other nodes
            run; None: it asks none, or nobody here knows its runtime.
    """

    def __init__(self) -> None:
        self.endpoint_of: Callable[[Deployment], str | None] = _nowhere
        self._endpoints: dict[str, str] = {}
        self._found: dict[tuple[str, str], tuple[float, Price | None]] = {}

    def add(self, deployment: Deployment, endpoint: str) -> None:
        """Take the address that a deployment asks.

        The table of prices is loaded now if it can be needed: its import takes
        too long for the end of a request.
        """
        self.remove(deployment.name)
        self._endpoints[deployment.name] = endpoint
        if deployment.price is None and _sells(endpoint):
            load()

    def expect(self, deployment: Deployment) -> None:
        """Take the address that other nodes ask for a deployment."""
        endpoint = self.endpoint_of(deployment)
        if endpoint is None:
            self.remove(deployment.name)
        else:
            self.add(deployment, endpoint)

    def remove(self, name: str) -> None:
        """Forget a deployment that is gone."""
        self._endpoints.pop(name, None)
        for key in [key for key in self._found if key[0] == name]:
            del self._found[key]

    def price(self, deployment: Deployment, model: str) -> Price | None:
        """Return what a model costs; None: nobody knows.

        Args:
            deployment: who serves it.
            model: what its runtime is asked for.
        """
        if deployment.price is not None:
            return deployment.price
        endpoint = self._endpoints.get(deployment.name, "")
        if not _sells(endpoint):
            return None
        key = (deployment.name, model)
        now = trio.current_time()
        until, found = self._found.get(key, (now, None))
        if now < until:
            return found
        if len(self._found) >= _MAX_REMEMBERED:
            self._found.clear()
        found = find_price(model, endpoint, now=datetime.now(UTC))
        self._found[key] = (now + _REMEMBERED_S, found)
        return found

    def cost(
        self, spent: Iterable[Spent], deployments: Mapping[str, Deployment]
    ) -> Cost | None:
        """Return what a request's attempts cost together.

        Args:
            spent: the attempts.
            deployments: all that are there, by name.

        Returns:
            None when one of them has no known cost.
        """
        costs = []
        for attempt in spent:
            deployment = deployments.get(attempt.deployment)
            price = None
            if deployment is not None:
                price = self.price(deployment, attempt.model)
            cost = cost_of(attempt.usage, price)
            if cost is None:
                return None
            costs.append(cost)
        return total_of(costs)


def _nowhere(_: Deployment) -> None:
    return None


def _sells(endpoint: str) -> bool:
    """Return whether a provider may be there; none sells in the clear."""
    return endpoint.startswith("https://")
