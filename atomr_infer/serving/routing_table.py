"""The routing table of one deployment: its replicas, and which one is next.

Its coordinator writes it; requests read it where they are, without a message:
asking a process would cost every request two task switches, and would hide
the requests that are on their way from each other.  The table outlives a crash
of its coordinator, so that requests do not notice one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.policy.replica_choice import least_outstanding
from atomr_infer.serving.fresh_error import fresh
from atomr_infer.serving.replica import Phase, ReplicaState

if TYPE_CHECKING:
    from atomr.refs import Pid


class RoutingTable:
    """Replicas by the pid of their engine core."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        self._replicas: dict[Pid, ReplicaState] = {}
        self._gone: set[int] = set()
        self._last_error: InferenceError | None = None

    def __contains__(self, core: object) -> bool:
        return core in self._replicas

    @property
    def replicas(self) -> tuple[ReplicaState, ...]:
        """All replicas, first one first."""
        return tuple(sorted(self._replicas.values(), key=lambda state: state.number))

    def pick(self, avoid: frozenset[ReplicaState]) -> ReplicaState:
        """Return the replica that shall take the next attempt.

        Args:
            avoid: replicas on which this request has failed already; taken
                only when there is no other.

        Raises:
            InferenceError: no replica can serve, and why.
        """
        states = self._replicas.values()
        if len(states) == 1:
            (only,) = states  # as most have, and there is nothing to choose
            if only.phase is not Phase.FAILED:
                return only
        usable = [state for state in states if state.phase is not Phase.FAILED]
        chosen = least_outstanding(usable, avoid)
        if chosen is None:
            raise self.unavailable()
        return chosen

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

    # --- the coordinator's ------------------------------------------------------

    @property
    def gone(self) -> frozenset[int]:
        """Numbers of the replicas that were here and have ended."""
        return frozenset(self._gone)

    def add(self, replica: ReplicaState) -> None:
        """Take a replica whose engine core has started."""
        self._replicas[replica.core] = replica
        self._gone.discard(replica.number)

    def forget_gone(self, replicas: int) -> None:
        """Keep no number that the deployment has no replica for."""
        self._gone = {number for number in self._gone if number < replicas}

    def remove(self, core: Pid) -> ReplicaState:
        """Drop a replica whose engine core has ended, and return it."""
        replica = self._replicas.pop(core)
        # Its successor may have come before the news of its end.
        if all(other.number != replica.number for other in self._replicas.values()):
            self._gone.add(replica.number)
        return replica
