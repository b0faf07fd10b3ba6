"""The processes of one deployment, as child specs.

::

    deployment (one_for_one)
    ├─ coordinator
    └─ replicas (one_for_one, one temporary child each)
         └─ replica n (rest_for_one)
              ├─ engine core
              └─ context

A deployment that is changed may get another context beside the first one, and other
replicas (``atomr_infer.serving.deployments.replacing``).

A context that dies is restarted alone, with growing waits.  Past the replica's
intensity the replica ends, and being temporary it stays away: it leaves the
routing table, and the other replicas go on.  So it does after as many starts in a row
that came to nothing, however long each took (``failed_starts``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from atomr.core.child_spec import ChildSpec, Restart
from atomr.otp import Strategy, Supervisor
from atomr.process import PlainProcess
from atomr_infer.serving.deployments.coordinator import Coordinator
from atomr_infer.serving.names import (
    coordinator_name,
    engine_core_name,
    replica_name,
)
from atomr_infer.serving.replicas.engine_core import EngineCore
from atomr_infer.serving.replicas.failed_starts import MAX_RESTARTS, MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.serving.replicas.blueprint import Blueprint
    from atomr_infer.serving.replicas.engine_context import EngineContext
    from atomr_infer.serving.replicas.replica import Phase
    from atomr_infer.serving.replicas.routing_table import RoutingTable

_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 10.0

# Closing a child process takes a request to stop, SIGTERM and SIGKILL.
_CONTEXT_SHUTDOWN_S = 20.0


_REPLICA = "replica-"

REPLICAS = "replicas"
"""The id of the replicas' supervisor, in a deployment's tree."""


def deployment_spec(
    blueprint: Blueprint, table: RoutingTable, on_phase: Callable[[Phase], None]
) -> ChildSpec:
    """Return the child spec of a deployment's whole tree.

    Args:
        blueprint: what its processes are made from.
        table: the routing table that its coordinator keeps.
        on_phase: called with the deployment's phase when it may have changed.

    It is temporary: when its supervisor gives up, the deployment has failed,
    and the deployment manager says so.
    """
    name = blueprint.deployment.name
    return ChildSpec(
        id=name,
        start=partial(_deployment, blueprint, table, on_phase),
        restart=Restart.TEMPORARY,
    )


def replica_id(number: int) -> str:
    """Return the id of a replica's supervisor."""
    return f"{_REPLICA}{number}"


def replica_number(child_id: str) -> int:
    """Return the number of the replica whose supervisor has an id."""
    return int(child_id.removeprefix(_REPLICA))


def replica_spec(blueprint: Blueprint, number: int) -> ChildSpec:
    """Return the child spec of one replica."""
    return ChildSpec(
        id=replica_id(number),
        # So that its context can end it (``engine_context``).
        name=replica_name(blueprint.deployment.name, number),
        start=partial(_replica, blueprint, number),
        restart=Restart.TEMPORARY,
    )


def context_spec(context: EngineContext) -> ChildSpec:
    """Return the child spec of an engine's context."""
    return ChildSpec(
        id=context.child_id,
        # One object over all restarts: it remembers whether it ever ran.
        start=partial(PlainProcess, context),
        backoff_s=_BACKOFF_S,
        max_backoff_s=_MAX_BACKOFF_S,
        restart=Restart.TRANSIENT,
        shutdown=_CONTEXT_SHUTDOWN_S,
    )


def _deployment(
    blueprint: Blueprint, table: RoutingTable, on_phase: Callable[[Phase], None]
) -> Supervisor:
    return Supervisor(
        [
            ChildSpec(
                id="coordinator",
                start=partial(Coordinator, blueprint, table, on_phase),
                name=coordinator_name(blueprint.deployment.name),
            ),
            ChildSpec(id=REPLICAS, start=partial(_replicas, blueprint)),
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


def _replicas(blueprint: Blueprint) -> Supervisor:
    return Supervisor(
        [
            replica_spec(blueprint, number)
            for number in range(blueprint.deployment.serving.replicas)
        ],
        strategy=Strategy.ONE_FOR_ONE,
    )


def _replica(blueprint: Blueprint, number: int) -> Supervisor:
    context = blueprint.contexts[number] = blueprint.context(number, blueprint.source)
    return Supervisor(
        [
            ChildSpec(
                id="engine_core",
                start=partial(EngineCore, blueprint, number),
                name=engine_core_name(blueprint.deployment.name, number),
            ),
            context_spec(context),
        ],
        strategy=Strategy.REST_FOR_ONE,
        max_restarts=MAX_RESTARTS,
        max_seconds=MAX_SECONDS,
    )
