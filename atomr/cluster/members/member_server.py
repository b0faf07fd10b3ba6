"""The process that runs the membership: frames and timers in, frames and facts out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from atomr import telemetry
from atomr.cluster.members.station import cluster_id
from atomr.cluster.wake_timer import WakeTimer
from atomr.errors import SupersededError
from atomr.gossip.membership import (
    Changed,
    Event,
    ForeignCluster,
    Leave,
    Membership,
    Refuted,
    Send,
    Superseded,
    Woke,
)
from atomr.otp import GenServer
from atomr.process import current_node, self_pid, send

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.cluster.members.station import Station
    from atomr.core.exits import ExitReason
    from atomr.gossip.membership import Effect

_log = logging.getLogger("atomr.cluster")


class MemberServer(GenServer):
    """The membership of one life of a node."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._switchboard = station.switchboard
        self._machine = Membership(
            station.origin,
            station.address,
            cluster=cluster_id(station.options.cluster),
            draw=station.draw,
            seeds=station.known,
            options=station.options.membership,
        )
        self._foreign: set[int] = set()

    def init(self) -> None:
        """Join by whom the last life knew; seeds come later."""
        pid = self_pid()
        self._now = current_node().now
        self._timer = WakeTimer(pid, Woke(), now=self._now)
        self._switchboard.peers.members = self._machine.members
        self._switchboard.members = lambda event: send(pid, event)
        self._switchboard.leave = self._leave
        self._perform(self._machine.start(self._now()))
        self._timer.arm(self._machine.next_deadline_s)

    def handle_info(self, message: Event) -> None:
        """Take one step."""
        if isinstance(message, Woke):
            self._timer.fired()
        self._perform(self._machine.handle(message, self._now()))
        self._timer.arm(self._machine.next_deadline_s)

    def terminate(self, reason: ExitReason) -> None:
        """Say goodbye, so that nobody has to find out."""
        self._leave()

    def format_status(self) -> object:
        """Return who is there; frames and timers are no news."""
        return {
            "members": dict(self._machine.members),
            "health": self._machine.health,
        }

    def _leave(self) -> None:
        self._perform(self._machine.handle(Leave(), self._now()))

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to, frame):
                    self._switchboard.send(to, frame)
                case Changed():
                    self._switchboard.changed(effect)
                case Refuted(accused, incarnation):
                    telemetry.emit(
                        ("atomr", "member", "refuted"),
                        {"incarnation": incarnation},
                        {"accused": accused},
                    )
                case Superseded(by):
                    self._station.fail(SupersededError(self._station.origin, by))
                case ForeignCluster():
                    self._report(effect)

    def _report(self, foreign: ForeignCluster) -> None:
        telemetry.emit(
            ("atomr", "member", "foreign_cluster"),
            metadata={"sender": foreign.sender, "cluster": foreign.cluster},
        )
        if foreign.cluster not in self._foreign:
            self._foreign = {foreign.cluster}
            _log.warning(
                "%s speaks as a node of another cluster, %x; it gets no answer",
                foreign.sender,
                foreign.cluster,
            )
