"""The coordinator: one deployment's routing table, and its readiness.

It keeps the table of the deployment's replicas true, reports the deployment's
phase, and answers those who wait until it serves.  It can crash and come back:
the table stays, and engine cores announce themselves when asked.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr.core.exits import is_abnormal
from atomr.core.messages import Down
from atomr.otp import From, GenServer, NoReply, cast
from atomr.process import monitor, whereis
from atomr_infer.serving.names import engine_core_name
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.replica import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.refs import Pid, Ref
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.replicas.blueprint import Blueprint
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.replicas.routing_table import RoutingTable

log = logging.getLogger(__name__)

_TAKING = (Phase.SERVING, Phase.WAKING, Phase.ASLEEP)


class Coordinator(GenServer):
    """Routes attempts to the replicas of one deployment."""

    def __init__(
        self,
        blueprint: Blueprint,
        table: RoutingTable,
        on_phase: Callable[[Phase], None],
    ) -> None:
        """Take over a table.

        Args:
            blueprint: the deployment whose replicas are routed to.
            table: empty, or as the last coordinator left it.
            on_phase: called with the deployment's phase when it may have
                changed; must not block.
        """
        self._blueprint = blueprint
        self._on_phase = on_phase
        self._table = table
        self._monitors: dict[Ref, Pid] = {}
        self._awaiting: list[From] = []

    @property
    def _deployment(self) -> Deployment:
        return self._blueprint.deployment

    def init(self) -> None:
        """Watch the replicas in the table, and ask for those that are not."""
        self._reshaped()
        for replica in self._table.replicas:
            self._monitors[monitor(replica.core)] = replica.core
        for number in range(self._deployment.serving.replicas):
            core = whereis(engine_core_name(self._deployment.name, number))
            if core is not None and core not in self._table:
                cast(core, messages.Announce())
        # Phases may have changed while there was no coordinator.
        self._report()

    def handle_call(self, request: object, from_: From) -> NoReply:
        """Answer ``AwaitServing``, now or when it is known."""
        match request:
            case messages.AwaitServing():
                # Who asked before may have given up since.
                self._awaiting = [f for f in self._awaiting if not f.answered]
                self._awaiting.append(from_)
                self._answer_awaiting()
                return NoReply()
            case _:
                raise TypeError(f"Coordinator does not know the request {request!r}")

    def handle_cast(self, message: object) -> None:
        """Take what engine cores report."""
        match message:
            case messages.ReplicaUp(replica=replica):
                if replica.core not in self._table and self._wants(replica):
                    self._table.add(replica)
                    self._monitors[monitor(replica.core)] = replica.core
            case messages.Reshaped():
                self._reshaped()
                self._report()
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
        if core not in self._table:
            return  # it is not routed to any more
        replica = self._table.remove(core)
        # A replica that served is merely being stopped, as is one that loads and
        # has no error; a failed one has been told.
        gave_up = replica.phase is Phase.RESTARTING
        crashed = replica.phase is Phase.LOADING and is_abnormal(message.reason)
        if gave_up or crashed:
            log.error(
                "%s/%d left the routing table: %s",
                self._deployment.name,
                replica.number,
                replica.error or message.reason,
            )
        self._report()

    def _changed(self, core: Pid) -> None:
        for replica in self._table.replicas:
            if replica.core is core and replica.phase is Phase.FAILED:
                log.error(
                    "%s/%d failed: %s",
                    self._deployment.name,
                    replica.number,
                    replica.error,
                )
        self._report()

    def _wants(self, replica: ReplicaState) -> bool:
        return replica.number < self._deployment.serving.replicas

    def _reshaped(self) -> None:
        """Route to those that the deployment still has."""
        for replica in self._table.replicas:
            if not self._wants(replica):
                self._table.remove(replica.core)
        self._table.forget_gone(self._deployment.serving.replicas)

    def _report(self) -> None:
        self._on_phase(self._phase())
        self._answer_awaiting()

    def _phases(self) -> list[Phase]:
        gone = len(self._table.gone)
        phases = [state.phase for state in self._table.replicas]
        missing = self._deployment.serving.replicas - len(phases) - gone
        return phases + [Phase.LOADING] * missing + [Phase.FAILED] * gone

    def _phase(self) -> Phase:
        """The best of the replicas' phases is the deployment's."""
        phases = self._phases()
        order = (*_TAKING, Phase.RESTARTING, Phase.LOADING)
        return next((phase for phase in order if phase in phases), Phase.FAILED)

    def _answer_awaiting(self) -> None:
        phases = self._phases()
        if not self._awaiting or {Phase.LOADING, Phase.RESTARTING} & set(phases):
            return
        serves = not set(phases).isdisjoint(_TAKING)
        for from_ in self._awaiting:
            # Each is raised, so each is an error of its own.
            from_.reply(None if serves else self._table.unavailable())
        self._awaiting.clear()
