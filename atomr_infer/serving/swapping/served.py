"""What is served under a deployment's name: on this node, or on all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.deployment_table import deployment_table, table_deployment
from atomr_infer.serving.placing.alone import LocalOrders

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.shared import Serving


def served(serving: Serving, name: str) -> Deployment | None:
    """Return the deployment of a name; None: there is none that is understood.

    Raises:
        NotReadyError: nobody knows for a moment.
    """
    orders = serving.orders
    if isinstance(orders, LocalOrders):
        return serving.deployments.get(name)
    known = orders.picture().catalogue.get(name)
    return None if known is None else known.deployment


def as_served(serving: Serving, deployment: Deployment) -> Deployment:
    """Return a deployment as :func:`served` will: other nodes have it from a table.

    Raises:
        ConfigError: it holds a key, which does not leave its process.
    """
    if serving.node.is_alone:
        return deployment
    return table_deployment(deployment_table(deployment))
