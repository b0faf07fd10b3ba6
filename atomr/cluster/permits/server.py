"""The process of a node's part in limits: moves frames and time, and decides nothing.

What the node's own code acquires and settles is done in place, on the same state: all
of a node runs in one thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import attrs

from atomr import telemetry
from atomr.core.messages import PassesBounds
from atomr.crdt import Origin
from atomr.gossip.escrow import Frame
from atomr.http2 import Lane
from atomr.otp import GenServer, NoReply
from atomr.process import TimerRef, send_after
from atomr.process.context import current_process

if TYPE_CHECKING:
    from atomr.cluster.peers import Peers
    from atomr.cluster.permits.core import Core
    from atomr.cluster.permits.service import PermitService
    from atomr.gossip.escrow import TermsDiffer

log = logging.getLogger("atomr.cluster.permits")

_WAKE: Final = "it is time"
_NEVER = float("inf")

_ROUNDING_S = 1e-6
"""A clock that is read when a delay is over may lack that much of its end."""

MAX_WAITING = 4_096
"""Frames that wait to be handled; whatever one says is said again."""


@attrs.frozen
class _Arrived(PassesBounds):
    peer: Origin
    frame: Frame


class PermitServer(GenServer):
    """The process of one life of a node's part in limits.

    Attributes:
        waiting: frames that wait to be handled.
        dropped: frames that were not, as too many waited.
        wake_at_s: when its timer fires, by the clock that limits are kept by.
    """

    def __init__(self, service: PermitService, peers: Peers) -> None:
        self.waiting = 0
        self.dropped = 0
        self._service = service
        self._peers = peers
        self._timer = TimerRef()
        self.wake_at_s = _NEVER
        self._core: Core

    def init(self) -> None:
        """Serve, on what is known from the life before."""
        process = self._process = current_process("PermitServer.init()")
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self] = self._end
        self._core = self._service.begin(self, self._peers.origin)
        self.act()

    def _end(self) -> None:
        self._timer.cancel()
        self._service.ended(self)

    def format_status(self) -> object:
        """Return how much there is."""
        return {
            "limits": sorted(self._core.parts),
            "waiting": self.waiting,
            "dropped": self.dropped,
        }

    # --- what comes in --------------------------------------------------------------

    def arrive(self, peer: Origin, frame: Frame) -> None:
        """Take a frame of a peer; called by the task that reads the link."""
        if self.waiting >= MAX_WAITING:
            self.dropped += 1
            return
        self.waiting += 1
        self._process.deliver(_Arrived(peer, frame))

    def handle_info(self, message: object) -> NoReply:
        """Do what is to be done after a frame, or in its time."""
        service = self._service
        with service.changing():
            match message:
                case _Arrived(peer, frame):
                    self.waiting -= 1
                    self._core.receive(peer.name, frame, service.now_s())
                case _ if message is _WAKE:
                    self.wake_at_s = _NEVER
                    self._core.advance(service.now_s())
                case _:
                    super().handle_info(message)
        self.act()
        return NoReply()

    # --- what goes out --------------------------------------------------------------

    def act(self) -> None:
        """Do what the core wants done."""
        core = self._core
        if core.sends:
            sends, core.sends = core.sends, []
            for name, frame in sends:
                self._tell(name, frame)
        if core.facts:
            facts, core.facts = core.facts, []
            for fact in facts:
                self._report(fact)
        if core.next_deadline_s < self.wake_at_s:
            self._arm(core.next_deadline_s)

    def look(self) -> None:
        """Be woken in time for what a use has made due."""
        at_s = self._core.escrow.next_deadline_s
        if at_s is not None and at_s < self.wake_at_s:
            self._arm(at_s)

    def _tell(self, name: str, frame: Frame) -> None:
        peer = self._peers.get(name)
        if peer is not None:
            # What is refused is said again: nothing here counts on a frame.
            self._peers.tell(peer, self._service.service_name, frame, lane=Lane.CTL)

    def _arm(self, at_s: float) -> None:
        self._timer.cancel()
        self.wake_at_s = at_s
        delay_s = max(0.0, at_s - self._service.now_s()) + _ROUNDING_S
        self._timer = send_after(delay_s, self._process.pid, _WAKE)

    def _report(self, fact: TermsDiffer) -> None:
        log.error(
            "limit %r: %s has other terms for it; nothing is lent between the two:"
            " give all nodes the same",
            fact.limit,
            fact.peer,
        )
        telemetry.emit(
            ("atomr", "permits", "terms_differ"),
            metadata={"limit": fact.limit, "peer": fact.peer},
        )
