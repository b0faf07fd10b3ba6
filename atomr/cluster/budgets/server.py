"""The process of a node's budgets: moves frames and time, and decides nothing.

What the node's own code reserves and settles is done in place: all of a node runs in
one thread.  What follows from it (frames, a write, a timer) does not wait either.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from atomr import telemetry
from atomr.cluster.budgets.core import Core, Fact
from atomr.cluster.budgets.frames import Message
from atomr.cluster.budgets.writer import Writer
from atomr.cluster.peers import PeerDown, PeerUp
from atomr.core.messages import PassesBounds
from atomr.crdt import Origin
from atomr.gossip.ledger import Overran, Reclaimed, ReclaimFailed, RolledBack
from atomr.http2 import Lane
from atomr.otp import GenServer, NoReply
from atomr.process import TimerRef, link, send_after, spawn, stop, unlink, wait_exit
from atomr.process.context import current_process

if TYPE_CHECKING:
    from atomr.cluster.budgets.service import BudgetService
    from atomr.cluster.peers import Peers
    from atomr.core.exits import ExitReason

log = logging.getLogger("atomr.cluster.budgets")

_WAKE: Final = "it is time"

MAX_WAITING = 4_096
"""Frames that wait to be handled; whatever one says is said again."""


@attrs.frozen
class _Arrived(PassesBounds):
    peer: Origin
    message: Message


class BudgetServer(GenServer):
    """The process of one life of a node's budgets.

    Attributes:
        core: what it decides.
        waiting: frames that wait to be handled.
        dropped: frames that were not, as too many waited.
    """

    core: Core

    def __init__(self, service: BudgetService, peers: Peers) -> None:
        self.waiting = 0
        self.dropped = 0
        self._service = service
        self._peers = peers
        self._timer = TimerRef()
        self._wake_at_s = float("inf")
        self._overruns: Counter[str] = Counter()
        self._writer: Writer

    async def init(self) -> None:
        """Read the file, if there is one; then serve, and hear of peers.

        Raises:
            LedgerStoreError: the file cannot be used.
        """
        service = self._service
        process = self._process = current_process("BudgetServer.init()")
        if service.file_pid is not None:
            # Of the life before this one: it closes the file.
            await wait_exit(service.file_pid)
        stored = await service.storage.open()
        self.core = Core(stored, name=self._peers.origin.name, voters=service.voters)
        self.core.find = service.find
        self._writer = Writer(
            service.storage, self.core, name=service.name, act=self.act
        )
        service.file_pid = spawn(self._writer.run)
        link(service.file_pid)
        watching = ExitStack()
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self] = partial(self._end, watching)
        watching.enter_context(self._peers.watch(process.deliver))
        service.begin(self)
        self.act()

    def _end(self, watching: ExitStack) -> None:
        watching.close()
        self._service.ended(self)

    async def terminate(self, reason: ExitReason) -> None:
        """Give back what nobody holds, and close the file."""
        if self._service.file_pid is not None:
            unlink(self._service.file_pid)
            await stop(self._service.file_pid)

    def format_status(self) -> object:
        """Return how much there is."""
        return {
            "budgets": len(self.core.accounts),
            "problem": self.core.problem,
            "waiting": self.waiting,
            "dropped": self.dropped,
        }

    @property
    def now_s(self) -> float:
        """The monotonic time."""
        return trio.current_time()

    @property
    def wall_s(self) -> float:
        """The wall's time, since 1970."""
        return self._service.wall_s()

    # --- what comes in ----------------------------------------------------------------

    def arrive(self, peer: Origin, message: Message) -> None:
        """Take a message of a peer; called by the task that reads the link."""
        if self.waiting >= MAX_WAITING:
            self.dropped += 1
            return
        self.waiting += 1
        self._process.deliver(_Arrived(peer, message))

    def handle_info(self, message: object) -> NoReply:
        """Do what is to be done after a frame, a piece of news, or in its time."""
        match message:
            case _Arrived(peer, frame):
                self.waiting -= 1
                self.core.receive(
                    peer.name, frame, now_s=self.now_s, wall_s=self.wall_s
                )
            case PeerUp(peer):
                self.core.peer_up(peer.name)
            case PeerDown(peer):
                self.core.peer_down(peer.name)
            case _ if message is _WAKE:
                self._wake_at_s = float("inf")
                self.core.advance(now_s=self.now_s, wall_s=self.wall_s)
            case _:
                super().handle_info(message)
        self.act()
        return NoReply()

    # --- what goes out ----------------------------------------------------------------

    def act(self) -> None:
        """Do what the core wants done."""
        core = self.core
        if core.sends:
            sends, core.sends = core.sends, []
            for name, message in sends:
                self._tell(name, message)
        if core.facts:
            facts, core.facts = core.facts, []
            for fact in facts:
                self._report(fact)
        if core.wants_write:
            self._writer.want()
        if core.next_deadline_s < self._wake_at_s:
            self._arm(core.next_deadline_s)

    def _tell(self, name: str, message: Message) -> None:
        peer = self._peers.get(name)
        if peer is not None:
            # What is refused is said again: nothing here counts on a frame.
            self._peers.tell(peer, self._service.service_name, message, lane=Lane.CTL)

    def _arm(self, at_s: float) -> None:
        self._timer.cancel()
        self._wake_at_s = at_s
        delay_s = max(0.0, at_s - trio.current_time())
        self._timer = send_after(delay_s, self._process.pid, _WAKE)

    def _report(self, fact: Fact) -> None:
        match fact:
            case Overran():
                self._report_overrun(fact)
            case RolledBack():
                log.error(
                    "budget %r: this node's file is older than what others saw of it;"
                    " what was spent since may be spent again",
                    fact.budget,
                )
                telemetry.emit(
                    ("atomr", "budgets", "rolled_back"),
                    metadata={"name": self._service.name, "budget": fact.budget},
                )
            case Reclaimed():
                self._report_reclaim(fact)
            case ReclaimFailed():
                pass  # who asked is told
        self._service.told(fact)

    def _report_overrun(self, fact: Overran) -> None:
        if fact.uncovered:
            self._overruns[fact.budget] += 1
            number = self._overruns[fact.budget]
            # The first, and whenever they have doubled: a flood must not fill the log.
            if number.bit_count() == 1:
                log.error(
                    "budget %r: %d calls cost more than was left, the last by %d units",
                    fact.budget,
                    number,
                    fact.uncovered,
                )
        telemetry.emit(
            ("atomr", "budgets", "overrun"),
            {"excess": fact.excess, "uncovered": fact.uncovered},
            {"name": self._service.name, "budget": fact.budget},
        )

    def _report_reclaim(self, fact: Reclaimed) -> None:
        log.warning(
            "budget %r: %d units were inherited from %s",
            fact.budget,
            fact.units,
            ", ".join(fact.lost),
        )
        telemetry.emit(
            ("atomr", "budgets", "reclaimed"),
            {"units": fact.units},
            {"name": self._service.name, "budget": fact.budget, "lost": fact.lost},
        )
