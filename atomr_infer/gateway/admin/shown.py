"""What operators are shown, as values for JSON.

Everything is read from the tables that the serving tree shares: looking costs
nobody a message, and shows an engine that is stuck just as well.  Instants are
told as seconds that have passed, because trio's clock means nothing outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr_infer.serving.replicas.key_check import waits_for_key

if TYPE_CHECKING:
    from atomr.otp.tree import TreeNode
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.limits.breakers import Guard
    from atomr_infer.serving.replicas.far_replica import FarReplica
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving

Shown = dict[str, object]


def shown_deployment(serving: Serving, deployment: Deployment) -> Shown:
    """Return one deployment: phase, replicas here and elsewhere, circuit, keys.

    Its ``conflicts`` are rate limits that are above what its provider tells.
    """
    name = deployment.name
    guard = serving.breakers.of(name)
    return {
        "name": name,
        "runtime": deployment.runtime,
        "serves": list(deployment.serves),
        "phase": serving.readiness().phases[name],
        "replicas": [shown_replica(replica) for replica in serving.replicas(name)],
        "elsewhere": [
            shown_far_replica(replica) for replica in serving.far_replicas.get(name, ())
        ],
        "circuit": None if guard is None else shown_circuit(guard),
        "keys": _shown_keys(serving, name),
        "conflicts": list(serving.limits.problems(name)),
    }


def _shown_keys(serving: Serving, name: str) -> tuple[str, ...]:
    """Return how each key stands; before the first request its provider may refuse."""
    states = serving.key_states(name)
    return ("refused",) * len(states) if waits_for_key(serving, name) else states


def shown_replica(replica: ReplicaState) -> Shown:
    """Return one replica: its load, and what it may take."""
    return {
        "number": replica.number,
        "phase": replica.phase.value,
        "running": replica.running,
        "waiting": replica.waiting,
        "limit": replica.limit,
        "starts": replica.starts,
        "engine_pid": replica.engine_pid,
        "error": None if replica.error is None else str(replica.error),
    }


def shown_far_replica(replica: FarReplica) -> Shown:
    """Return one replica of another node, as this one has heard of it."""
    now, told_at = trio.current_time(), replica.told_at
    return {
        "node": replica.node.name,
        "number": replica.number,
        "phase": replica.phase.value,
        "reachable": replica.link is not None,
        "outstanding": replica.outstanding,
        "tokens": replica.tokens,
        "limit": replica.limit,
        "told_ago_s": _rounded(None if told_at is None else now - told_at),
    }


def shown_circuit(guard: Guard) -> Shown:
    """Return one endpoint's breaker, with its last steps, oldest first."""
    now, breaker = trio.current_time(), guard.breaker
    refusal = breaker.refusal(now)
    return {
        "endpoint": guard.endpoint,
        "state": breaker.state.value,
        "probes": breaker.probes,
        "refuses": refusal is not None,
        "retry_after_s": None if refusal is None else _rounded(refusal.retry_after_s),
        "history": [
            {
                "ago_s": _rounded(now - step.at),
                "before": step.before.value,
                "after": step.after.value,
                "reason": step.event.value,
            }
            for step in breaker.history
        ],
    }


def shown_tree(node: TreeNode) -> Shown:
    """Return a process and all below it."""
    return {
        "id": node.id,
        "pid": None if node.pid is None else repr(node.pid),
        "behaviour": node.behaviour,
        "kind": node.kind.value,
        "state": node.state.value,
        "names": list(node.names),
        "queue_size": node.queue_size,
        "restarts": node.restarts,
        "uptime_s": _rounded(node.uptime_s),
        "children": [shown_tree(child) for child in node.children],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
