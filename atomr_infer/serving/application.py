"""The serving application: the root of the tree.

::

    atomr_infer (one_for_one)
    ├─ watchdog                  ends what waits too long for an engine
    ├─ key ring                  hears of virtual keys
    ├─ deployments (dynamic)     one supervisor per deployment
    ├─ deployment manager
    ├─ hot swaps (dynamic)       one process per deployment that is taken over
    ├─ hot swap watch            hears of those of other nodes
    ├─ placer                    where the node has others: its share of theirs
    ├─ requests (dynamic)        one lean process per request
    └─ gateways (dynamic)        one per listening address

Children stop in the reverse order: no new requests, then no requests, then the
engines.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import trio

from atomr.core.child_spec import ChildSpec, Restart
from atomr.otp import DynamicSupervisor, Strategy, Supervisor
from atomr.process import PlainProcess, stop
from atomr_infer.config.secrets import Environ
from atomr_infer.serving.deployments.deployment_manager import DeploymentManager
from atomr_infer.serving.far.service import FarInference
from atomr_infer.serving.names import (
    DEPLOYMENTS,
    GATEWAYS,
    HOT_SWAPS,
    MANAGER,
    REQUESTS,
)
from atomr_infer.serving.node import ServingNode
from atomr_infer.serving.placing.opening import prepare_placing
from atomr_infer.serving.shared import Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.runtimes.loader import Installed
    from atomr_infer.serving.placing.placer import Placer


@asynccontextmanager
async def open_serving(
    *,
    environ: Mapping[str, str] | None = None,
    installed: Installed = distributions,
    node: ServingNode | None = None,
) -> AsyncIterator[Serving]:
    """Run the serving tree for the length of the block.

    Args:
        environ: where credentials are looked up; None: ``os.environ``.
        installed: where runtimes are looked up.
        node: what the tree stands on; None: a node without others.

    Raises:
        ConfigError: the node cannot be opened.
        NotReadyError: the node fell, and with it the tree; the body was cancelled.

    Leaving the block stops everything in order; engines are closed.
    """
    serving = Serving(ServingNode() if node is None else node)
    environ = Environ(os.environ if environ is None else environ)
    serving.far = FarInference(serving)
    serving.node.add(serving.far)
    placer = await prepare_placing(serving, environ, installed)
    async with serving.node.open() as opened:
        # Stopped before the node's services, which its processes use.
        tree = await opened.start(
            ChildSpec(
                id="atomr_infer",
                start=partial(_root, serving, environ, installed, placer),
                restart=Restart.TRANSIENT,
            )
        )
        try:
            yield serving
        finally:
            with trio.CancelScope(shield=True):
                await stop(tree)


def _root(
    serving: Serving,
    environ: Mapping[str, str],
    installed: Installed,
    placer: Placer | None,
) -> Supervisor:
    manager = partial(DeploymentManager, serving, environ, installed)
    return Supervisor(
        [
            ChildSpec(id="watchdog", start=partial(PlainProcess, serving.watchdog.run)),
            ChildSpec(id="key_ring", start=partial(PlainProcess, serving.key_ring.run)),
            ChildSpec(id=DEPLOYMENTS, start=DynamicSupervisor, name=DEPLOYMENTS),
            ChildSpec(id=MANAGER, start=manager, name=MANAGER),
            ChildSpec(id=HOT_SWAPS, start=DynamicSupervisor, name=HOT_SWAPS),
            ChildSpec(
                id="hot_swap_watch",
                start=partial(PlainProcess, serving.hot_swaps.watch),
            ),
            *_placers(placer),
            ChildSpec(id=REQUESTS, start=DynamicSupervisor, name=REQUESTS),
            ChildSpec(id=GATEWAYS, start=DynamicSupervisor, name=GATEWAYS),
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


def _placers(placer: Placer | None) -> list[ChildSpec]:
    """A node that has no others has none."""
    if placer is None:
        return []
    return [ChildSpec(id="placer", start=partial(PlainProcess, placer.run))]
