"""Deployments that this node knows and others run.

Their names are served here: a request for one goes to a replica of another node.
They are in the model table with a routing table of their own, and have no tree.

Whoever is known so stays known when its tree on this node ends, without a moment in
between: the model table goes from one to the other in one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.serving.replicas.routing_table import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Collection

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.routing.model_table import ModelTable
    from atomr_infer.serving.shared import Serving

_MOVES_S = 10.0
"""How long a request waits for a replica that no node has now."""

_LOOK_EVERY_S = 0.05


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
    if serving.is_elsewhere(name):
        serving.prices.expect(deployment)
        serving.asks_of(deployment)  # it is remembered: it is looked up slowly


def forget(serving: Serving, name: str) -> None:
    """Serve a deployment's names no more, where it does not run here."""
    is_elsewhere = serving.is_elsewhere(name)
    serving.elsewhere.pop(name, None)
    if is_elsewhere:
        serving.leave(name)


async def one_is_there(
    serving: Serving, deployment: Deployment, deadline_s: float
) -> None:
    """Wait for a replica of a deployment that only other nodes can have.

    As a request waits in the queue of an engine that loads here, so it does while an
    engine moves from one node to another, or its node is out of sight.  Returns at
    once where the deployment runs here, and when nobody has come in time.

    Args:
        serving: this node's tree.
        deployment: whose replica.
        deadline_s: until when the request is of use, in trio's clock.
    """
    wait_s = min(deployment.serving.queue_timeout_s, _MOVES_S)
    until = min(trio.current_time() + wait_s, deadline_s)
    name = deployment.name
    if not serving.is_elsewhere(name):
        return
    while name in serving.deployments and trio.current_time() < until:
        table = serving.routing(name)
        if table.replicas or table.has_other(frozenset()):
            return  # it may even be this node that has taken over
        await trio.sleep(_LOOK_EVERY_S)


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
