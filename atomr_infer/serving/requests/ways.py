"""Which models have a straight way, and where it leads.

Pure: it is worked out once for each name, and for each model table anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import InferenceError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.failover import FallbackReason

if TYPE_CHECKING:
    from atomr_infer.policy.routing.model_table import ModelTable

# Clients choose the names of models behind a pattern.
_MAX_WAYS = 1024


@attrs.frozen
class Way:
    """What is the same for all requests for one model.

    Attributes:
        deployment: who is asked.
        model: what for.
    """

    deployment: Deployment
    model: str


class Ways:
    """The models that have a straight way, as long as the model table stays."""

    def __init__(self) -> None:
        self._table: ModelTable | None = None
        self._known: dict[str, Way | None] = {}

    def find(self, table: ModelTable, model: str) -> Way | None:
        """Return the way to a model; None: it is asked in the ordinary way only."""
        if table is not self._table or len(self._known) > _MAX_WAYS:
            self._table, self._known = table, {}
        try:
            return self._known[model]
        except KeyError:
            found = self._known[model] = _way(table, model)
            return found


def _way(table: ModelTable, model: str) -> Way | None:
    try:
        route = table.resolve(model)
    except InferenceError:
        return None
    deployment = next(d for d in table.deployments if d.name == route.deployment)
    past_filter = any(
        FallbackReason.CONTENT_FILTER in fallback.on
        for fallback in deployment.fallbacks
    )
    if route.others or past_filter or deployment.hedge.after_s is not None:
        return None
    return Way(deployment, route.model)
