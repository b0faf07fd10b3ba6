"""The routing table of one deployment: its replicas, and which one is next.

Its coordinator writes it; requests read it where they are, without a message:
asking a process would cost every request two task switches, and would hide
the requests that are on their way from each other.  The table outlives a crash
of its coordinator, so that requests do not notice one.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeAlias

import attrs

from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.model.routing import Routing
from atomr_infer.policy.routing.affinity import ReadPrefixes, prefix_blocks, session_of
from atomr_infer.policy.routing.replica_choice import (
    Choice,
    Chooser,
    Wanted,
    needs_request,
    size_of,
)
from atomr_infer.serving.replicas.far_replica import AnyReplica, FarReplica
from atomr_infer.serving.replicas.fresh_error import fresh
from atomr_infer.serving.replicas.replica import TAKES_REQUESTS, Phase, ReplicaState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.refs import Pid
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment, Serving


@attrs.frozen(eq=False)
class Routed:
    """A replica that was chosen.

    Attributes:
        replica: the one.
        route: which it is and why, for the client.
    """

    replica: AnyReplica
    route: bytes


Idle: TypeAlias = tuple[ReplicaState, bytes, int]
"""A replica, the route to it, and about how many tokens the request has there."""


class RoutingTable:
    """Replicas by the pid of their engine core."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        self._node = ""
        self._far_of: Mapping[str, tuple[FarReplica, ...]] = {}
        self._sole: Routed | None = None
        self._prefixes = ReadPrefixes()
        self._replicas: dict[Pid, ReplicaState] = {}
        self._gone: set[int] = set()
        self._last_error: InferenceError | None = None

    def __contains__(self, core: object) -> bool:
        return core in self._replicas

    @property
    def replicas(self) -> tuple[ReplicaState, ...]:
        """All replicas, first one first."""
        return tuple(sorted(self._replicas.values(), key=lambda state: state.number))

    @property
    def far(self) -> tuple[FarReplica, ...]:
        """The replicas of other nodes."""
        return self._far_of.get(self.deployment, ())

    def choose(
        self, avoid: frozenset[AnyReplica], deployment: Deployment, batch: ExecuteBatch
    ) -> Routed:
        """Return the replica that shall take the next attempt.

        Args:
            avoid: replicas on which this request has failed already; taken
                only when there is no other.
            deployment: whose policy it is.
            batch: the request.

        Raises:
            InferenceError: no replica can serve, and why.
        """
        sole = self._sole
        if sole is not None and not self.far and sole.replica.phase is not Phase.FAILED:
            return sole  # as most have, and there is nothing to choose
        wanted = _wanted(deployment.serving.routing, batch)
        found = self._found(avoid, deployment.serving, wanted)
        if found is None:
            raise self.unavailable()
        if wanted.blocks:
            self._prefixes.note(wanted.blocks, found.replica.label)
        return found

    def idle(self, serving: Serving, batch: ExecuteBatch) -> Idle | None:
        """Return the replica of this node that is asked next, and why it is that one.

        Args:
            serving: the deployment's, with its policy.
            batch: the request, which may lack its conversation.

        Returns:
            None: none runs now, or the choice needs to know the conversation.
        """
        sole, far = self._sole, self.far
        if sole is not None and not far:
            tokens = 0  # there is nobody to compare it with
        elif needs_request(serving.routing):
            return None
        else:
            tokens = size_of(batch)
            if sole is None or not self._is_sole_enough(sole, far, serving, tokens):
                sole = self._found(frozenset(), serving, Wanted(tokens=tokens))
        if sole is None:
            return None
        replica = sole.replica
        if not isinstance(replica, ReplicaState) or not replica.ready:
            return None
        return replica, sole.route, tokens

    def _is_sole_enough(
        self,
        sole: Routed,
        far: tuple[FarReplica, ...],
        serving: Serving,
        tokens: int,
    ) -> bool:
        """Whether a look at the tokens tells that this node's one replica is asked."""
        if serving.routing is not Routing.LEAST_TOKENS:
            return False
        here = sole.replica
        most = (here.tokens / (1 + serving.local_margin)) - tokens
        if here.outstanding >= here.limit or not here.ready:
            return False
        for each in far:  # noqa: SIM110 - a generator would cost more than all of it
            if each.told.tokens + each.sent_tokens < most:
                return False
        return True

    @property
    def _everyone(self) -> tuple[AnyReplica, ...]:
        return (*self._replicas.values(), *self.far)

    @property
    def ready(self) -> tuple[AnyReplica, ...]:
        """Those that can run a request now, on whatever node."""
        return tuple(each for each in self._everyone if each.ready)

    def has_other(self, avoid: frozenset[AnyReplica]) -> bool:
        """Whether some replica that is not among these can run a request now."""
        return any(each.ready and each not in avoid for each in self._everyone)

    @property
    def is_elsewhere(self) -> bool:
        """Whether another node's replica answers, if need be after a start."""
        takes = (each for each in self.far if each.phase in TAKES_REQUESTS)
        return any(each.link is not None for each in takes)

    def _found(
        self, avoid: frozenset[AnyReplica], serving: Serving, wanted: Wanted
    ) -> Routed | None:
        usable = [each for each in self._everyone if each.phase is not Phase.FAILED]
        chooser = Chooser(
            routing=serving.routing,
            local_margin=serving.local_margin,
            prefixes=self._prefixes,
        )
        choice = chooser.choose(usable, avoid, wanted, random=random.random)
        return None if choice is None else _routed(choice)

    def unavailable(self) -> InferenceError:
        """The error for a request that no replica can take."""
        if self._last_error is not None:
            return fresh(self._last_error)
        return NotReadyError(f"{self.deployment} has no replica that can serve")

    @property
    def last_error(self) -> InferenceError | None:
        """Why an engine failed last; None: none has."""
        return self._last_error

    def note_error(self, error: InferenceError) -> None:
        """Remember why an engine failed; called by whoever meets the failure."""
        self._last_error = error

    def join(self, node: str, far_of: Mapping[str, tuple[FarReplica, ...]]) -> None:
        """Be a table of a node; before it has a replica.

        Args:
            node: its name.
            far_of: each deployment's replicas on other nodes, as of now.
        """
        self._node = node
        self._far_of = far_of

    # --- the coordinator's ------------------------------------------------------

    @property
    def gone(self) -> frozenset[int]:
        """Numbers of the replicas that were here and have ended."""
        return frozenset(self._gone)

    def add(self, replica: ReplicaState) -> None:
        """Take a replica whose engine core has started."""
        replica.node = self._node
        self._replicas[replica.core] = replica
        self._look()
        self._gone.discard(replica.number)

    def forget_gone(self, replicas: int) -> None:
        """Keep no number that the deployment has no replica for."""
        self._gone = {number for number in self._gone if number < replicas}

    def remove(self, core: Pid) -> ReplicaState:
        """Drop a replica whose engine core has ended, and return it."""
        replica = self._replicas.pop(core)
        self._look()
        # Its successor may have come before the news of its end.
        if all(other.number != replica.number for other in self._replicas.values()):
            self._gone.add(replica.number)
        return replica

    def _look(self) -> None:
        """Note the replica that there is no choice beside."""
        states = tuple(self._replicas.values())
        self._sole = None
        if len(states) == 1:
            self._sole = _routed(Choice(states[0], "only", 1))


def _routed(choice: Choice[AnyReplica]) -> Routed:
    replica = choice.replica
    node = replica.node if isinstance(replica.node, str) else replica.node.name
    told = (
        f"node={node}; replica={replica.number}; reason={choice.reason}; "
        f"candidates={choice.candidates}"
    )
    return Routed(replica, told.encode())


def _wanted(routing: Routing, batch: ExecuteBatch) -> Wanted:
    return Wanted(
        tokens=size_of(batch),
        session=session_of(batch) if routing is Routing.SESSION else None,
        blocks=prefix_blocks(batch) if routing is Routing.PREFIX else (),
    )
