"""The replicator's process: moves frames and time, and decides nothing.

Frames come into its mailbox, a bounded number of them.  Writes of the node's own code
do not: all of a node runs in one thread, so they are made in place, at once, and what
follows from them (a timer, messages for watchers) does not wait.

Each frame is applied in one go, so nobody sees a half of it; between two of them
others have their turn, as soon as 1 ms was spent.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import Counter
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import trio

from atomr import telemetry
from atomr.cluster.peers import MemberChanged, PeerDown, PeerUp
from atomr.cluster.replicator.core import Core
from atomr.cluster.replicator.durable import Durability
from atomr.cluster.replicator.errors import NotStoredError
from atomr.cluster.replicator.facts import Alarm, Reborn, Tell
from atomr.cluster.replicator.frames import Message
from atomr.cluster.replicator.inbox import Inbox
from atomr.cluster.replicator.watchers import Watchers
from atomr.core.messages import PassesBounds
from atomr.crdt import Origin
from atomr.errors import LinkDownError
from atomr.gossip.membership import Status
from atomr.gossip.replication import Diverged
from atomr.http2 import Lane
from atomr.otp import GenServer, NoReply
from atomr.process import (
    PlainProcess,
    TimerRef,
    link,
    send_after,
    spawn,
    stop,
    unlink,
    wait_exit,
)
from atomr.process.context import check_local, current_process

if TYPE_CHECKING:
    from atomr.cluster.peers import Peers
    from atomr.cluster.replicator.durable import StoreOptions
    from atomr.cluster.replicator.replicator import Replicator
    from atomr.cluster.replicator.shard import Shard
    from atomr.core.exits import ExitReason
    from atomr.process.process import Process
    from atomr.refs import Pid

log = logging.getLogger("atomr.cluster.replicator")

TURN_S = 0.001
"""After so long others have their turn."""

_WAKE: Final = "it is time"
_BULK_WAIT_S = 5.0


def wall_ms() -> int:
    """Return the wall's time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@attrs.frozen
class _Arrived(PassesBounds):
    peer: Origin
    message: Message


class ReplicatorServer(GenServer):
    """The process of one life of a replicator.

    Attributes:
        core: what it decides.
        watchers: who is told of changes.
        inbox: messages of peers that wait to be handled.
    """

    def __init__(self, replicator: Replicator, peers: Peers) -> None:
        self.watchers = Watchers()
        self.inbox = Inbox(replicator.options.max_waiting)
        self._replicator = replicator
        self._peers = peers
        self._timer = TimerRef()
        self._wake_at_s = float("inf")
        self._spent_s = 0.0
        self._suspects: set[Origin] = set()
        self._alarms: Counter[tuple[str, type]] = Counter()
        self._durability: Durability | None = None
        self.core = Core(
            peers.origin,
            replicator.options,
            draw=random.SystemRandom(),
            new_boot=partial(secrets.randbits, 64),
            now_s=trio.current_time(),
        )

    async def init(self) -> None:
        """Read the file, if there is one; then serve handles, and hear of peers.

        Raises:
            ShardStoreError: the file cannot be used.
        """
        process = self._process = current_process("ReplicatorServer.init()")
        if self._replicator.store is not None:
            await self._open(self._replicator.store)
        watching = ExitStack()
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self] = partial(self._end, watching)
        watching.enter_context(self._peers.watch_members(process.deliver))
        watching.enter_context(self._peers.watch(process.deliver))
        self._replicator.server = self
        self._arm()

    def check_local(self, process: Process, operation: str) -> None:
        """Refuse a process of another node than this one's.

        Raises:
            ValueError: it is of another one.
        """
        check_local(process, self._process.node, operation)

    async def _open(self, options: StoreOptions) -> None:
        replicator = self._replicator
        if replicator.file_pid is not None:
            # Of the life before this one: it closes the file.
            await wait_exit(replicator.file_pid)
        durability = Durability(options, self.core, name=replicator.name)
        await durability.open(forget_s=replicator.options.replication.forget_s)
        if durability.is_on:
            self._durability = durability
            replicator.file_pid = spawn(durability.run)
            link(replicator.file_pid)

    async def terminate(self, reason: ExitReason) -> None:
        """Write what is not written yet, and close the file."""
        if self._replicator.file_pid is not None:
            unlink(self._replicator.file_pid)
            await stop(self._replicator.file_pid)

    async def sync(self) -> None:
        """Wait until what was written up to now is on the disk.

        Raises:
            NotStoredError: there is no file, or none any more.
            ShardStoreError: it cannot be written.
        """
        durability = self._durability
        if durability is not None and durability.is_on:
            await durability.flush()
        if durability is None or not durability.is_on:
            raise NotStoredError(self._replicator.name)

    def _end(self, watching: ExitStack) -> None:
        watching.close()
        if self._replicator.server is self:
            self._replicator.server = None

    def format_status(self) -> object:
        """Return how much there is; values may be anybody's secrets."""
        core = self.core
        return {
            "shards": len(core.shards),
            "keys": sum(
                len(replica.cells())
                for shard in core.shards
                for replica in shard.log.replicas().values()
            ),
            "neighbours": sorted(core.neighbours),
            "waiting": self.inbox.waiting,
            "overrun": self.inbox.overrun,
        }

    @property
    def pid(self) -> Pid:
        """The process."""
        return self._process.pid

    # --- what comes in --------------------------------------------------------------

    def arrive(self, peer: Origin, message: Message) -> None:
        """Take a message of a peer; called by the task that reads the link."""
        # Whatever a frame says is said again, and a hello is asked for; the reader
        # must not wait.
        if self.inbox.arrived(peer, message):
            self._process.deliver(_Arrived(peer, message))

    async def handle_info(self, message: object) -> NoReply:
        """Do what is to be done after a frame, a piece of news, or in its time."""
        began_s = time.perf_counter()
        now_s = trio.current_time()
        match message:
            case _Arrived(peer, frame):
                latest = self.inbox.take(peer, frame)
                self.core.receive(peer, latest, now_s=now_s, now_ms=wall_ms())
            case PeerUp(peer):
                self.core.peer_up(peer, now_s)
                self.core.judged(peer, is_suspect=peer in self._suspects)
            case PeerDown(peer):
                self.core.peer_down(peer, now_s)
            case MemberChanged():
                self._judge(message)
            case _ if message is _WAKE:
                self._wake(now_s)
            case _:
                super().handle_info(message)
        self.act()
        self._arm()
        self._spent_s += time.perf_counter() - began_s
        if self._spent_s > TURN_S:
            self._spent_s = 0.0
            await trio.lowlevel.checkpoint()
        return NoReply()

    def _judge(self, changed: MemberChanged) -> None:
        member = changed.after
        if changed.before is not None:
            self._suspects.discard(changed.before.origin)
        if member.status is Status.SUSPECT:
            self._suspects.add(member.origin)
        else:
            self._suspects.discard(member.origin)
        self.core.judged(member.origin, is_suspect=member.origin in self._suspects)

    def _wake(self, now_s: float) -> None:
        self._wake_at_s = float("inf")
        self.core.wake(now_s)
        if self.watchers.catch_up():
            self.core.wake_soon(now_s)
        self.core.keep_views(self.watchers)

    # --- what goes out --------------------------------------------------------------

    def wrote(self, shard: Shard) -> None:
        """Do what is to be done after code of this node has written to a shard."""
        if self.core.wrote(shard, trio.current_time()):
            self._arm()
        self.act()

    def act(self) -> None:
        """Do what the core wants done."""
        for out in self.core.take():
            match out:
                case Tell():
                    self._tell(out)
                case Reborn(shard, peer):
                    self._report_rebirth(shard, peer)
                case Alarm():
                    self._report(out)
        changes = self.core.take_changes()
        if changes and self.watchers.tell(changes):
            self.core.wake_soon(trio.current_time())
            self._arm()

    def _tell(self, tell: Tell) -> None:
        lane = Lane.BULK if tell.is_bulk else Lane.MSG
        service = self._replicator.service_name
        if self._peers.tell(tell.to, service, tell.message, lane=lane):
            return
        if tell.is_bulk:
            later = PlainProcess(self._tell_later, tell)
            self._process.node.spawn(later, label="snapshot part", name=None)
        else:
            self.core.unsaid(tell, trio.current_time())

    async def _tell_later(self, tell: Tell) -> None:
        found = self._peers.link(tell.to)
        if found is None:
            return
        # A part that is lost with its link is of no use: the peer begins again.
        with suppress(LinkDownError), trio.move_on_after(_BULK_WAIT_S):
            await found.room(Lane.BULK)
            self._peers.tell(
                tell.to, self._replicator.service_name, tell.message, lane=Lane.BULK
            )

    def _arm(self) -> None:
        at_s = self.core.next_deadline_s
        if at_s < self._wake_at_s:
            self._timer.cancel()
            self._wake_at_s = at_s
            delay_s = max(0.0, at_s - trio.current_time())
            self._timer = send_after(delay_s, self._process.pid, _WAKE)

    def _report_rebirth(self, shard: int, peer: Origin) -> None:
        log.warning(
            "replicator %r: shard %d begins anew, as %s says that it was away for"
            " too long; what this node owns is put again, what it had told nobody"
            " is lost",
            self._replicator.name,
            shard,
            peer,
        )
        telemetry.emit(
            ("atomr", "replicator", "reset"),
            metadata={"name": self._replicator.name, "shard": shard, "peer": peer},
        )

    def _report(self, alarm: Alarm) -> None:
        fact = alarm.fact
        what = "diverged" if isinstance(fact, Diverged) else fact.problem
        kind = alarm.peer.name, type(fact)
        self._alarms[kind] += 1
        # The first, and whenever they have doubled: a flood must not fill the log.
        if self._alarms[kind].bit_count() == 1:
            log.error(
                "replicator %r%s and that of %s: %s; %s",
                self._replicator.name,
                "" if alarm.shard is None else f": shard {alarm.shard}",
                alarm.peer,
                what,
                "it is being repaired, and please report it"
                if isinstance(fact, Diverged)
                else "nothing of it was used",
            )
        telemetry.emit(
            ("atomr", "replicator", "alarm"),
            metadata={
                "name": self._replicator.name,
                "shard": alarm.shard,
                "peer": alarm.peer,
                "problem": what,
            },
        )
