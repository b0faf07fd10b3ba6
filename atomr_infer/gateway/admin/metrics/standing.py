"""How a node stands, as families: read off the tree, and nothing is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from atomr.cluster.budgets import BudgetsError
from atomr_infer._version import VERSION
from atomr_infer.policy.failures.breaker import Circuit
from atomr_infer.serving.limits.limiters import limits_shown
from atomr_infer.serving.replicas.replica import Phase
from atomr_infer.wire.prometheus import Type

if TYPE_CHECKING:
    from atomr_infer.gateway.admin.metrics.table import Table
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving

_MICRO = 1_000_000
_PROC = Path("/proc/self")
_KEY = "key "
"""How the owner begins of what is a virtual key's: there may be thousands."""


def add_standing(table: Table, serving: Serving) -> None:
    """Put in how the node, its replicas and what holds requests back stand."""
    told = "1 for the version that runs."
    table.gauge("info", told, 1, version=VERSION)
    told = "Whether the node can be sent requests, as /readyz says."
    table.gauge("ready", told, serving.readiness().ready)
    told = "When the node began, in Unix time."
    table.gauge("started_seconds", told, serving.started_at_s)
    told = "Other nodes that are up."
    table.gauge("peers", told, len(serving.node.peers.all()))
    for name in sorted(serving.deployments):
        for replica in serving.replicas(name):
            _add_replica(table, name, replica)
    _add_circuits(table, serving)
    _add_limits(table, serving)
    _add_budgets(table, serving)
    _add_ledger(table, serving)


def _add_replica(table: Table, name: str, replica: ReplicaState) -> None:
    of = {"deployment": name, "replica": replica.number}
    serves = replica.phase is Phase.SERVING
    table.gauge("replica_serving", "Whether a replica's engine can run.", serves, **of)
    told = "Requests that a replica works on."
    table.gauge("replica_running", told, replica.running, **of)
    told = "Requests in a replica's queue."
    table.gauge("replica_waiting", told, replica.waiting, **of)
    told = "Requests that may run on a replica at once now."
    table.gauge("replica_limit", told, replica.limit, **of)
    told = "Times that a replica's engine became ready."
    table.count("replica_starts", told, replica.starts, **of)


def _add_circuits(table: Table, serving: Serving) -> None:
    for endpoint, guard in sorted(serving.breakers.guards.items()):
        for state in Circuit:
            table.gauge(
                "circuit_state",
                "1 for the state of an endpoint's circuit, 0 for the others.",
                guard.breaker.state is state,
                endpoint=endpoint,
                state=state.value,
            )


def _add_limits(table: Table, serving: Serving) -> None:
    for limit in limits_shown(serving):
        if limit.owner.startswith(_KEY) or limit.nodes:
            continue
        of = {"owner": limit.owner, "counts": limit.counts}
        if limit.account:
            of["account"] = limit.account  # the owner is the same for all keys
        told = "What a rate limit allows in its window."
        table.gauge("rate_limit_permits", told, limit.limit, **of)
        told = "What this node has used of a rate limit in its window."
        table.gauge("rate_limit_used", told, limit.used, **of)
        told = "Requests that wait for a rate limit."
        table.gauge("rate_limit_waiting", told, limit.waiting, **of)
        told = "Share of a rate limit that is withheld, as its provider refused."
        table.gauge("rate_limit_withheld_ratio", told, limit.withheld, **of)
        if limit.shadow_refusals is not None:
            told = "Requests that a shadow limit would have refused."
            table.count("rate_limit_shadowed", told, limit.shadow_refusals, **of)


def _add_budgets(table: Table, serving: Serving) -> None:
    for gate in serving.budgets.gates:
        if gate.owner.startswith(_KEY):
            continue
        try:
            state = gate.service.state(gate.ledger())
        except BudgetsError:
            continue  # it is not there yet, which /admin/status tells in words
        unit, of = ("usd", _MICRO) if gate.budget.is_money else ("tokens", 1)
        labels = {"owner": gate.owner, "budget": gate.budget.kind}
        for what, value in (
            ("limit", state.units),
            ("spent", state.spent),
            ("reserved", state.reserved),
        ):
            told = f"Of a budget's present period, in the whole cluster: {what}."
            table.gauge(f"budget_{what}_{unit}", told, value / of, **labels)


def _add_ledger(table: Table, serving: Serving) -> None:
    told = "Requests whose usage is not written yet."
    table.gauge("usage_waiting", told, len(serving.usage.waiting))
    told = "Requests whose usage was lost, as too many waited."
    table.count("usage_lost", told, serving.usage.lost)


def add_process(table: Table) -> None:
    """Put in what the operating system counts of this process, as others name it."""
    times = os.times()
    table.plain(
        "process_cpu_seconds_total",
        "Processor time of the process, without its children.",
        times.user + times.system,
        type_=Type.COUNTER,
    )
    if not _PROC.is_dir():
        return  # the rest is told on Linux only
    pages = int((_PROC / "statm").read_text(encoding="ascii").split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE")
    table.plain("process_resident_memory_bytes", "Memory of the process.", resident)
    opened = len(os.listdir(_PROC / "fd"))
    table.plain("process_open_fds", "Files that the process has open.", opened)
