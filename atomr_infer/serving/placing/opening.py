"""What a node is asked by, and what it says of itself, when its tree is opened."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr.errors import AtomrError
from atomr_infer.config.node import ROLES
from atomr_infer.model.placement import Role
from atomr_infer.runtimes.contract import HasEndpoint
from atomr_infer.runtimes.loader import list_runtimes
from atomr_infer.serving.deployments.sources import Sources
from atomr_infer.serving.inventory import Inventory, read_inventory
from atomr_infer.serving.placing.alone import LocalOrders
from atomr_infer.serving.placing.catalogue import Catalogue
from atomr_infer.serving.placing.orders import Orders
from atomr_infer.serving.placing.placer import Met, Placer
from atomr_infer.serving.placing.records import Facts
from atomr_infer.serving.placing.seating import Seating

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.config.node import NodeConfig
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.loader import Installed
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.shared import Serving


async def prepare_placing(
    serving: Serving, environ: Mapping[str, str], installed: Installed
) -> Placer | None:
    """Give a serving tree its ``orders``; return the placer that is to run in it.

    Args:
        serving: the tree's.
        environ: where credentials are looked up, and which GPUs may be seen.
        installed: where runtimes are looked up.

    Returns:
        None: the node has no others, and nothing is placed.
    """
    sources, node = Sources(environ, installed, serving), serving.node
    serving.prices.endpoint_of = partial(_endpoint_of, sources)
    if node.is_alone:
        # Asked for seldom, and not looked up before.
        facts = partial(facts_of, node.config, Inventory(), installed)
        serving.orders = LocalOrders(serving, facts, sources, Seating(serving, environ))
        return None
    serving.asks_of = sources.asked_elsewhere
    # The driver may take its time.
    inventory = await trio.to_thread.run_sync(read_inventory, environ)
    serving.gpu_seats.have(gpu.uuid for gpu in inventory.gpus)
    catalogue = Catalogue(
        node.replicator, me=node.name, replace_after_s=node.replace_after_s
    )
    placer = Placer(
        serving,
        catalogue,
        facts_of(node.config, inventory, installed),
        met=partial(_met, node),
    )
    serving.orders = Orders(serving, catalogue, placer, sources)
    return placer


def _endpoint_of(sources: Sources, deployment: Deployment) -> str | None:
    try:
        plugin = sources.plugin(deployment)
    except AtomrError:
        return None  # it is for nodes that can run it
    return plugin.endpoint(deployment) if isinstance(plugin, HasEndpoint) else None


def _met(node: ServingNode) -> Met:
    there = [n for n in node.voters if n == node.name or node.peers.get(n) is not None]
    return Met.of(len(there), len(node.voters))


def facts_of(config: NodeConfig, inventory: Inventory, installed: Installed) -> Facts:
    """Return what a node says of itself.

    Where nobody has chosen its roles it has all that it can fill.
    """
    roles = config.roles
    if roles == ROLES and not inventory.gpus:
        roles = tuple(role for role in roles if role != Role.GPU.value)
    return Facts(
        roles=roles,
        labels=dict(config.labels),
        gpus_gib=tuple(round(gpu.memory_gib, 3) for gpu in inventory.gpus),
        gpus=tuple(gpu.name for gpu in inventory.gpus),
        gpus_note=inventory.note,
        runtimes=tuple(sorted(entry.name for entry in list_runtimes(installed))),
    )
