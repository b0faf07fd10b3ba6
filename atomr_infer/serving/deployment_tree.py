"""The processes of one deployment, as child specs.

::

    deployment (one_for_one)
    ├─ coordinator
    └─ replicas (one_for_one, one temporary child each)
         └─ replica n (rest_for_one)
              ├─ engine core
              └─ context

A context that dies is restarted alone, with growing waits.  Past the replica's
intensity the replica ends, and being temporary it stays away: it leaves the
routing table, and the other replicas go on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.core.child_spec import ChildSpec, Restart
from atomr.otp import Strategy, Supervisor
from atomr.process import PlainProcess
from atomr_infer.serving.coordinator import Coordinator
from atomr_infer.serving.engine_context import EngineContext, EngineSource
from atomr_infer.serving.engine_core import EngineCore
from atomr_infer.serving.names import coordinator_name, engine_core_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.serving.replica import Phase
    from atomr_infer.serving.routing_table import RoutingTable

# An engine that dies five times in two minutes has a cause that one more
# start will not cure; each start of a large model costs minutes of its own.
_MAX_RESTARTS = 5
_MAX_SECONDS = 120.0
_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0

# Closing a child process takes a request to stop, SIGTERM and SIGKILL.
_CONTEXT_SHUTDOWN_S = 20.0


def deployment_spec(
    source: EngineSource, table: RoutingTable, on_phase: Callable[[Phase], None]
) -> ChildSpec:
    """Return the child spec of a deployment's whole tree.

    Args:
        source: how its runners are opened.
        table: the routing table that its coordinator keeps.
        on_phase: called with the deployment's phase when it may have changed.

    It is temporary: when its supervisor gives up, the deployment has failed,
    and the deployment manager says so.
    """
    name = source.deployment.name
    return ChildSpec(
        id=name,
        start=partial(_deployment, source, table, on_phase),
        restart=Restart.TEMPORARY,
    )


def _deployment(
    source: EngineSource, table: RoutingTable, on_phase: Callable[[Phase], None]
) -> Supervisor:
    return Supervisor(
        [
            ChildSpec(
                id="coordinator",
                start=partial(Coordinator, source.deployment, table, on_phase),
                name=coordinator_name(source.deployment.name),
            ),
            ChildSpec(id="replicas", start=partial(_replicas, source)),
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


def _replicas(source: EngineSource) -> Supervisor:
    return Supervisor(
        [
            ChildSpec(
                id=f"replica-{number}",
                start=partial(_replica, source, number),
                restart=Restart.TEMPORARY,
            )
            for number in range(source.deployment.serving.replicas)
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


def _replica(source: EngineSource, number: int) -> Supervisor:
    return Supervisor(
        [
            ChildSpec(
                id="engine_core",
                start=partial(EngineCore, source.deployment, number),
                name=engine_core_name(source.deployment.name, number),
            ),
            ChildSpec(
                id="context",
                # One object over all restarts: it remembers whether it ever ran.
                start=partial(PlainProcess, EngineContext(source, number)),
                backoff_s=_BACKOFF_S,
                max_backoff_s=_MAX_BACKOFF_S,
                restart=Restart.TRANSIENT,
                shutdown=_CONTEXT_SHUTDOWN_S,
            ),
        ],
        strategy=Strategy.REST_FOR_ONE,
        max_restarts=_MAX_RESTARTS,
        max_seconds=_MAX_SECONDS,
    )
