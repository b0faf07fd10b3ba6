"""Deployments that this node knows and others run.

Their names are served here: a request for one goes to a replica of another node.
They are in the model table with a routing table of their own, and have no tree.

Whoever is known so stays known when its tree on this node ends, without a moment in
between: the model table goes from one to the other in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.serving.routing_table import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Collection

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.model_table import ModelTable
    from atomr_infer.serving.shared import Serving


def know(serving: Serving, deployment: Deployment, expected: Collection[str]) -> None:
    """Serve a deployment's names by other nodes, where it does not run here.

    Args:
        serving: this node's tree.
        deployment: what others run.
        expected: names of deployments that will come.

    Raises:
        ConfigError: it falls back to nobody, or in a circle; all is as it was.
    """
    name, table, names = deployment.name, serving.table, frozenset(expected)
    if serving.is_elsewhere(name):
        if serving.deployments[name] != deployment:
            serving.publish(table.with_changed(deployment, expected=names))
    elif name not in serving.deployments:
        table = table.with_deployment(deployment, expected=names)
        serving.elsewhere[name] = deployment
        serving.publish(table, RoutingTable(name))
    serving.elsewhere[name] = deployment


def forget(serving: Serving, name: str) -> None:
    """Serve a deployment's names no more, where it does not run here."""
    is_elsewhere = serving.is_elsewhere(name)
    serving.elsewhere.pop(name, None)
    if is_elsewhere:
        serving.leave(name)


def here(serving: Serving) -> set[str]:
    """Return the names of those that run on this node."""
    return {name for name in serving.deployments if not serving.is_elsewhere(name)}


def table_with(
    serving: Serving, deployment: Deployment, expected: frozenset[str]
) -> ModelTable:
    """Return the model table with a deployment that begins to run here.

    Raises:
        ConfigError: one of its name runs here, or it falls back to nobody.
    """
    if serving.is_elsewhere(deployment.name):
        return serving.table.with_changed(deployment, expected=expected)
    return serving.table.with_deployment(deployment, expected=expected)
