"""Whether a node is ready to be sent requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr_infer.serving.replicas.routing_table import RoutingTable

ELSEWHERE = "elsewhere"
"""What is said of a deployment that only other nodes run, if any does."""


@attrs.frozen
class Readiness:
    """What ``/readyz`` says.

    Attributes:
        ready: True when some deployment serves, here or elsewhere, or would be started
            by a request; of a node that starts, when all do that can be started.
        phases: each deployment's phase by name; ``elsewhere`` where others run it.
        not_ready: the deployments that answer nothing now, by name.
        waits_for: what the node as a whole waits for, in words.
    """

    ready: bool
    phases: Mapping[str, str]
    not_ready: tuple[str, ...]
    waits_for: tuple[str, ...] = ()


def readiness_of(
    phases: Mapping[str, Phase],
    is_elsewhere: Callable[[str], bool],
    routing: Callable[[str], RoutingTable],
    *,
    is_new: bool,
) -> Readiness:
    """Return whether a node can be sent requests.

    Args:
        phases: each deployment's phase, by name.
        is_elsewhere: whether only other nodes run it.
        routing: a deployment's replicas, on all nodes.  One that gave up has none left
            here; the catalogue also has what no node can run.
        is_new: whether the node still loads what it was started with.

    >>> phases = {"a": Phase.SERVING, "b": Phase.RESTARTING}
    >>> from atomr_infer.serving.replicas.routing_table import RoutingTable
    >>> found = readiness_of(phases, {"b"}.__contains__, RoutingTable, is_new=False)
    >>> found.ready, found.phases, found.not_ready
    (True, {'a': 'serving', 'b': 'elsewhere'}, ('b',))
    """
    elsewhere = {name for name in phases if is_elsewhere(name)}
    told = {
        name: ELSEWHERE if name in elsewhere else phase.value
        for name, phase in phases.items()
    }
    answering = {
        name
        for name, phase in phases.items()
        if (
            routing(name).is_elsewhere if name in elsewhere else phase in TAKES_REQUESTS
        )
    }
    if is_new:
        # A roll-out goes on to the next node when this one is ready, and would leave
        # none that serves the model that takes longest.  But one key that was revoked,
        # or one model that is not there, does not keep it from serving all the others.
        # Others' engines are theirs to load: nodes would wait for one another.
        failed = [name for name, phase in phases.items() if phase is Phase.FAILED]
        tried_again = {name for name in failed if routing(name).replicas}
        counted = phases.keys() - tried_again or phases.keys()
        ready = bool(phases) and counted <= answering | elsewhere
    else:
        # A balancer that took the node away for one engine that starts anew would take
        # all the others' answers away, too: on each node at once, for a bad request.
        ready = bool(answering)
    return Readiness(ready, told, tuple(n for n in phases if n not in answering))
