"""The serving application: the root of the tree.

::

    atomr_infer (one_for_one)
    ├─ watchdog                  ends what waits too long for an engine
    ├─ deployments (dynamic)     one supervisor per deployment
    ├─ deployment manager
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

from atomr.core.child_spec import ChildSpec
from atomr.otp import DynamicSupervisor, Strategy, Supervisor
from atomr.process import PlainProcess, open_node
from atomr_infer.config.secrets import Environ
from atomr_infer.serving.deployment_manager import DeploymentManager
from atomr_infer.serving.names import DEPLOYMENTS, GATEWAYS, MANAGER, REQUESTS
from atomr_infer.serving.shared import Serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.runtimes.loader import Installed


@asynccontextmanager
async def open_serving(
    *,
    environ: Mapping[str, str] | None = None,
    installed: Installed = distributions,
) -> AsyncIterator[Serving]:
    """Run the serving tree for the length of the block.

    Args:
        environ: where credentials are looked up; None: ``os.environ``.
        installed: where runtimes are looked up.

    Leaving the block stops everything in order; engines are closed.
    """
    serving = Serving()
    environ = Environ(os.environ if environ is None else environ)
    async with open_node() as node:
        await node.start(
            ChildSpec(
                id="atomr_infer", start=partial(_root, serving, environ, installed)
            )
        )
        yield serving


def _root(
    serving: Serving, environ: Mapping[str, str], installed: Installed
) -> Supervisor:
    manager = partial(DeploymentManager, serving, environ, installed)
    return Supervisor(
        [
            ChildSpec(id="watchdog", start=partial(PlainProcess, serving.watchdog.run)),
            ChildSpec(id=DEPLOYMENTS, start=DynamicSupervisor, name=DEPLOYMENTS),
            ChildSpec(id=MANAGER, start=manager, name=MANAGER),
            ChildSpec(id=REQUESTS, start=DynamicSupervisor, name=REQUESTS),
            ChildSpec(id=GATEWAYS, start=DynamicSupervisor, name=GATEWAYS),
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )
