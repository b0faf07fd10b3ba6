"""The coordinator: one deployment's routing table, and its readiness.

It knows the deployment's replicas by their engine cores, picks the one for
each attempt, and answers those who wait until the deployment serves.  It can
crash and come back: engine cores announce themselves when asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr.core.messages import Down
from atomr.otp import From, GenServer, NoReply, Reply, cast
from atomr.process import monitor, whereis
from atomr_infer.errors import InferenceError, NotReadyError
from atomr_infer.policy.replica_choice import least_outstanding
from atomr_infer.serving import messages
from atomr_infer.serving.names import engine_core_name
from atomr_infer.serving.replica import Phase, ReplicaState

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid, Ref
    from atomr_infer.model.deployment import Deployment

log = logging.getLogger(__name__)


class Coordinator(GenServer):
    """Routes attempts to the replicas of one deployment."""

    def __init__(
        self, deployment: Deployment, on_phase: Callable[[Phase], None]
    ) -> None:
        """Prepare an empty table.

        Args:
            deployment: whose replicas are routed to.
            on_phase: called with the deployment's phase when it may have
                changed; must not block.
        """
        self._deployment = deployment
        self._on_phase = on_phase
        self._replicas: dict[Pid, ReplicaState] = {}
        self._monitors: dict[Ref, Pid] = {}
        self._awaiting: list[From] = []
        self._last_error: InferenceError | None = None
        self._gone: set[int] = set()

    def init(self) -> None:
        """Ask engine cores that are there already to announce themselves."""
        for number in range(self._deployment.serving.replicas):
            core = whereis(engine_core_name(self._deployment.name, number))
            if core is not None:
                cast(core, messages.Announce())

    def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        """Answer ``PickReplica``, ``AwaitServing`` and ``ListReplicas``."""
        match request:
            case messages.PickReplica(avoid=avoid):
                return Reply(self._pick(avoid))
            case messages.AwaitServing():
                self._awaiting.append(from_)
                self._answer_awaiting()
                return NoReply()
            case messages.ListReplicas():
                return Reply(self._sorted())
            case _:
                raise TypeError(f"Coordinator does not know the request {request!r}")

    def handle_cast(self, message: object) -> None:
        """Take what engine cores report."""
        match message:
            case messages.ReplicaUp(replica=replica):
                if replica.core not in self._replicas:
                    self._replicas[replica.core] = replica
                    self._monitors[monitor(replica.core)] = replica.core
                    self._gone.discard(replica.number)
            case messages.ReplicaChanged(core=core):
                self._changed(core)
            case _:
                raise TypeError(f"Coordinator does not know the message {message!r}")

    def handle_info(self, message: object) -> None:
        """Take the end of a replica: it leaves the routing table."""
        if not isinstance(message, Down):
            super().handle_info(message)
            return
        core = self._monitors.pop(message.ref)
        replica = self._replicas.pop(core)
        self._gone.add(replica.number)
        if replica.phase is not Phase.SERVING:  # else it is merely being stopped
            self._last_error = replica.error or self._last_error
            log.error(
                "%s/%d left the routing table: %s",
                self._deployment.name,
                replica.number,
                replica.error or message.reason,
            )
        self._report()

    def _pick(self, avoid: frozenset[Pid]) -> Pid | InferenceError:
        states = self._replicas.values()
        usable = [state for state in states if state.phase is not Phase.FAILED]
        avoided = frozenset(state for state in usable if state.core in avoid)
        chosen = least_outstanding(usable, avoided)
        return self._unavailable() if chosen is None else chosen.core

    def _changed(self, core: Pid) -> None:
        replica = self._replicas.get(core)
        if replica is None:
            return
        if replica.phase is Phase.FAILED:
            self._last_error = replica.error
            log.error(
                "%s/%d failed: %s", self._deployment.name, replica.number, replica.error
            )
        self._report()

    def _report(self) -> None:
        self._on_phase(self._phase())
        self._answer_awaiting()

    def _phases(self) -> list[Phase]:
        gone = len(self._gone)
        missing = self._deployment.serving.replicas - len(self._replicas) - gone
        phases = [state.phase for state in self._replicas.values()]
        return phases + [Phase.LOADING] * missing + [Phase.FAILED] * gone

    def _phase(self) -> Phase:
        """The best of the replicas' phases is the deployment's."""
        phases = self._phases()
        order = (Phase.SERVING, Phase.RESTARTING, Phase.LOADING)
        return next((phase for phase in order if phase in phases), Phase.FAILED)

    def _answer_awaiting(self) -> None:
        phases = self._phases()
        if not self._awaiting or {Phase.LOADING, Phase.RESTARTING} & set(phases):
            return
        verdict = None if Phase.SERVING in phases else self._unavailable()
        for from_ in self._awaiting:
            from_.reply(verdict)
        self._awaiting.clear()

    def _unavailable(self) -> InferenceError:
        if self._last_error is not None:
            return self._last_error
        return NotReadyError(f"{self._deployment.name} has no replica that can serve")

    def _sorted(self) -> tuple[ReplicaState, ...]:
        return tuple(sorted(self._replicas.values(), key=lambda state: state.number))
